"""HDF5 files without a library: whether one is whole, and the configuration of the Keras model in it.

Source: HDF5 File Format Specification 3.0, II.A (superblock).
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import keras_config

FIELDS = {0: (13, 24), 1: (13, 28), 2: (9, 12), 3: (9, 12)}  # by version: where the size of an address is; the base
ADDRESS = 8  # bytes of an address, in every file that h5py writes


class Damaged(ValueError):
    """The file ends early."""


def require_whole(path: Path) -> None:
    """`Damaged` when the file is shorter than it says; one that says nothing is opened by no library."""
    with path.open("rb") as stream:
        head = stream.read(64)
    size_at, base_at = FIELDS.get(head[8] if len(head) == 64 else -1, (0, 0))
    end = int.from_bytes(head[base_at + 16 : base_at + 24], "little")
    if base_at and head[size_at] == ADDRESS and end > path.stat().st_size:
        raise Damaged("it ends early: it is shorter than it says")


def configurations(path: Path) -> Iterator[Any]:
    """Every JSON object in the file."""
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        yield from keras_config.in_bytes(data)
