"""The folder of a door: its Unix socket, and which release is to have the port. Beside it, the door's log."""

# ruff: noqa: PTH101, PTH103, PTH105, PTH108, PTH118, PTH123
# (pathlib would double the start time)
from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import stat
import sys
import time


def open_inlet(folder: str) -> socket.socket:
    """The Unix socket of the one door of `folder`, which is made, ours, and closed to others."""
    with contextlib.suppress(FileExistsError):
        os.makedirs(folder, 0o700)
    found = os.lstat(folder)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise PermissionError(errno.EPERM, "is not a folder of this user", folder)
    os.chmod(folder, 0o700)
    lock = os.open(os.path.join(folder, "door.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # kept by this process until it ends
    except OSError:
        raise FileExistsError(errno.EEXIST, "another door is running", folder) from None
    path = os.path.join(folder, "door.sock")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    inlet = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    inlet.bind(path)
    inlet.listen(64)
    inlet.setblocking(False)
    return inlet


def read_current(folder: str) -> str:
    try:
        with open(os.path.join(folder, "current"), encoding="utf-8") as file:
            return file.read().strip()
    except OSError:
        return ""


def write_current(folder: str, release: str) -> None:
    path = os.path.join(folder, "current")
    with open(path + ".new", "w", encoding="utf-8") as file:
        file.write(release + "\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(path + ".new", path)


def say(text: str) -> None:
    print(time.strftime("%Y-%m-%dT%H:%M:%S%z"), "door:", text, file=sys.stderr, flush=True)
