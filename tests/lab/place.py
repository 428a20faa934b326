"""Where the lab keeps its keys, logs and caches, and how its commands are run.

The engine's objects have one name on the whole box, so the keys that belong to them are kept once for the box too,
outside any checkout: a second clone finds the lab that a first one started.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
FOLDER = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mlpacker-lab"
SYSTEM_PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"


class LabError(Exception):
    """Something of the lab did not come up; the text says what and ends with its last words."""


def say(text: str) -> None:
    print(f"[lab] {text}", flush=True)


def run(argv: Sequence[str], *, env: Mapping[str, str] | None = None, seconds: float = 900, check: bool = True) -> str:
    """What `argv` prints; `LabError` with both its outputs when it fails, unless `check` is off (then: "")."""
    merged = {**os.environ, "PATH": SYSTEM_PATH, **(env or {})}
    done = subprocess.run(argv, env=merged, capture_output=True, text=True, timeout=seconds, check=False)
    if done.returncode == 0:
        return done.stdout.strip()
    if not check:
        return ""
    raise LabError(f"{' '.join(argv[:4])} …: {done.stdout[-1500:]}{done.stderr[-1500:]}")


def program(name: str) -> str | None:
    return shutil.which(name, path=SYSTEM_PATH)


def client() -> str:
    """Debian's docker client before any other on PATH: it builds with BuildKit without a plug-in."""
    found = "/usr/bin/docker" if Path("/usr/bin/docker").exists() else shutil.which("docker")
    if found is None:
        raise LabError("no docker client")
    return found


def docker(*arguments: str, check: bool = True, seconds: float = 900) -> str:
    return run((client(), *arguments), check=check, seconds=seconds)


@contextmanager
def alone() -> Iterator[None]:
    """Only one `up` or `down` at a time on this box."""
    FOLDER.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (FOLDER / "busy").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
