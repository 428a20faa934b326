"""How much is done: `make faults` does everything; for `make test` a few of many similar points are enough."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeVar

ALL = os.environ.get("MLPACKER_FAULTS") == "all"
SAMPLES = 4
T = TypeVar("T")


def sampled(points: Sequence[T]) -> list[T]:
    """A few of them, spread evenly; for `make faults` all."""
    step = 1.0 if ALL else max(1.0, len(points) / SAMPLES)
    return [points[int(step * (part + 0.5))] for part in range(int(len(points) / step))]
