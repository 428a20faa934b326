"""What this machine has of what a deploy needs: one finding per thing, each with its remedy."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from packer_lib.errors import MLPackerError
from packer_lib.settings import Settings

if TYPE_CHECKING:
    from packer_lib.hosts.fleet import Fleet

SCARCE = 2 * 1024**3  # an environment with TensorFlow takes 1.6 GB


@dataclass(frozen=True, slots=True)
class Finding:
    """`detail` says what was found, or what to do when it is not `ok`. Only what is `needed` fails the whole."""

    name: str
    ok: bool
    detail: str
    needed: bool = True

    def __str__(self) -> str:
        mark = "ok     " if self.ok else "MISSING" if self.needed else "-      "
        return f"{mark}  {self.name}: {self.detail}"


def examine(settings: Settings) -> list[Finding]:
    """Every finding; looks only, and connects to nothing but ports of this machine."""
    checks: tuple[Callable[[Settings], Finding], ...] = (_python, _uv, _git, _supervisor, _home, _disk, _docker)
    return [check(settings) for check in checks] + [_broker(name, port) for name, port in BROKERS.items()]


def examine_machines(file: Path, settings: Settings) -> list[Finding]:
    """What every machine of a PADL file has of what its units need: connects to each, looks, and changes nothing."""
    from packer_lib import padl
    from packer_lib.hosts.fleet import Fleet
    from packer_lib.plan import plan

    planned = plan(padl.read(file))
    needs = {"container" if planned.containerized else "native"}
    if planned.containerized and settings.registry and planned.registry != "none":
        needs.add(f"registry:{settings.registry.partition('/')[0]}")
    with Fleet(planned.machines, settings, file) as fleet:
        return [_machine(fleet, machine.id, needs, settings) for machine in planned.machines]


def _machine(fleet: Fleet, machine: str, needs: set[str], settings: Settings) -> Finding:
    from packer_lib.hosts.preflight import Missing, preflight

    try:
        missing = preflight(fleet[machine], needs, settings.platform)
    except MLPackerError as error:
        missing = [Missing(error.message, error.hint)]
    remedies = "; ".join(f"{one.what}: {one.remedy}" for one in missing)
    return Finding(machine, not missing, remedies or f"has what {' and '.join(sorted(needs))} needs")


BROKERS = {"MQTT broker": 1883, "Kafka broker": 9092}


def _python(_: Settings) -> Finding:
    supported = (3, 11) <= sys.version_info[:2] < (3, 13)
    return Finding(
        "Python", supported, f"{sys.version.split()[0]} ({'' if supported else 'not '}supported: 3.11, 3.12)"
    )


def _uv(_: Settings) -> Finding:
    try:
        from uv import find_uv_bin

        said = subprocess.run([find_uv_bin(), "--version"], capture_output=True, text=True, timeout=20, check=True)
    except (ImportError, OSError, subprocess.SubprocessError) as error:
        return Finding("uv", False, f"install this project's requirements again ({error})")
    return Finding("uv", True, said.stdout.strip())


def _git(_: Settings) -> Finding:
    found = shutil.which("git")
    return Finding("git", bool(found), found or "apt-get install git; code steps from git need it", needed=False)


def _supervisor(_: Settings) -> Finding:
    try:
        return Finding("supervisor", True, version("supervisor"))
    except PackageNotFoundError:
        return Finding("supervisor", False, "install this project's requirements again")


def _home(settings: Settings) -> Finding:
    place = _existing(settings.home)
    writable = place.is_dir() and os.access(place, os.W_OK)
    remedy = "" if writable else f" ({place} is not a folder we may write to; set MLPACKER__PATHS__HOME)"
    return Finding("home", writable, f"{settings.home}{remedy}")


def _disk(settings: Settings) -> Finding:
    free = shutil.disk_usage(_existing(settings.home)).free
    remedy = "" if free > SCARCE else "; a TensorFlow unit needs 2 GB: free some, or set MLPACKER__PATHS__HOME"
    return Finding("disk", free > SCARCE, f"{free / 1024**3:.1f} GB free below home{remedy}")


def _docker(_: Settings) -> Finding:
    found = shutil.which("docker")
    return Finding("docker", bool(found), found or "not here; only containerized pipelines need it", needed=False)


def _broker(name: str, port: int) -> Finding:
    with socket.socket() as probe:
        probe.settimeout(1)
        here = probe.connect_ex(("127.0.0.1", port)) == 0
    detail = f"answers on 127.0.0.1:{port}" if here else f"none on 127.0.0.1:{port}; streams may use one elsewhere"
    return Finding(name, here, detail, needed=False)


def _existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.parents) if folder.exists())
