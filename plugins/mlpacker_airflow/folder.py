"""The watched folder: which files in it are PADL, what each says, and what is wrong with each. Imports no Airflow.

Ignored: hidden files and folders, links to folders, other suffixes (so the temporary files of editors and copiers), and
files written less than `SETTLE` seconds ago, for they may be half-written (a rename keeps a file's date and is taken at
once). Reported as broken: a link that leads out of the folder, a file that cannot be read.
"""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from packer_lib import padl
from packer_lib.errors import PadlInvalid, Problem
from packer_lib.padl.model import Pipeline

SUFFIXES = {".json", ".yaml", ".yml"}
EXAMPLES = "examples"
SETTLE = 0.5
MAX_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Found:
    """One PADL file. `name` is relative to the folder; `state` tells two states of it apart without reading it.

    `written` is its date, which copying can preserve; `changed` is when it came to be here as it is (ctime, stat(2)).
    """

    name: str
    path: Path
    state: tuple[int, ...]
    written: float
    changed: float

    def settled(self, now: float) -> bool:
        """Whether it has not just been written; a date in the future says nothing."""
        return not 0 <= now - self.written < SETTLE

    @property
    def example(self) -> bool:
        """Examples become DAGs that nothing starts but a person."""
        return Path(self.name).parts[0] == EXAMPLES


@dataclass(frozen=True, slots=True)
class Entry:
    """What a file said when it was read: a `pipeline`, or the `problems` that keep it from being one."""

    found: Found
    text: str = ""
    pipeline: Pipeline | None = None
    problems: tuple[Problem, ...] = ()
    warnings: tuple[str, ...] = ()


def scan(folder: Path, now: float = math.inf, former: Sequence[Found] = ()) -> list[Found]:
    """The PADL files below `folder`, sorted by name. `OSError` when the folder itself cannot be listed.

    `now` is the time in seconds, `former` what was found last: a file that is being written stays what it was there.
    """
    next(folder.iterdir(), None)  # os.walk is silent about that
    known = {item.name: item for item in former}
    found = [item for path in _walk(folder) if (item := _look(folder, path))]
    settled = (item if item.settled(now) else known.get(item.name) for item in found)
    return sorted((item for item in settled if item), key=lambda item: item.name)


def _walk(folder: Path) -> Iterator[Path]:
    for here, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES:
                yield Path(here, name)


def _look(folder: Path, path: Path) -> Found | None:
    try:
        info = path.stat()
    except OSError:
        return None  # gone since it was listed, or a link to nothing
    if not stat.S_ISREG(info.st_mode):
        return None
    name = path.relative_to(folder).as_posix()
    state = (info.st_mtime_ns, info.st_ctime_ns, info.st_size, info.st_ino)
    return Found(name, path, state, info.st_mtime, info.st_ctime)


def read(folder: Path, found: Found) -> Entry:
    """What the file says; never raises: whatever is wrong becomes a problem of that file alone."""
    if not found.path.resolve().is_relative_to(folder.resolve()):
        return _broken(found, "the file is a link that leads out of the watched folder; put the file itself there")
    text = ""
    try:
        text = _text(found.path)
        pipeline = padl.read_text(text, str(found.path))
    except PadlInvalid as error:
        problems = tuple(replace(problem, file=found.name) for problem in error.problems)
        return Entry(found, text, problems=problems)
    except OSError as error:
        return _broken(found, f"the file cannot be read: {error.strerror or error}")
    warnings = tuple(str(replace(warning, file=found.name)) for warning in pipeline.warnings)
    return Entry(found, text, pipeline, warnings=warnings)


def _text(path: Path) -> str:
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    try:
        return content.decode()
    except UnicodeDecodeError:
        padl.read(path)  # raises, and names the byte and its place
        return path.read_text(encoding="utf-8")  # unless it was written anew in between


def _broken(found: Found, message: str) -> Entry:
    return Entry(found, problems=(Problem(found.name, 1, 1, "", message),))


def together(entries: Sequence[Entry]) -> list[Entry]:
    """The same entries with what is wrong between files: one id in two of them is an error in both.

    An example gives way to a file outside `examples/` with its id, so that copying one and starting from it works.
    """
    real = {entry.pipeline.id for entry in entries if entry.pipeline and not entry.found.example}
    kept = [entry for entry in entries if not (entry.found.example and entry.pipeline and entry.pipeline.id in real)]
    between = _between([entry for entry in kept if not entry.found.example]) + _between(
        [entry for entry in kept if entry.found.example]
    )
    return [_with(entry, [problem for problem in between if problem.file == str(entry.found.path)]) for entry in kept]


def _between(entries: Sequence[Entry]) -> list[Problem]:
    return padl.check_set([entry.pipeline for entry in entries if entry.pipeline])


def _with(entry: Entry, problems: Sequence[Problem]) -> Entry:
    named = [replace(problem, file=entry.found.name) for problem in problems]
    errors = tuple(problem for problem in named if problem.level == "error")
    warnings = tuple(str(problem) for problem in named if problem.level != "error")
    return replace(entry, problems=entry.problems + errors, warnings=entry.warnings + warnings)
