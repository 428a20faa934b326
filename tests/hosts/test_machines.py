"""A bare Debian machine of the lab, where a user's password is a sentinel: login, equipment, Docker, and a reboot."""

from __future__ import annotations

import contextlib
import subprocess
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from packer_lib import settings
from packer_lib.errors import DeployFailed
from packer_lib.hosts import Unreachable, boot, wire
from packer_lib.hosts import connect as connecting
from packer_lib.hosts.connect import connect
from packer_lib.hosts.equip import equip
from packer_lib.hosts.home import prepare
from packer_lib.hosts.install import install_docker
from packer_lib.hosts.layout import Layout
from packer_lib.hosts.preflight import preflight
from packer_lib.hosts.ssh import SshHost
from packer_lib.padl.model import Machine
from packer_lib.release import supervisor
from packer_lib.secrets import Login
from packer_lib.settings import Settings
from tests.lab import engine, keys, lab
from tests.lab.place import docker
from tests.lab.spec import MACHINES, run_options
from tests.support import wait_for

pytestmark = pytest.mark.lab

SENTINEL = f"hunter2-{uuid.uuid4().hex[:8]}"
USER = "deployer"
HUNT = """
import glob, sys
sentinel = sys.stdin.buffer.read()
found = []
for path in glob.glob("/proc/[0-9]*/cmdline") + glob.glob("/proc/[0-9]*/environ"):
    try:
        found += [path] if sentinel in open(path, "rb").read() else []
    except OSError:
        pass
print(" ".join(found))
"""
DISK = """
import os, sys
sentinel = sys.stdin.buffer.read()
for top in ("/home", "/root", "/tmp", "/var", "/etc", "/run"):
    for folder, _, names in os.walk(top):
        for path in (os.path.join(folder, name) for name in names):
            if os.path.isfile(path) and not os.path.islink(path) and sentinel in open(path, "rb").read():
                print(path)
"""


@dataclass(frozen=True)
class Spare:
    """A machine of this module alone."""

    container: str
    address: str
    host_key: str

    def exec(self, *argv: str, text: str = "") -> str:
        """As root, through the box's engine."""
        command = (lab.client(), "exec", "-i", self.container, *argv)
        return subprocess.run(command, input=text, capture_output=True, text=True, check=True, timeout=120).stdout

    def reboot(self) -> None:
        docker("restart", "-t", "2", self.container)


@pytest.fixture(scope="module")
def spare() -> Iterator[Spare]:
    bare = MACHINES[-1]
    name, address = f"mlpacker-test-{uuid.uuid4().hex[:6]}", "10.213.0.99"
    options = run_options(bare, str(keys.files(bare)), engine.mtu(), engine.cgroup2())
    mine = (address if word == bare.address else word for word in options)
    docker("run", "-d", "--name", name, "--label", "io.mlpacker.test=spare", *mine, bare.image)
    try:
        found = Spare(name, address, lab.machine(bare.name).host_key)
        found.exec("useradd", "-m", "-s", "/bin/bash", "-G", "sudo", USER)
        found.exec("chpasswd", text=f"{USER}:{SENTINEL}\n")
        yield found
    finally:
        docker("rm", "-f", "-v", name)


@pytest.fixture
def here(tmp_path: Path) -> Settings:
    return settings.read({**lab.settings_env(), "MLPACKER__PATHS__HOME": str(tmp_path / "home")})


@pytest.fixture
def host(spare: Spare, here: Settings) -> Iterator[SshHost]:
    login = Login("m1", spare.address, user=USER, password=SENTINEL, host_key=spare.host_key)
    machine = Machine("m1", spare.address, USER)
    with contextlib.closing(SshHost(machine, login, lambda asked: connect(asked, here))) as found:
        wait_for(lambda: _answers(found), 60, "the machine's sshd")
        yield found


def _answers(host: SshHost) -> bool:
    try:
        return host.run(("true",)).ok
    except Unreachable:
        return False


def test_what_a_bare_machine_lacks_is_said_at_once(host: SshHost) -> None:
    assert preflight(host, {"native"}) == []
    found = preflight(host, {"container", "registry:registry.invalid:5000"})
    assert found[0].what == "there is no docker"
    assert "the registry registry.invalid:5000 does not answer there" in found[1].what
    assert all(one.remedy for one in found)


