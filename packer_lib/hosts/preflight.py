"""What a machine lacks for what is to come to it: everything at once, each with its remedy, before anything changes."""

from __future__ import annotations

import json
import platform as this
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packer_lib.errors import MLPackerError
from packer_lib.hosts import Host, Unreachable

LOOK_WITHIN = 90.0
SCARCE = 2 * 1024**3  # an environment or image with TensorFlow takes 1.6 GB
FEW_FILES = 50_000
OLDEST = (3, 8)
UNIT_PYTHONS = ((3, 11), (3, 12))  # what the locks of bundles are resolved for
ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64"}

Facts = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Missing:
    """`what` a machine lacks, and what to do about it there. `docker` is what `install.install_docker` can mend."""

    what: str
    remedy: str
    docker: bool = False

    def __str__(self) -> str:
        return f"{self.what}\n    {self.remedy}"


def preflight(host: Host, needs: Iterable[str] = (), platform: str = "") -> list[Missing]:
    """What `host` lacks for `needs`: `native`, `container`, `registry:<host[:port]>`; empty when nothing.

    `platform` is what images are built for (`linux/arm64`; empty: this machine's own). An unreachable machine and one
    whose key is not known are findings too. Looks only.
    """
    words = frozenset(needs)
    try:
        facts = look(host, words)
    except MLPackerError as error:
        return [Missing(error.message, error.hint)]
    ours = [] if host.machine is None else _home(facts["home"])
    return [*ours, *_judge(facts, words), *_architecture(facts, words, platform)]


def look(host: Host, needs: Iterable[str]) -> Facts:
    """What the machine says of itself, see `far_look`; `Unreachable` when it does not."""
    source = Path(__file__).with_name("far_look.py").read_text(encoding="utf-8")
    python = host.python if host.machine is None else "python3"
    argv = (python, "-X", "utf8", "-I", "-S", "-", host.home, host.docker, *sorted(needs))
    done = host.run(argv, input=source, timeout=LOOK_WITHIN)
    if done.code == 127:
        raise Unreachable(f"{host.name} has no python3", "install it there: apt-get install python3")
    try:
        facts: Facts = json.loads(done.out)
    except ValueError:
        raise Unreachable(f"{host.name}: it cannot be looked at: {done.tail(2)}", "look at its python3") from None
    return facts


def _judge(facts: Facts, needs: frozenset[str]) -> Iterator[Missing]:
    yield from _writable(facts["home"])
    yield from _disk(facts["disk"], "below your home there")
    python = tuple(facts["python"])
    if python < OLDEST:
        yield Missing(f"python3 is {_dotted(python)}; {_dotted(OLDEST)} is the oldest", "apt-get install python3")
    if "native" in needs:
        yield from _native(facts, python)
    if "container" in needs:
        yield from _engine(facts["docker"])
        for name, found in facts["registries"].items():
            yield from _registry(name, found)


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(str(part) for part in version)


def _home(home: Facts) -> Iterator[Missing]:
    there = home["there"]
    if home["link"] or home["owner"] != home["uid"] or home["mode"] & 0o022:
        kind = "a link" if home["link"] else f"a folder of user {home['owner']}, mode {home['mode']:o}"
        yield Missing(f"{there} is not a folder of ours alone ({kind})", f"look who made it (ls -ld {there}), move it")


def _writable(home: Facts) -> Iterator[Missing]:
    there = home["there"]
    if not home["writable"]:
        yield Missing(f"{there} is not writable", "log in as a user with a home folder of its own")
    if not home["executable"]:
        yield Missing(
            f"programs cannot run from {there} (mounted noexec)", "mount it without noexec, or use containers"
        )


def _disk(disk: Mapping[str, int], where: str) -> Iterator[Missing]:
    if disk["bytes"] < SCARCE:
        yield Missing(f"{disk['bytes'] / 1024**3:.1f} GB free {where}", "free some: a TensorFlow unit needs 2 GB")
    elif 0 <= disk["files"] < FEW_FILES:
        yield Missing(f"only {disk['files']} more files fit {where}", "remove some: an environment has many small ones")


def _native(facts: Facts, python: tuple[int, ...]) -> Iterator[Missing]:
    if python not in UNIT_PYTHONS:
        fit = " or ".join(_dotted(version) for version in UNIT_PYTHONS)
        yield Missing(f"python3 is {_dotted(python)}; native units need {fit}", "install it, or use containers")
    linger = facts["lingers"]
    if linger["killed"] and not linger["lingering"]:
        yield Missing(
            "its logind ends every process when its user logs out (KillUserProcesses=yes)",
            f"sudo loginctl enable-linger {linger['user']}",
        )


def _engine(docker: Facts) -> Iterator[Missing]:
    said = docker["said"]
    if not docker["client"]:
        yield Missing("there is no docker", 'sudo apt-get install docker.io; or `install: ["docker"]` in PADL', True)
    elif "permission denied" in said.lower():
        yield Missing(
            "this user may not use the docker engine", "sudo usermod -aG docker $USER; then log out everywhere", True
        )
    elif not docker["engine"]:
        yield Missing(f"the docker engine does not answer: {said}", "sudo systemctl start docker", True)
    else:
        yield from _disk(docker["disk"], "for images")


def _registry(name: str, found: Facts) -> Iterator[Missing]:
    if not found["scheme"]:
        yield Missing(f"the registry {name} does not answer there: {found['said']}", "look at its name and the network")
    elif found["scheme"] == "http" and not found["allowed"]:
        yield Missing(
            f"the registry {name} has no TLS, and the engine does not allow that",
            f'give it TLS, or put {{"insecure-registries": ["{name}"]}} into /etc/docker/daemon.json there',
        )


def _architecture(facts: Facts, needs: frozenset[str], platform: str) -> Iterator[Missing]:
    """Images are built for one architecture, and our own uv runs on one."""
    wanted = platform.split("/")[1] if "/" in platform else ""
    built = ARCHITECTURES.get(wanted, wanted) or this.machine()
    there = facts["arch"]
    if "container" in needs and built != there:
        name = next((key for key, value in ARCHITECTURES.items() if value == there), there)
        yield Missing(
            f"it is a machine of {there}, and images are built for {built}",
            f"build them for it: MLPACKER__BUILD__PLATFORM=linux/{name}",
        )
    if "native" in needs and there != this.machine() and not facts["uv"]:
        yield Missing(f"our uv is for {this.machine()}, and it is {there}", "install uv there: ~/.local/bin/uv")
