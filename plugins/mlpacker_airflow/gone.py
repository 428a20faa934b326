"""Which pipelines lost their file, and since when. Imports no Airflow.

A file that moved, is broken, or cannot be seen (its folder is unreadable, or empty like a disk that is not mounted yet)
is not gone. What is known is kept in a file, so that one removed while Airflow was down is noticed too.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from mlpacker_airflow.folder import Entry, Found

REMEMBERED = 24 * 3600.0


class Known(msgspec.Struct, frozen=True):
    """The `file` that describes, or described, a pipeline; `since` when none does any more (0: one does)."""

    file: str
    since: float = 0.0


def follow(
    former: Mapping[str, Known], entries: Sequence[Entry], unseen: frozenset[str], now: float
) -> dict[str, Known]:
    """What is known of each pipeline id after the folder was read. Files named in `unseen` may still be there."""
    present = {entry.pipeline.id: Known(entry.found.name) for entry in entries if entry.pipeline}
    broken = {entry.found.name for entry in entries if not entry.pipeline}
    lost = {
        name: known if known.since or known.file in unseen | broken else Known(known.file, now)
        for name, known in former.items()
        if name not in present and not (known.since and now - known.since > REMEMBERED)
    }
    return {**present, **lost}


def unseen(folder: Path, former: Mapping[str, Known], found: Sequence[Found], trusted: bool) -> frozenset[str]:
    """The files of `former` that are not in `found` and of which that says nothing."""
    missing = {known.file for known in former.values()} - {item.name for item in found}
    return frozenset(name for name in missing if not trusted or not _shows(folder, Path(folder, name).parent))


def _shows(folder: Path, parent: Path) -> bool:
    """Whether a file that is not in `parent` is gone: the folder can be listed, or is gone itself."""
    try:
        next(parent.iterdir(), None)
    except FileNotFoundError:
        return folder.is_dir()
    except OSError:
        return False
    return True


def read(path: Path) -> dict[str, Known]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Known])
    except FileNotFoundError:
        return {}


def write(path: Path, known: Mapping[str, Known]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_bytes(msgspec.json.encode(dict(known)))
    aside.replace(path)
