"""The short way of a prediction: a request that is here as a whole, and asks for nothing but what its route is for,
goes to the chain from the parser's own call-back, and its answer is one write. See wire.py; standard library only.

Whatever else there is goes through `Front`, which answers these requests the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol

from .chain import Outcome
from .heads import JSON, Headers, check_headers
from .keys import Keys
from .predict import WISHES, Answer, Refused, in_short, parse, refusal, unknown_failure
from .room import Busy, Room
from .tally import Tally
from .worker import Outcomes, Worker

Made = Callable[[list[Outcome]], Answer]


class Turn(Protocol):
    """A request whose body is here, and that waits for its answer."""

    def answer(self, answer: Answer, every: Headers) -> None:
        """Sends it, with the headers `every`, unless the client has gone."""


class Short(Protocol):
    """A route that predicts. `kinds` are the content types that it takes, `step` the one that it asks, "" all."""

    kinds: Collection[bytes]
    step: str

    def read(self, headers: Mapping[bytes, bytes], body: bytes) -> tuple[Sequence[Any], Made] | None:
        """The instances, and what makes the answer of their outcomes; `Refused`. None: not now."""


class Predict:
    """`POST /predict` in JSON."""

    kinds: Collection[bytes] = JSON
    step = ""

    def read(self, headers: Mapping[bytes, bytes], body: bytes) -> tuple[Sequence[Any], Made] | None:  # noqa: ARG002
        return parse(body), in_short


class ShortWay:
    """To `worker`, for the `routes` by their URLs; `every` are the headers of every answer. The others as `Front`."""

    def __init__(
        self,
        worker: Worker,
        routes: Mapping[bytes, Short],
        max_body: int,
        room: Room,
        keys: Keys | None,
        every: Callable[[], Headers],
    ) -> None:
        self._worker, self._routes, self._max_body = worker, routes, max_body
        self._room, self._keys, self._every = room, keys, every
        self._tally = Tally()

    def has(self, url: bytes) -> bool:
        return url in self._routes

    def goes(self, url: bytes, headers: Headers, body: bytes, turn: Turn) -> bool:
        """Whether `turn`, a POST to a route that there is, gets its answer this way."""
        given, route = dict(headers), self._routes[url]
        if (
            not WISHES.isdisjoint(given)
            or check_headers(given, self._max_body, route.kinds)
            or (self._keys and self._keys.refusal(given))
            or self._worker.reason
            or self._worker.full
        ):
            return False
        arrived, size = time.perf_counter(), len(body)
        try:
            found = route.read(given, body)
            if found is None:
                return False
            self._room.enter(size)
        except (Refused, Busy) as error:
            turn.answer(refusal(error), self._every())
            return True
        instances, made = found

        def answer(outcomes: Outcomes) -> None:
            self._room.leave(size)
            said = unknown_failure() if isinstance(outcomes, Exception) else made(outcomes)
            turn.answer(said, self._every())
            self._tally.answered(time.perf_counter() - arrived)

        self._worker.submit(list(instances), answer, route.step)
        self._tally.taken(len(instances))
        return True
