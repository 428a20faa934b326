"""Answers to the routes. Reading and writing messages is done by threads of their own, predicting by the unit's worker.

Each request is answered by one frozen `State`, see control.py; calls beside each other share nothing else.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

from google.protobuf.message import EncodeError

from .. import metrics
from ..chain import Outcome
from ..front import Request
from ..predict import Answer, Refused, Wish, attempt, failure, final, wish
from . import predictions
from .control import State
from .forms import Asked, asked, check_names, from_bytes, require_no_model
from .instances import instance, is_table, rows
from .kept import Current
from .multipart import BadForm, parts
from .routes import Backing, Route
from .unfit import Unfit

BINARY = b"application/octet-stream"
VERSION = b"x-model-version"
THREADS = 2
CHANGES = 3  # of the schema during one request

Made = TypeVar("Made")
Run = Callable[[list[object], Wish], Awaitable[list[Outcome]]]


class Answers:
    """Of one unit."""

    def __init__(self, backing: Backing) -> None:
        self._backing = backing
        self._current = Current(backing.folder, backing.state, backing.info)
        self._threads = ThreadPoolExecutor(THREADS, "modelrunner")

    async def form(self, route: Route, request: Request) -> Answer:
        """To a form with a file: its message, or what is predicted for it."""
        body = await request.body()

        def read(own: State) -> Asked:
            found = parts(body, request.headers.get(b"content-type", b""))
            check_names(route, found)
            require_no_model(found)
            return asked(route, request.query, found, own.usable)

        async def answer(own: State) -> Answer:
            found = await self.aside(lambda: read(own))
            if route.predicts:
                return await self.predicted(found, request.headers, self._run)
            return Answer(200, await self.aside(found.messages[0].SerializeToString), BINARY)

        return await self._by_one_schema(answer)

    async def method(self, name: str, request: Request) -> Answer:
        """To a message in protobuf: what is predicted for it."""
        body = await request.body()

        async def answer(own: State) -> Answer:
            if own.schema is not None and name not in own.schema.operations:
                raise Refused(404, f"there is no operation {name!r}, only {', '.join(own.schema.operations)}")
            found = await self.aside(lambda: from_bytes(name, body, own.usable()))
            return await self.predicted(found, request.headers, self._run)

        return await self._by_one_schema(answer)

    async def _by_one_schema(self, answer: Callable[[State], Awaitable[Answer]]) -> Answer:
        """Once more when the schema became another one meanwhile: a model may have come with it, and an answer is by a
        schema and a model that belong together."""
        for _ in range(CHANGES):
            own = await self.now()
            try:
                made = await answer(own)
            except Refused:
                if await self.now() == own:
                    raise
                continue
            if await self.now() == own:
                return made
        raise Refused(503, "schemas come and go; try again later")

    async def now(self) -> State:
        """What requests are answered by."""
        known = self._current.known()
        return await self.aside(self._current.read) if known is None else known

    async def predicted(self, found: Asked, headers: Mapping[bytes, bytes], run: Run) -> Answer:
        """What `run` makes of the rows of its messages."""
        arrived = time.perf_counter()
        plain = self._backing.plain
        one_row = len(found.messages) == 1 and not is_table(found.operation.takes.DESCRIPTOR)
        with metrics.IN_FLIGHT.track_inprogress():
            instances = await self.aside(
                lambda: [instance(row, plain) for message in found.messages for row in rows(message)]
            )
            wished = wish(b"", headers)
            outcomes = _all_good(await run(instances, wished), wished)

            def written() -> bytes:
                values = [final(outcome) for outcome in outcomes]
                made: bytes = predictions.message(found.operation.returns, values, one_row).SerializeToString()
                return made

            body = await self.aside(written)
        metrics.MESSAGES_OUT.labels("http").inc(len(outcomes))
        metrics.END_TO_END_SECONDS.observe(time.perf_counter() - arrived)
        return Answer(200, body, BINARY, _versions(outcomes))

    async def _run(self, instances: list[object], wished: Wish) -> list[Outcome]:
        backing = self._backing
        return await attempt(backing.worker, backing.onward, instances, replace(wished, outcomes=False))

    async def aside(self, work: Callable[[], Made]) -> Made:
        """The result of `work`, done by a thread, or `Refused` for what does not fit."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except Unfit as error:
            raise Refused(422, str(error)) from None
        except BadForm as error:
            raise Refused(400, str(error)) from None
        except (EncodeError, RecursionError) as error:
            raise Refused(422, f"the message cannot be written: {error}") from None


def _all_good(outcomes: list[Outcome], wished: Wish) -> list[Outcome]:
    """All of them, or `Refused`."""
    failed_ones = [(place, outcome.error) for place, outcome in enumerate(outcomes) if outcome.error]
    if failed_ones:
        answer = failure(failed_ones, wished.trace)
        text = str(json.loads(answer.body)["error"]).replace("data[", "row ", 1).replace("]", "", 1)
        raise Refused(422 if answer.status == 400 else answer.status, text)
    return outcomes


def _versions(outcomes: list[Outcome]) -> tuple[tuple[bytes, bytes], ...]:
    """The models that made them, as `step=version`; more than one of a step when it was swapped meanwhile."""
    marks = dict.fromkeys(mark for outcome in outcomes for models in outcome.models for mark in models.split(b","))
    named = [mark for mark in marks if mark]
    return ((VERSION, b",".join(named)),) if named else ()
