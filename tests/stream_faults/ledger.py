"""Who sent what, what a broker confirmed, and what came out at the other end; kept by the test, outside all workers.

A message is `{"id": …, "key": …, "seq": …}`: its id counts from 0, its seq counts the messages of its key. The verdict
is that of Jepsen's and Kafka's own checkers: lost is only what the broker confirmed to the producer.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection
from dataclasses import dataclass
from threading import Lock

KEYS = 16


@dataclass(frozen=True, slots=True)
class Verdict:
    """Counts of messages, and seconds from a message's sending to its first arrival."""

    sent: int
    confirmed: int
    lost: int
    doubled: int
    disordered: int
    alien: int
    slowest: float
    p99: float

    def __str__(self) -> str:
        return (
            f"{self.sent} sent, {self.confirmed} confirmed, {self.lost} lost, {self.doubled} doubled, "
            f"{self.disordered} out of order, {self.alien} alien, slowest {self.slowest:.2f} s, p99 {self.p99:.2f} s"
        )


class Ledger:
    """All methods may be called by any thread."""

    def __init__(self, keys: int = KEYS) -> None:
        self._keys = keys
        self._lock = Lock()
        self._sent: list[float] = []
        self._confirmed: set[int] = set()
        self._came: dict[int, float] = {}
        self._last = [-1] * keys
        self._newest = -1
        self._doubled = self._disordered = self._alien = 0
        self.moved = time.monotonic()  # when the last message arrived

    def send(self) -> tuple[int, bytes, bytes]:
        """Id, key and value of the next message, which is sent now."""
        with self._lock:
            number = len(self._sent)
            self._sent.append(time.monotonic())
        key, seq = number % self._keys, number // self._keys
        return number, b"k%d" % key, b'{"id": %d, "key": "k%d", "seq": %d}' % (number, key, seq)

    def confirm(self, number: int) -> None:
        with self._lock:
            self._confirmed.add(number)

    def deliver(self, value: bytes, *, ordered: bool = True) -> None:
        """What came out; whatever stands before the object of a message is ignored. What goes another way than its
        neighbours, as a dead letter, is not `ordered`."""
        try:
            found = json.loads(value[value.index(b"{") :])
            number = int(found["id"])
            known = (found["key"], found["seq"]) == (f"k{number % self._keys}", number // self._keys)
        except (ValueError, KeyError, TypeError):
            number, known = -1, False
        with self._lock:
            self.moved = time.monotonic()
            if not known or not 0 <= number < len(self._sent):
                self._alien += 1
            elif number in self._came:
                self._doubled += 1
            else:
                self._first(number, ordered)

    def _first(self, number: int, ordered: bool) -> None:
        key, seq = number % self._keys, number // self._keys
        self._came[number] = self.moved - self._sent[number]
        self._newest = max(number, self._newest)
        if ordered:
            self._disordered += seq < self._last[key]
            self._last[key] = max(seq, self._last[key])

    @property
    def sent(self) -> int:
        return len(self._sent)

    @property
    def came(self) -> int:
        """Messages that arrived at least once."""
        return len(self._came)

    def unconfirmed(self) -> int:
        with self._lock:
            return len(self._sent) - len(self._confirmed)

    def arrived(self, first: int) -> bool:
        """Whether any message from this id on is there."""
        with self._lock:
            return self._newest >= first

    def missing(self) -> Collection[int]:
        """Confirmed, and not there yet."""
        with self._lock:
            return self._confirmed - self._came.keys()

    def sent_before(self, moments: Collection[float], seconds: float) -> Collection[int]:
        """Messages that were sent within so many seconds before one of the `moments` (monotonic)."""
        with self._lock:
            return {
                number
                for number, sent in enumerate(self._sent)
                if any(moment - seconds <= sent <= moment for moment in moments)
            }

    def verdict(self) -> Verdict:
        lost = len(self.missing())
        with self._lock:
            waits = sorted(self._came.values()) or [0.0]
            return Verdict(
                len(self._sent),
                len(self._confirmed),
                lost,
                self._doubled,
                self._disordered,
                self._alien,
                waits[-1],
                waits[int(0.99 * (len(waits) - 1))],
            )
