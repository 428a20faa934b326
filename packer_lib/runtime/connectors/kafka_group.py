"""What a member of a consumer group does beside taking messages: stay in it, and know how far it is behind."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Condition, Event, Thread, get_ident

from confluent_kafka import OFFSET_INVALID, Consumer, KafkaException

ASK_SECONDS = 1.0


class Keeper:
    """Calls `keep` in a thread of its own whenever there was no `beat` for `seconds`."""

    def __init__(self, seconds: float, keep: Callable[[], None]) -> None:
        self.seconds, self._keep = seconds, keep
        self.paused = False
        self._last = time.monotonic()
        self._stop = Event()
        self._thread = Thread(target=self._run, name="kafka keeper", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def beat(self) -> None:
        self._last = time.monotonic()

    @property
    def due(self) -> bool:
        return time.monotonic() - self._last > self.seconds and not self._stop.is_set()

    @property
    def stopped(self) -> bool:
        return self._stop.is_set()

    @property
    def is_current(self) -> bool:
        """Whether this is called in the keeper's own thread."""
        return self._thread.ident == get_ident()

    def stop(self, changed: Condition) -> None:
        """Returns when the thread has ended; `changed` is what it may wait for."""
        self._stop.set()
        with changed:
            changed.notify_all()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self.seconds / 4):
            if self.due:
                self._keep()


def behind(consumer: Consumer, starts: dict[int, int]) -> int:
    """How many messages the partitions of `consumer` hold beyond its position, by what it heard last.

    `starts` keeps where a partition began of which nothing was handed out yet: asked of the broker once.
    """
    total = 0
    try:
        for part in consumer.position(consumer.assignment()):
            low, high = consumer.get_watermark_offsets(part, cached=True) or (OFFSET_INVALID, OFFSET_INVALID)
            if high < 0:
                continue  # nothing heard of it yet
            if part.offset < 0 and part.partition not in starts:
                committed = consumer.committed([part], timeout=ASK_SECONDS)[0].offset
                starts[part.partition] = committed if committed >= 0 else low
            position = part.offset if part.offset >= 0 else starts[part.partition]
            total += max(0, high - max(position, low))
    except (KafkaException, RuntimeError):  # no broker to ask, or closed meanwhile
        return total
    return total
