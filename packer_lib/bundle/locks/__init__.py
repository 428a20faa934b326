"""One hashed requirements lock per need of a unit (`mqtt.txt`, `scikit-learn.txt` …), made by `make lock`, committed.

A need is an entry of the runtime's catalogue that has requirements. The files agree with each other because they are
all resolved under the versions of `uv.lock`; they name no index, so they install from whichever one a machine has.
"""

from __future__ import annotations

from itertools import chain
from pathlib import Path

from packer_lib.runtime.catalogue import CHECKS, CONNECTORS, FORMATS, FRAMEWORKS, PACKAGE_MODES

FOLDER = Path(__file__).parent


def needs() -> dict[str, tuple[str, ...]]:
    """Every need and its direct requirements."""
    tables = (PACKAGE_MODES, CONNECTORS, FRAMEWORKS, FORMATS, CHECKS)
    entries = chain.from_iterable(table.values() for table in tables)
    return {entry.name: entry.requires for entry in entries if entry.requires}


def read(need: str) -> str:
    """The committed lock of `need`."""
    return (FOLDER / f"{need}.txt").read_text(encoding="utf-8")
