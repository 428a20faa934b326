# ruff: noqa: PTH101, PTH103, PTH104, PTH105, PTH106, PTH108, PTH112, PTH114, PTH118, PTH120, PTH123, PTH208, PTH211
"""Takes a file or folder at the far end of an SSH connection: standard library only, Python ≥3.8, as `far_run`.

It reads one line of JSON, says in another what it has already, reads the bytes that it lacks, and says `{"done": true}`
or `{"error"}`. What it makes is complete or absent. It grows aside under a name that is the content's own: what came
before a cut is not sent again. A name that begins with `once` is not kept.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import select
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MARK = b"\x1emlpacker\x1e"  # what a login shell says before this is its own
SILENT = 120.0  # seconds without a byte after which nobody is there any more
PIECE = 65536
STALE = 86400.0  # an upload that was given up a day ago


def main() -> None:
    os.write(1, MARK)
    put(**json.loads(exactly(int(exactly(12)))))


def some(size: int) -> bytes:
    """At most `size` bytes; `EOFError` when the other side is gone, or silent for too long."""
    data = os.read(0, min(size, PIECE)) if select.select([0], [], [], SILENT)[0] else b""
    if not data:
        raise EOFError
    return data


def exactly(size: int) -> bytes:
    got = b""
    while len(got) < size:
        got += some(size - len(got))
    return got


def answer(value: object) -> None:
    left = json.dumps(value).encode() + b"\n"
    while left:
        left = left[os.write(1, left) :]


def put(target: str, folder: bool, entries: list[list[Any]], name: str) -> None:
    """`entries` are [path, kind, mode, size, sha256 or link]; the only one of a file has the path `file`."""
    parent = os.path.dirname(target)
    os.umask(0o077)
    os.makedirs(parent, mode=0o700, exist_ok=True)
    aside = os.path.join(parent, ".put-" + name)
    if not (folder and os.path.isdir(target)):
        sweep(parent)
        held = alone(aside)
        try:
            if os.path.isdir(aside):  # else another one has just put the same content
                fill(aside, entries)
                place(aside, target, folder)
        except BaseException:
            if name.startswith("once"):
                remove(aside)
            raise
        finally:
            os.close(held)
    answer({"done": True})


def alone(aside: str) -> int:
    """The folder `aside`, ours and locked; the lock goes with this process."""
    import fcntl

    os.makedirs(aside, mode=0o700, exist_ok=True)
    held = os.open(aside, os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY)
    if os.fstat(held).st_uid != os.getuid():
        raise OSError(errno.EPERM, "belongs to another user", aside)
    fcntl.flock(held, fcntl.LOCK_EX)
    return held


def fill(aside: str, entries: list[list[Any]]) -> None:
    for path, kind, _, _, link in entries:
        if kind == "d":
            os.makedirs(os.path.join(aside, path), mode=0o700, exist_ok=True)
        elif kind == "l" and not os.path.islink(os.path.join(aside, path)):
            os.symlink(link, os.path.join(aside, path))
    files = [(os.path.join(aside, path), size, digest) for path, kind, _, size, digest in entries if kind == "f"]
    have = [known(path, size) for path, size, _ in files]
    answer({"have": have})
    for (path, size, digest), begin in zip(files, have):  # noqa: B905  Python 3.8
        receive(path, begin, size, digest)
    for path, kind, mode, _, _ in reversed(entries):
        if kind != "l":
            os.chmod(os.path.join(aside, path), mode)


def known(path: str, size: int) -> int:
    try:
        there = os.lstat(path).st_size
    except OSError:
        return 0
    return there if there <= size else 0


def receive(path: str, begin: int, size: int, digest: str) -> None:
    content = hashlib.sha256()
    with open(path, "r+b" if begin else "wb") as file:
        while file.tell() < begin:
            content.update(file.read(min(PIECE, begin - file.tell())))
        while file.tell() < size:
            data = some(size - file.tell())
            file.write(data)
            content.update(data)
    if content.hexdigest() != digest:
        os.unlink(path)
        raise OSError(errno.EIO, "what arrived is not what was sent", path)


def place(aside: str, target: str, folder: bool) -> None:
    if folder:
        os.rename(aside, target)
    else:
        os.replace(os.path.join(aside, "file"), target)
        os.rmdir(aside)


def sweep(parent: str) -> None:
    """Uploads that nobody went on with."""
    for name in os.listdir(parent):
        path = os.path.join(parent, name)
        if name.startswith(".put-") and time.time() - os.lstat(path).st_mtime > STALE:
            remove(path)


def remove(folder: str) -> None:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)


try:
    main()
except EOFError:
    sys.exit(1)
except (OSError, ValueError) as failure:
    answer({"error": str(failure)})
    sys.exit(1)
