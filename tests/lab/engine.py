"""The container engine: the one that answers already, or, as root on Debian, one that is installed and started here."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

from tests.lab.place import FOLDER, LabError, client, docker, program, run, say

PACKAGES = ("docker.io", "containerd", "runc", "iptables", "iproute2", "debootstrap")
LOG = FOLDER / "dockerd.log"
PID = FOLDER / "dockerd.pid"


def answers() -> bool:
    return (Path("/usr/bin/docker").exists() or shutil.which("docker") is not None) and bool(
        docker("version", "-f", "{{.Server.Version}}", check=False)
    )


def up() -> None:
    """Returns when an engine answers. Installs and starts one only as root on Debian, where none answers."""
    if answers():
        return
    if os.geteuid() != 0 or program("apt-get") is None:
        raise LabError("no container engine answers: install Docker and start it (this needs root on Debian to do so)")
    if program("dockerd") is None:
        apt_install(*PACKAGES)
    say("starting dockerd …")
    FOLDER.mkdir(parents=True, exist_ok=True, mode=0o700)
    with LOG.open("ab") as log:
        process = subprocess.Popen(
            (program("dockerd") or "dockerd", "--mtu", str(mtu())),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    PID.write_text(str(process.pid))
    _wait(process)


def _wait(process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while not answers():
        if process.poll() is not None or time.monotonic() > deadline:
            raise LabError(f"dockerd did not come up:\n{LOG.read_text(errors='replace')[-2000:]}")
        time.sleep(0.2)


def ours() -> int | None:
    """The process id of the dockerd that `up` started and that still runs."""
    try:
        pid = int(PID.read_text())
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (OSError, ValueError):
        return None
    return pid if b"dockerd" in command else None


def down() -> None:
    """Stops the dockerd that `up` started; any other is left alone."""
    pid = ours()
    if pid is None:
        return
    say("stopping dockerd …")
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + 60
    while ours() is not None and time.monotonic() < deadline:
        time.sleep(0.2)
    PID.unlink(missing_ok=True)


def apt_install(*packages: str) -> None:
    say(f"installing {' '.join(packages)} (apt-get) …")
    environment = {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}  # 1: no service is started by installing it
    run(("apt-get", "update", "-qq"), env=environment)
    run(("apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages), env=environment)


def mtu() -> int:
    """Of the interface that leads outside: a bridge with more loses what comes back in full packets."""
    route = run(("ip", "-o", "route", "show", "default"), check=False) if program("ip") else ""
    words = route.split()
    name = words[words.index("dev") + 1] if "dev" in words else ""
    path = Path(f"/sys/class/net/{name}/mtu")
    return min(1500, int(path.read_text())) if name and path.exists() else 1500


def cgroup2() -> bool:
    return docker("info", "-f", "{{.CgroupVersion}}") == "2"


def describe() -> str:
    version = docker("version", "-f", "{{.Server.Version}}", check=False)
    return f"engine {version or 'does not answer'} ({client()}{', started by the lab' if ours() else ''})"
