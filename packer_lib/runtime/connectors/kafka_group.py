"""What a member of a consumer group does beside taking messages: stay in it, and know how far it is behind."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from threading import Condition, Event, Thread, get_ident

from confluent_kafka import Consumer, TopicPartition


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


def behind(consumer: Consumer, topic: str, places: Mapping[int, int]) -> int:
    """How many messages of `topic` are beyond `places` (partition → offset), by what the client heard last.

    Asks nobody; `position` and `assignment` of a client wait for seconds while its group finds itself.
    """
    total = 0
    for partition, place in places.items():
        found = consumer.get_watermark_offsets(TopicPartition(topic, partition), cached=True)
        if found and found[1] >= 0:
            total += max(0, found[1] - max(place, found[0]))
    return total
