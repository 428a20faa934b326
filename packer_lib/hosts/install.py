"""Installs Docker on a Debian machine for who asks: `install: ["docker"]`, MLPACKER__DEPLOY__INSTALL_DOCKER."""

from __future__ import annotations

from collections.abc import Callable

from packer_lib.errors import DeployFailed
from packer_lib.hosts import Host, Result
from packer_lib.hosts.ssh import SshHost

INSTALL_WITHIN = 900.0
START_WITHIN = 60.0
KEEP_CONFIGURATION = ("-o", "Dpkg::Options::=--force-confdef", "-o", "Dpkg::Options::=--force-confold")
APT = (
    *("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-y", "-o", "DPkg::Lock::Timeout=300"),
    *KEEP_CONFIGURATION,
)

Progress = Callable[[str], None]


def install_docker(host: Host, progress: Progress = print) -> None:
    """Docker's engine on `host`, running, started at boot, and usable by the user who deploys there.

    By apt and sudo, to which the login's password is given when it asks for one. `DeployFailed` with the last lines of
    what failed. Done again it changes nothing.
    """
    if not host.run(("test", "-e", "/etc/debian_version")).ok:
        raise DeployFailed(f"{host.name} is not a Debian: docker is installed on Debian only", "install docker there")
    if not host.run(("docker", "--version")).ok:
        progress(f"installing docker on {host.name}")
        _must(host, _as_root(host, *APT, "update"), "apt-get update")
        _must(
            host, _as_root(host, *APT, "install", "--no-install-recommends", "docker.io"), "apt-get install docker.io"
        )
    _start(host)
    _admit(host, progress)


def _start(host: Host) -> None:
    if _as_root(host, "docker", "version").ok:
        return
    booted = host.run(("test", "-d", "/run/systemd/system")).ok
    begin = ("systemctl", "enable", "--now", "docker") if booted else ("service", "docker", "start")
    _must(host, _as_root(host, *begin), "docker's engine does not start")
    until = "until docker version >/dev/null 2>&1; do sleep 0.2; done"
    _must(host, _as_root(host, "timeout", f"{START_WITHIN:g}", "sh", "-c", until), "docker's engine does not answer")


def _admit(host: Host, progress: Progress) -> None:
    """A group is joined at the next login: the connection is made again."""
    if host.uid == 0 or host.run(("docker", "version")).ok:
        return
    user = host.environ["USER"]
    progress(f"{user} joins the group docker on {host.name}")
    _must(host, _as_root(host, "usermod", "-aG", "docker", "--", user), "usermod")
    host.close()
    _must(host, host.run(("docker", "version")), "the engine cannot be used")


def _as_root(host: Host, *argv: str) -> Result:
    if host.uid == 0:
        return host.run(argv, timeout=INSTALL_WITHIN)
    free = host.run(("sudo", "-n", "--", *argv), timeout=INSTALL_WITHIN)
    password = host.login.password if isinstance(host, SshHost) else ""
    if free.ok or "password" not in free.err or not password:
        return free
    return host.run(("sudo", "-S", "-p", "", "--", *argv), input=f"{password}\n", timeout=INSTALL_WITHIN)


def _must(host: Host, result: Result, what: str) -> None:
    if not result.ok:
        raise DeployFailed(
            f"on {host.name}: {what}: {result.tail(5)}",
            "its user needs sudo (with the login's password, or without one); or install docker there yourself",
        )
