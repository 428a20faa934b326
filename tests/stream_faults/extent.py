"""How much is done: `make stream-faults` does each fault at its full length, `make test` a short version of it."""

from __future__ import annotations

import os
from typing import TypeVar

FULL = bool(os.environ.get("MLPACKER_STREAM_FAULTS"))
T = TypeVar("T")


def full(long: T, short: T) -> T:
    """`long` for `make stream-faults`."""
    return long if FULL else short