def test_a_bare_machine_is_equipped_and_comes_back_after_a_reboot(host: SshHost, spare: Spare, here: Settings) -> None:
    said: list[str] = []
    equip(host, here, said.append)
    assert said == [f"sending uv to {host.name}", f"installing supervisor on {host.name}"]
    equip(host, here, said.append)
    assert len(said) == 2
    assert host.python == f"/home/{USER}/.mlpacker/tools/env/bin/python"
    layout = Layout(host.home)
    prepare(host, layout)
    supervisor.configure(host, layout)
    supervisor.start(host, layout)
    assert boot.enable(host, said.append) == "cron"
    spare.exec("sh", "-c", f"(echo '0 0 1 1 * other'; crontab -u {USER} -l) | crontab -u {USER} -")
    assert boot.enable(host, said.append) == "cron"
    assert spare.exec("crontab", "-u", USER, "-l").count("@reboot") == 1
    before = _pid(host)
    spare.reboot()
    wait_for(lambda: _answers(host), 60, "the machine")
    after = wait_for(lambda: _pid(host), 60, "supervisor, started by cron")
    assert (before, after) != ("", "")
    boot.disable(host)
    boot.disable(host)
    assert spare.exec("crontab", "-u", USER, "-l") == "0 0 1 1 * other\n"
    assert not host.run(("test", "-e", f"{host.home}/at-boot")).ok


def _pid(host: SshHost) -> str:
    done = host.run((host.python, "-m", "supervisor.supervisorctl", "-c", Layout(host.home).supervisord, "pid"))
    return done.out.strip() if done.ok else ""


def test_docker_is_installed_with_a_sudo_that_asks(host: SshHost, spare: Spare) -> None:
    assert host.run(("sudo", "-n", "true")).code != 0, "else the password is not needed"
    # a container may lack the right to raise limits, which Debian's script for machines without systemd wants
    spare.exec("tee", "/etc/default/docker", text="ulimit() { :; }\n")
    seen: list[str] = []
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            seen.append(spare.exec("python3", "-c", HUNT, text=SENTINEL).strip())

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        install_docker(host, lambda line: None)
    finally:
        done.set()
        watcher.join()
    assert len(seen) > 3
    assert set(seen) == {""}
    assert host.run(("docker", "version")).ok
    assert preflight(host, {"container"}) == []
    said: list[str] = []
    install_docker(host, said.append)
    assert said == []


def test_the_password_is_nowhere_on_the_machine(host: SshHost, spare: Spare) -> None:
    assert host.run(("true",)).ok
    assert spare.exec("python3", "-c", DISK, text=SENTINEL) == ""
    planted = "/home/deployer/planted"
    spare.exec("tee", planted, text=SENTINEL)
    assert spare.exec("python3", "-c", DISK, text=SENTINEL).split() == [planted], "else the look itself is blind"
    spare.exec("rm", planted)
    assert spare.exec("python3", "-c", HUNT, text=SENTINEL).strip() == ""


def test_a_wrong_password_is_refused_without_being_told(host: SshHost, spare: Spare, here: Settings) -> None:
    login = Login("m1", spare.address, user=USER, password=SENTINEL + "!", host_key=spare.host_key)
    wrong = SshHost(Machine("m1", spare.address, USER), login, lambda asked: connect(asked, here))
    with pytest.raises(Unreachable, match="refuses the login of deployer with a password") as refused:
        wrong.run(("true",))
    assert SENTINEL not in str(refused.value)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ends take silence for an end after seconds: here nobody has to wait for what is only slow."""
    whole = wire._program
    monkeypatch.setattr(connecting, "KEEPALIVE", 1)
    monkeypatch.setattr(connecting, "GIVEN_UP", 4000)
    monkeypatch.setattr(wire, "BEAT_EVERY", 1.0)
    monkeypatch.setattr(wire, "_program", lambda name: whole(name).replace(b"SILENT = 60.0", b"SILENT = 6.0"))


@pytest.mark.usefixtures("impatient")
def test_a_link_that_goes_silent_is_noticed(host: SshHost, spare: Spare) -> None:
    """Nothing is reset: the cable is pulled while a command runs. The system itself would wait a quarter of an hour."""
    begun = threading.Event()
    failed: list[BaseException] = []

    def work() -> None:
        try:
            for _ in host.listen(("sh", "-c", "echo begun; exec sleep 3000")):
                begun.set()
        except DeployFailed as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    assert begun.wait(30)
    docker("network", "disconnect", "mlpacker-lab", spare.container)
    try:
        thread.join(90)
        assert [type(error) for error in failed] == [Unreachable]
    finally:
        docker("network", "connect", "--ip", spare.address, "mlpacker-lab", spare.container)
    wait_for(lambda: _answers(host), 60, "the machine again")
    left = "pgrep -u deployer -x sleep || true"
    wait_for(lambda: not spare.exec("sh", "-c", left).strip(), 100, "the end of what was begun")
