"""Room for what waits: how many requests, with how many bytes, may be in a unit at once; standard library only.

A request takes its room when its body is complete, so that whoever sends slowly takes none, and gives it back when its
answer is made. Bodies that are still coming have room of their own, in bytes: only what is larger than `SMALL` needs
it, so that large ones never keep small ones out.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

REQUESTS = 2048
SMALL = 64 << 10
LOOK_BACK = 10.0  # seconds over which answers are counted while it is full
AFTER_MOST = 60


class Busy(Exception):
    """There is no room; the caller is to come again `after` so many whole seconds."""

    def __init__(self, text: str, after: int = 1) -> None:
        super().__init__(text)
        self.after = after


class Room:
    """For `most` requests whose bodies are of `size` bytes together, and for as many bytes that are still coming; one
    body always fits. Used on one event loop."""

    def __init__(self, size: int, most: int = REQUESTS, clock: Callable[[], float] = time.monotonic) -> None:
        self._size, self._most, self._clock = size, most, clock
        self._requests = self._bytes = self._coming = self._answered = 0
        self._since, self._answered_then = -math.inf, 0

    def enter(self, size: int) -> None:
        """A request of `size` bytes waits from now on, or `Busy`."""
        if self._requests >= self._most or (self._requests and self._bytes + size > self._size):
            raise self._full()
        self._requests += 1
        self._bytes += size

    def leave(self, size: int) -> None:
        """It has its answer, or nobody waits for that any more."""
        self._requests -= 1
        self._bytes -= size
        self._answered += 1

    def expect(self, size: int) -> None:
        """`size` more bytes of a large body that is not complete, or `Busy`."""
        if self._coming and self._coming + size > self._size:
            raise Busy(f"bodies of {self._coming} bytes are being sent", self._after())
        self._coming += size

    def forget(self, size: int) -> None:
        """The body that they were of is complete, or given up."""
        self._coming -= size

    def _full(self) -> Busy:
        return Busy(f"{self._requests} requests of {self._bytes} bytes are waiting", self._after())

    def _after(self) -> int:
        """Seconds in which as many are answered as wait now, at the rate since it was found full; 1 at first."""
        now = self._clock()
        if not 0 <= now - self._since <= LOOK_BACK:
            self._since, self._answered_then = now, self._answered
        took, answered = now - self._since, self._answered - self._answered_then
        seconds = took * self._requests / answered if answered else took
        return max(1, min(AFTER_MOST, math.ceil(seconds)))
