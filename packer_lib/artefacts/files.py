"""Reading files and folders that somebody else wrote: allowed roots, regular files, no links followed, sizes bounded.

The digests are here too: `file_digest` is the plain sha256, `tree_digest` the sha256 over every file's path, executable
bit and sha256 in the order of the paths, so that it says nothing of owners, times or the machine.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from packer_lib.artefacts.model import Unfit

LEFT_OUT = frozenset(
    {".git", ".hg", ".svn", ".venv", "__pycache__", ".ipynb_checkpoints", ".mypy_cache", ".mlpacker-state"}
)
DEPTH = 32
CHUNK = 1 << 20


class Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one artefact may hold; both inclusive."""

    size: int
    files: int


CODE = Limits(size=64 << 20, files=5_000)
MODEL = Limits(size=8 << 30, files=5_000)


@dataclass(frozen=True, slots=True)
class File:
    """One regular file of a folder: its relative path with `/`, whether it is executable, how long it is."""

    path: str
    executable: bool
    size: int
    sha256: str


def resolve(written: str, folder: Path, roots: Sequence[Path]) -> Path:
    """The real path of `written`, all links resolved; `Unfit` when it is missing or leads out of where it may be.

    A relative path may be in `folder` (the PADL file's) or in a root, an absolute one in a root only. The text is taken
    as it is: nothing is decoded or expanded.
    """
    try:
        absolute = Path(written).is_absolute()
        allowed = [root.resolve() for root in roots] + ([] if absolute else [folder.resolve()])
        real = (folder / written).resolve()
        # outside the roots we do not even say whether a file exists
        if not any(real.is_relative_to(root) for root in allowed):
            raise _outside(written, absolute)
        if not real.exists():
            raise Unfit(f"there is no {written!r} ({real})", "a relative path is relative to the PADL file's folder")
    except (OSError, ValueError, RuntimeError) as error:
        raise Unfit(f"cannot be read: {written!r}: {error}", "a path names an existing file or folder") from None
    return real


def _outside(written: str, absolute: bool) -> Unfit:
    why = "is an absolute path outside the model roots" if absolute else "leads out of the PADL file's folder"
    hint = "put it beside the PADL file, or have its folder added to MLPACKER__PATHS__MODEL_ROOTS"
    return Unfit(f"{written!r} {why}", hint, refused=True)


def open_file(path: Path) -> BinaryIO:
    """The regular file at `path` (absolute, already resolved). A link put in its place meanwhile is not followed."""
    folder = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    try:
        for part in path.parts[1:-1]:
            inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
            os.close(folder)
            folder = inner
        return _open_regular(path.name, folder, str(path))
    except OSError as error:
        raise Unfit(f"cannot be read: {path}: {error.strerror}") from None
    finally:
        os.close(folder)


def _open_regular(name: str, folder: int, shown: str) -> BinaryIO:
    # O_NONBLOCK: opening a named pipe must not wait for its writer
    opened = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    if not stat.S_ISREG(os.fstat(opened).st_mode):
        os.close(opened)
        raise Unfit(f"{shown} is not a regular file", "use plain files, no devices or pipes")
    return os.fdopen(opened, "rb")


def file_digest(stream: Readable, target: Path | None = None, limit: int = MODEL.size) -> tuple[str, int]:
    """sha256 and length of what `stream` holds, also written to `target` when that is given."""
    digest, size = hashlib.sha256(), 0
    with target.open("xb") if target else nullcontext() as copy:
        while chunk := stream.read(CHUNK):
            size += len(chunk)
            if size > limit:
                raise Unfit(f"is larger than {limit >> 20} MiB", "a smaller file, or less in the folder")
            digest.update(chunk)
            if copy:
                copy.write(chunk)
    return digest.hexdigest(), size


def read_tree(folder: Path, limits: Limits, target: Path | None = None) -> tuple[File, ...]:
    """Every file below `folder` in the order of their paths, copied into `target` when that is given.

    Version control, caches and virtual environments are left out. `Unfit` for a link, a device, or more than `limits`.
    """
    files: list[File] = []
    left = limits.size
    for path, parent in _walk(folder):
        if len(files) >= limits.files:
            raise Unfit(f"{folder} holds more than {limits.files} files", "leave data and environments out of it")
        with _open_regular(path.rpartition("/")[2], parent, f"{folder}/{path}") as stream:
            copy = target / path if target else None
            if copy:
                copy.parent.mkdir(parents=True, exist_ok=True)
            sha256, size = file_digest(stream, copy, limits.size)
            files.append(File(path, bool(os.fstat(stream.fileno()).st_mode & stat.S_IXUSR), size, sha256))
        left -= size
        if left < 0:
            raise Unfit(f"{folder} holds more than {limits.size >> 20} MiB", "leave data and environments out of it")
    return tuple(sorted(files, key=lambda file: file.path))


def _walk(folder: Path) -> Iterator[tuple[str, int]]:
    """Relative path and the open parent folder of everything that is no folder; a link to a folder is an error too."""
    for current, folders, names, opened in os.fwalk(folder, follow_symlinks=False, onerror=_unreadable):
        prefix = "" if current == str(folder) else f"{os.path.relpath(current, folder)}/"
        if prefix.count("/") > DEPTH:
            raise Unfit(f"{folder} is nested deeper than {DEPTH} folders")
        folders[:] = sorted(set(folders) - LEFT_OUT)
        for name in sorted({*names, *folders} - LEFT_OUT):
            if stat.S_ISLNK(os.stat(name, dir_fd=opened, follow_symlinks=False).st_mode):
                raise Unfit(f"{folder}/{prefix}{name} is a symbolic link", "put the file itself there instead")
            if name not in folders and not name.endswith(".pyc"):
                yield f"{prefix}{name}", opened


def _unreadable(error: OSError) -> None:
    raise Unfit(f"cannot be read: {error.filename}: {error.strerror}")


def tree_digest(files: Sequence[File]) -> str:
    """The identity of a folder with these files. Paths cannot hold NUL, so no two folders share a text."""
    lines = (f"{file.path}\0{'x' if file.executable else '-'}\0{file.sha256}\n" for file in files)
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()
