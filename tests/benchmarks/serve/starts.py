"""From exec to the first answer, and what it takes to wait for the next one: ours and BentoML by hand, in turn."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median

from tests.benchmarks.serve.systems import System, memory, running

IDLE_SECONDS = 1.0


def starts(systems: Mapping[str, System], folder: Path, times: int) -> dict[str, dict[str, float]]:
    """By name the medians of `ready_s` and `idle_mb`. A start before those counted fills the caches of both."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in systems}
    for _ in range(times + 1):
        for name, system in systems.items():
            with running(system, folder / f"start-{name}.log") as started:
                time.sleep(IDLE_SECONDS)
                found[name].append((started.ready, memory(started.process)))
    return {
        name: {"ready_s": median(ready for ready, _ in each[1:]), "idle_mb": median(size for _, size in each[1:])}
        for name, each in found.items()
    }
