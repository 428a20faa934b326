"""Answers to the routes. Reading and writing messages is done by threads of their own, predicting by the unit's worker.

State is one frozen value, see control.py: each request takes it once, and calls beside each other share nothing else.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

from google.protobuf.message import EncodeError

from .. import metrics
from ..chain import Outcome
from ..front import Request
from ..predict import Answer, Refused, Wish, attempt, failure, final, wish
from . import control, predictions
from .forms import Asked, asked, check_names, from_bytes
from .instances import instance, is_table, rows
from .multipart import BadForm, Part, parts
from .routes import Backing, Route
from .unfit import Unfit

log = logging.getLogger("mlpacker.modelrunner")

BINARY = b"application/octet-stream"
VERSION = b"x-model-version"
OK = Answer(200, b'{"status":"ok"}')
THREADS = 2

Made = TypeVar("Made")


class Answers:
    """Of one unit."""

    def __init__(self, backing: Backing) -> None:
        self._backing = backing
        self._state = control.first(backing.folder)
        self._threads = ThreadPoolExecutor(THREADS, "modelrunner")

    async def put(self, route: Route, request: Request) -> Answer:
        """`{"status":"ok"}` when what was sent is in place; 400 and all as it was when it cannot be used."""
        body = await request.body()
        control.authorise(request.headers, self._backing.token)
        if route.data == "model":
            raise Refused(422, control.NOT_YET)
        part = await self._aside(lambda: _only_part(route, request, body))
        await self._aside(lambda: control.changed(self._state, part))  # what is slow about it; nothing is kept
        self._state = control.changed(self._state, part)
        log.info("%s was replaced", route.data)
        return OK

    async def form(self, route: Route, request: Request) -> Answer:
        """To a form with a file: its message, or what is predicted for it."""
        body, own = await request.body(), self._state

        def read() -> Asked:
            return asked(route, request.query, _parts(request, body), own.usable)

        found = await self._aside(read)
        if route.predicts:
            return await self._predicted(found, request)
        return Answer(200, await self._aside(found.messages[0].SerializeToString), BINARY)

    async def method(self, name: str, request: Request) -> Answer:
        """To a message in protobuf: what is predicted for it."""
        body, own = await request.body(), self._state
        if own.schema is not None and name not in own.schema.operations:
            raise Refused(404, f"there is no operation {name!r}, only {', '.join(own.schema.operations)}")
        return await self._predicted(await self._aside(lambda: from_bytes(name, body, own.usable())), request)

    async def _predicted(self, found: Asked, request: Request) -> Answer:
        arrived = time.perf_counter()
        plain = self._backing.plain
        one_row = len(found.messages) == 1 and not is_table(found.operation.takes.DESCRIPTOR)
        with metrics.IN_FLIGHT.track_inprogress():
            instances = await self._aside(
                lambda: [instance(row, plain) for message in found.messages for row in rows(message)]
            )
            outcomes = await self._outcomes(instances, wish(b"", request.headers))

            def written() -> bytes:
                values = [final(outcome) for outcome in outcomes]
                made: bytes = predictions.message(found.operation.returns, values, one_row).SerializeToString()
                return made

            body = await self._aside(written)
        metrics.MESSAGES_OUT.labels("http").inc(len(outcomes))
        metrics.END_TO_END_SECONDS.observe(time.perf_counter() - arrived)
        return Answer(200, body, BINARY, _versions(outcomes))

    async def _outcomes(self, instances: list[object], wished: Wish) -> list[Outcome]:
        """All of them good, or `Refused`."""
        backing = self._backing
        outcomes = await attempt(backing.worker, backing.onward, instances, replace(wished, outcomes=False))
        failed_ones = [(place, outcome.error) for place, outcome in enumerate(outcomes) if outcome.error]
        if failed_ones:
            answer = failure(failed_ones, wished.trace)
            text = str(json.loads(answer.body)["error"]).replace("data[", "row ", 1).replace("]", "", 1)
            raise Refused(422 if answer.status == 400 else answer.status, text)
        return outcomes

    async def _aside(self, work: Callable[[], Made]) -> Made:
        """The result of `work`, done by a thread, or `Refused` for what does not fit."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except Unfit as error:
            raise Refused(422, str(error)) from None
        except BadForm as error:
            raise Refused(400, str(error)) from None
        except (EncodeError, RecursionError) as error:
            raise Refused(422, f"the message cannot be written: {error}") from None


def _parts(request: Request, body: bytes) -> dict[str, Part]:
    return parts(body, request.headers.get(b"content-type", b""))


def _only_part(route: Route, request: Request, body: bytes) -> Part:
    found = _parts(request, body)
    try:
        check_names(route, found)
    except Unfit as error:
        raise Refused(400, str(error)) from None
    return found[route.data]


def _versions(outcomes: list[Outcome]) -> tuple[tuple[bytes, bytes], ...]:
    """The models that made them, as `step=version`; more than one of a step when it was swapped meanwhile."""
    marks = dict.fromkeys(mark for outcome in outcomes for models in outcome.models for mark in models.split(b","))
    named = [mark for mark in marks if mark]
    return ((VERSION, b",".join(named)),) if named else ()
