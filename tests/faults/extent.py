"""How much is done. `make faults` does everything, or with MLPACKER_FAULTS=20 so many places of each sweep; for
`make test` a few of many similar points are enough.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeVar

EXTENT = os.environ.get("MLPACKER_FAULTS", "")
ALL = bool(EXTENT)
PLACES = int(EXTENT) if EXTENT.isdigit() else 3
T = TypeVar("T")


def sampled(points: Sequence[T]) -> list[T]:
    """`PLACES` of them, spread evenly; or all."""
    step = 1.0 if EXTENT == "all" else max(1.0, len(points) / PLACES)
    return [points[int(step * (part + 0.5))] for part in range(int(len(points) / step))]
