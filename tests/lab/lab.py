"""The running lab, for tests: machines that can be cut off and restarted, registries, settings.

Names (`edge_node`, `mqtt_1`, …) work as host names on the box, on the machines and, by their addresses, in
containers. `machine(NAME).exec` and the faults go through the engine of the box, not through SSH.
"""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.lab import engine, keys, parts
from tests.lab.place import client, docker
from tests.lab.spec import BASE_IMAGE, KAFKA, MACHINES, MQTT, PARTS, PASSWORD, REGISTRY, REGISTRY_AUTH, USER, Part

base_image = BASE_IMAGE
known_hosts = keys.KNOWN_HOSTS
mqtt = f"{MQTT.name}:{MQTT.port}"
kafka = f"{KAFKA.name}:{KAFKA.port}"
CA_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
CHAINS = (("INPUT", "-i"), ("OUTPUT", "-o"), ("FORWARD", "-i"), ("FORWARD", "-o"))


@dataclass(frozen=True, slots=True)
class Registry:
    """`host` as in image references; `user` and `password` are "" where none is asked for."""

    host: str
    container: str
    user: str = ""
    password: str = ""

    def repositories(self) -> list[str]:
        """What it holds, by its own catalogue."""
        script = (
            "import urllib.request as u, sys; r = u.Request(sys.argv[1]); "
            "r.add_header('Authorization', 'Basic ' + sys.argv[2]); print(u.urlopen(r).read().decode())"
        )
        basic = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        port = self.host.rpartition(":")[2]
        text = docker("exec", self.container, "python3", "-c", script, f"http://127.0.0.1:{port}/v2/_catalog", basic)
        found: list[str] = json.loads(text)["repositories"]
        return found


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine of the lab. `hostname` is its name, `address` its IP; log in with `key` or `password`."""

    hostname: str
    address: str
    container: str
    host_key: str
    user: str = USER
    password: str = PASSWORD
    key: Path = keys.LOGIN_KEY
    port: int = 22

    def ssh_config(self, **changes: object) -> dict[str, object]:
        """`sshConfig` of a PADL 1.1 file: password and pinned host key; `changes` add or replace keys."""
        return {"user": self.user, "pass": self.password, "port": self.port, "host_key": self.host_key, **changes}

    def exec(self, *argv: str, user: str = "root", check: bool = True) -> str:
        """What `argv` prints there; raises `LabError` when it fails, or "" with `check` off."""
        return docker("exec", "-u", user, "-e", "LC_ALL=C.UTF-8", self.container, *argv, check=check)

    def cut(self, *, reset: bool = False, ssh_only: bool = False) -> None:
        """Nothing of the network passes any more: silently, as if the cable were pulled, or with resets.

        `ssh_only`: who deploys is cut off, and its users are not.
        """
        self.restore()
        how = ("-j", "REJECT", "--reject-with", "tcp-reset") if reset else ("-j", "DROP")
        what = ("-p", "tcp", "--dport", str(self.port)) if ssh_only else ("-p", "tcp") if reset else ()
        for chain, way in CHAINS:
            if way == "-o" and (reset or ssh_only):
                continue  # the resets themselves leave this way
            self.exec("iptables", "-I", chain, "1", way, "eth0", *what, *how, "-m", "comment", "--comment", "lab-cut")

    def restore(self) -> None:
        for chain, _ in CHAINS:
            rules = self.exec("iptables", "-S", chain).splitlines()
            for rule in (rule for rule in rules if "lab-cut" in rule):
                self.exec("iptables", "-D", *rule.split()[1:])

    @contextmanager
    def cut_off(self, *, reset: bool = False, ssh_only: bool = False) -> Iterator[None]:
        self.cut(reset=reset, ssh_only=ssh_only)
        try:
            yield
        finally:
            self.restore()

    def hang_up(self) -> None:
        """Every SSH connection ends at once, without a word; new ones are taken."""
        self.exec("pkill", "-KILL", "-u", self.user, "-x", "sshd", check=False)

    def stop(self) -> None:
        """Powers it off."""
        docker("stop", "-t", "5", self.container)

    def start(self) -> None:
        """Powers it on and waits until SSH (and its engine) answer; what is to start at boot starts."""
        docker("start", self.container)
        parts.wait(_part(self.hostname))

    def restart(self) -> None:
        self.stop()
        self.start()


def is_up() -> bool:
    """Whether every part of the lab runs."""
    return engine.answers() and set(parts.status().values()) == {"running"}


def machine(name: str) -> Machine:
    part = _part(name)
    if part not in MACHINES:
        raise KeyError(name)
    return Machine(part.name, part.address, part.container, keys.host_key(part))


def machines() -> tuple[Machine, ...]:
    """The three that have an engine."""
    return tuple(machine(part.name) for part in MACHINES if part.image == "mlpacker-lab/machine")


def registry(auth: bool = False) -> Registry:
    part = REGISTRY_AUTH if auth else REGISTRY
    user, password = keys.registry_login() if auth else ("", "")
    return Registry(f"{part.name}:{part.port}", part.container, user, password)


def settings_env() -> dict[str, str]:
    """The variables with which our code builds and runs on this box: client, base image, CA bundle."""
    variables = {"MLPACKER__BUILD__DOCKER": client(), "MLPACKER__BUILD__BASE_IMAGE": BASE_IMAGE}
    if CA_BUNDLE.exists():
        variables["MLPACKER__BUILD__CA_BUNDLE"] = str(CA_BUNDLE)
    return variables


def registry_env(auth: bool = False) -> dict[str, str]:
    """The variables that make this installation use a registry of the lab."""
    found = registry(auth)
    variables = {"MLPACKER__REGISTRY__HOST": found.host}
    if auth:
        variables |= {"MLPACKER__REGISTRY__USER": found.user, "MLPACKER__REGISTRY__PASSWORD": found.password}
    return variables


def padl_infra(**machines: str) -> Mapping[str, object]:
    """`infra` of a PADL 1.1 file: machine id → name in the lab."""
    return {key: {"hostname": name, "sshConfig": machine(name).ssh_config()} for key, name in machines.items()}


def ssh(name: str, argv: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """`argv` on a machine by the system's ssh with the lab's key."""
    found = machine(name)
    options = ("-i", str(found.key), "-o", f"UserKnownHostsFile={known_hosts}", "-o", "BatchMode=yes")
    return subprocess.run(
        ("ssh", *options, f"{found.user}@{found.hostname}", *argv), capture_output=True, text=True, check=False
    )


def _part(name: str) -> Part:
    return next(part for part in PARTS if part.name == name)
