"""Which models a unit is to answer with, as files in its state folder; standard library only.

    wanted.json                     {"id": …, "models": {step: {"path", "sha256", "serializer"}}}; put there by rename
    models/<step>/<sha256>/<name>   a model that is named there, a file or a folder (SavedModel)
    swapped.<replica>.json          what came of it: {"id", "state": "live" or "refused", "reason", "models"}, where the
                                    models are what is live now: step → sha256
    trying.<replica>.json           how many processes began to load it and did not come to an end of that

A step that `wanted.json` does not name has the model of the bundle. It says what is to be, not what is to be done, so
that a process that starts again reads the same.
"""

from __future__ import annotations

import hashlib
import json
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

WANTED = "wanted.json"
LONGEST = 1 << 20


@dataclass(frozen=True, slots=True)
class Staged:
    """A model in the state folder; `path` is relative to it."""

    path: str
    sha256: str
    serializer: str


@dataclass(frozen=True, slots=True)
class Wanted:
    id: str = ""
    models: Mapping[str, Staged] = field(default_factory=dict)


def read(folder: Path) -> Wanted:
    """`ValueError` for what is not as above; nothing is wanted where there is no file."""
    try:
        with (folder / WANTED).open("rb") as file:
            data = json.loads(file.read(LONGEST))
        models = {str(step): _staged(folder, told) for step, told in data["models"].items()}
        return Wanted(str(data["id"]), models)
    except FileNotFoundError:
        return Wanted()
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{WANTED} is not what is written there: {type(error).__name__}: {error}") from None


def _staged(folder: Path, told: Mapping[str, Any]) -> Staged:
    found = Staged(str(told["path"]), str(told["sha256"]), str(told.get("serializer") or ""))
    if not (folder / found.path).resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{found.path!r} leads out of the folder")
    return found


def stamp(folder: Path) -> tuple[int, ...]:
    """Another one whenever `wanted.json` is another file."""
    try:
        found = (folder / WANTED).stat()
    except OSError:
        return ()
    return found.st_ino, found.st_mtime_ns, found.st_size


def write(path: Path, value: Mapping[str, Any]) -> None:
    """All or nothing; `OSError` when it cannot be."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.new")
    new.write_text(json.dumps(value), encoding="utf-8")
    new.replace(path)


def digest(path: Path) -> str:
    """The sha256 of the file, or of the folder as it is made where models are fetched: over each file's path,
    executable bit and sha256, in the order of the paths."""
    if not path.is_dir():
        return _file_digest(path)
    files = sorted((file.relative_to(path).as_posix(), file) for file in path.rglob("*") if file.is_file())
    lines = (f"{name}\0{_executable(file)}\0{_file_digest(file)}\n" for name, file in files)
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def _executable(file: Path) -> str:
    return "x" if file.stat().st_mode & stat.S_IXUSR else "-"


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
