"""Counts what goes the short way, see wire.py, in the numbers that every request is counted in."""

from __future__ import annotations

import asyncio

from . import metrics
from .predict import taken


class Tally:
    """Counts once for all requests of a turn of the event loop: the counters have locks, and to go through all of them
    with each request took as long as to read it."""

    def __init__(self) -> None:
        self._requests = self._instances = 0
        self._seconds: list[float] = []

    def taken(self, instances: int) -> None:
        self._later()
        self._requests += 1
        self._instances += instances

    def answered(self, seconds: float) -> None:
        self._later()
        self._seconds.append(seconds)

    def _later(self) -> None:
        if not (self._requests or self._seconds):
            asyncio.get_running_loop().call_soon(self._count)

    def _count(self) -> None:
        taken(self._instances)
        metrics.IN_FLIGHT.inc(self._requests - len(self._seconds))
        for each in self._seconds:
            metrics.END_TO_END_SECONDS.observe(each)
        self._requests = self._instances = 0
        self._seconds.clear()
