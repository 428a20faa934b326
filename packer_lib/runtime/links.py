"""A unit's call of the next unit of an API pipeline: what its chain made of each request goes on to `/predict` there.

Requests whose turn it is together travel as one call, as they made up one batch here; each keeps its own outcome. Given
to a unit by `MLPACKER_LINKS`: {unit: {"url", "machine", "timeout", "retries", "idempotent"}}.

A call carries one trace (`traceparent`, see tracing.py): requests of different traces travel as calls of their own.

One call has `timeout` seconds, or what is left of its callers' deadline when that is less; the next unit is told how
long it has, a little less, so that its own answer, which names the step that was slow, comes before ours would.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import orjson

from . import formats, metrics
from .caller import Caller, Lost, NotSent, Response
from .chain import Outcome
from .contract import StepFailed, made_by
from .tracing import Trace

log = logging.getLogger("mlpacker.links")

REMAINING = "mlpacker-remaining-ms"  # header: how long the caller still waits; right whatever the clocks say
OUTCOMES = "mlpacker-outcomes"  # header: the answer is one outcome per instance, not the predictions
CALLS_MOST = 8
BODY_MOST = 1 << 20  # of a call of several requests; one alone may be as large as it likes
PAUSE_SECONDS = 0.2  # before the second try, about; doubles
WAY_BACK = 0.05  # of the time that is left, kept for the answer's way back
READY_SECONDS = 5.0

_encode = formats.find("json").encode


@dataclass(frozen=True, slots=True)
class Link:
    """The address of the unit that this one calls. `idempotent`: a request may be sent again though it may have been
    worked on."""

    unit: str
    url: str
    machine: str = ""
    timeout: float = 10.0
    retries: int = 2
    idempotent: bool = False


class LinkFailed(Exception):
    """The next unit gave no answer to this request; `status` is what the caller gets, the text names unit and
    machine. `after`: in how many seconds it may come again, 0 where nobody said."""

    def __init__(self, status: int, text: str, after: int = 0) -> None:
        super().__init__(text)
        self.status = status
        self.after = after


class Onward(Protocol):
    """Where the outcomes of a unit that is not the last one go."""

    async def run(
        self, outcomes: list[Outcome], deadline: float | None, trace: Trace | None = None
    ) -> list[Outcome]: ...
    async def ready(self) -> str: ...


class Nowhere:
    """The next unit, whose address nobody gave: rather no answer than one that lacks the rest of the pipeline."""

    def __init__(self, unit: str) -> None:
        self._text = f"the answer of this unit goes to unit {unit!r}, whose address is not given (MLPACKER_LINKS)"

    async def run(
        self,
        outcomes: list[Outcome],  # noqa: ARG002
        deadline: float | None,  # noqa: ARG002
        trace: Trace | None = None,  # noqa: ARG002
    ) -> list[Outcome]:
        raise LinkFailed(500, f"{self._text}; /predict?alone=true asks this unit alone")

    async def ready(self) -> str:
        return self._text


def parse(text: str, units: Sequence[str]) -> tuple[Link, ...]:
    """The links in `text` (`MLPACKER_LINKS`) to those of `units` that it names; `ValueError` says what is wrong."""
    try:
        given = json.loads(text or "{}")
        return tuple(_link(name, given[name]) for name in units if name in given)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"MLPACKER_LINKS is not an object of links: {type(error).__name__}: {error}") from None


def _link(unit: str, given: Mapping[str, Any]) -> Link:
    url = str(given["url"])
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"the url of {unit!r} is {url!r}")
    timeout, retries = float(given.get("timeout", 10.0)), int(given.get("retries", 2))
    return Link(unit, url, given.get("machine") or "", timeout, retries, bool(given.get("idempotent")))


@dataclass(slots=True)
class _Request:
    """The values of one request, encoded, and where its outcomes go; `deadline` as of `time.monotonic`, or None."""

    parts: list[bytes]
    deadline: float | None
    answer: asyncio.Future[list[Outcome]]
    trace: Trace | None = None


class Next:
    """The next unit; `last` is the step of this one before it, `key` the header for units that ask for one. Used on
    the event loop of the service only."""

    def __init__(self, link: Link, last: str, key: Sequence[str] = ()) -> None:
        self._link = link
        self._headers = ("Content-Type: application/json", f"{OUTCOMES}: 1", *key)
        self._last = last
        self._caller = Caller(link.url, keep=link.idempotent)
        self._name = f"step {link.unit!r}" + (f" on {link.machine}" if link.machine else "")
        self.place = f"{link.machine} ({self._caller.place})" if link.machine else self._caller.place
        self._waiting: list[_Request] = []
        self._planned = False
        self._calls: set[asyncio.Task[None]] = set()

    async def run(self, outcomes: list[Outcome], deadline: float | None, trace: Trace | None = None) -> list[Outcome]:
        """`outcomes` of this unit's chain after the rest of the pipeline; `LinkFailed` when there is no answer."""
        parts = [part for outcome in outcomes for part in self._encoded(outcome)]
        if not parts:
            return outcomes
        request = _Request(parts, deadline, asyncio.get_running_loop().create_future(), trace)
        self._waiting.append(request)
        self._plan()
        answers = iter(await request.answer)
        return [_joined(outcome, [next(answers) for _ in outcome.values]) for outcome in outcomes]

    def _encoded(self, outcome: Outcome) -> list[bytes]:
        try:
            return [_encode(value) for value in outcome.values]
        except (TypeError, ValueError) as error:
            outcome.values = []
            outcome.error = StepFailed(self._last, "encode", f"it gave what JSON cannot hold: {error}")
            return []

    async def ready(self) -> str:
        """Why the pipeline from there on cannot answer, or ""."""
        try:
            async with asyncio.timeout(READY_SECONDS):
                response = await self._caller.ask("GET", "/readyz?chain=true", ())
        except (NotSent, Lost, TimeoutError) as error:
            return self._text(str(error) or f"did not answer within {READY_SECONDS:g} s")
        return "" if response.status == 200 else self._text(f"not ready: {_said(response, 'reason')}")

    def close(self) -> None:
        self._caller.close()

    # ── batches ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _plan(self) -> None:
        """A call after this turn of the event loop, in which the rest of the batch comes."""
        if self._waiting and not self._planned and len(self._calls) < CALLS_MOST:
            self._planned = True
            asyncio.get_running_loop().call_soon(self._start)

    def _start(self) -> None:
        self._planned = False
        requests = self._take()
        if requests:
            call = asyncio.get_running_loop().create_task(self._call(requests))
            self._calls.add(call)
            call.add_done_callback(self._done)
        self._plan()

    def _done(self, call: asyncio.Task[None]) -> None:
        self._calls.discard(call)
        self._plan()

    def _take(self) -> list[_Request]:
        """The first and those of its trace that fit into one call with it, without those that gave up."""
        taken: list[_Request] = []
        left: list[_Request] = []
        size = 0
        for request in self._waiting:
            if request.answer.done():
                continue
            if taken and (size >= BODY_MOST or request.trace != taken[0].trace):
                left.append(request)
                continue
            taken.append(request)
            size += sum(map(len, request.parts))
        self._waiting = left
        return taken

    async def _call(self, requests: list[_Request]) -> None:
        try:
            answers = await self._ask(requests)
        except LinkFailed as failed:
            log.error("%s", failed)
            for request in requests:
                _settle(request, failed)
        except Exception as error:  # what should not have happened
            log.exception("a call of %s failed", self._name)
            for request in requests:
                _settle(request, error)
        else:
            for request in requests:
                _settle(request, [answers.pop(0) for _ in request.parts])

    # ── one call ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def _ask(self, requests: list[_Request]) -> list[Outcome]:
        body = b'{"data":[%s]}' % b",".join(part for request in requests for part in request.parts)
        started = time.monotonic()
        until = self._until(requests, started)
        try:
            response = await self._try(body, until, requests[0].trace)
        except TimeoutError:
            text = f"did not answer within {max(0.0, until - started):.3g} s"
            raise self._failed("timeout", 504, text) from None
        finally:
            metrics.LINK_SECONDS.labels(self._link.unit).observe(time.monotonic() - started)
        return self._outcomes(response, sum(len(request.parts) for request in requests))

    def _until(self, requests: list[_Request], now: float) -> float:
        """Each request watches its own deadline; the call goes on for the one that waits longest."""
        limit = now + self._link.timeout
        deadlines = [limit if request.deadline is None else request.deadline for request in requests]
        latest = max(deadlines)
        return limit if latest >= limit else latest - WAY_BACK * max(0.0, latest - now)

    async def _try(self, body: bytes, until: float, trace: Trace | None) -> Response:
        """The answer of the first try that has one; `TimeoutError` when the time is up."""
        async with asyncio.timeout(until - time.monotonic()):
            for left in range(self._link.retries, -1, -1):
                remaining = (until - time.monotonic()) * (1 - WAY_BACK)
                told = (f"{REMAINING}: {remaining * 1000:.0f}", *(trace.headers() if trace else ()))
                headers = (*self._headers, *told)
                try:
                    return await self._caller.ask("POST", "/predict", headers, body)
                except (NotSent, Lost) as error:
                    if not left or (isinstance(error, Lost) and not self._link.idempotent):
                        raise self._unreached(error, self._link.retries - left) from None
                metrics.LINK_RETRIES.labels(self._link.unit).inc()
                await asyncio.sleep(PAUSE_SECONDS * 2 ** (self._link.retries - left) * random.uniform(0.5, 1.5))  # noqa: S311
        raise AssertionError  # the last try returns or raises

    def _unreached(self, error: Exception, again: int) -> LinkFailed:
        tries = f" ({again + 1} tries)" if again else ""
        return self._failed("lost" if isinstance(error, Lost) else "unreached", 502, f"{error}{tries}")

    def _outcomes(self, response: Response, size: int) -> list[Outcome]:
        if response.status in (429, 503, 504):
            reason = "timeout" if response.status == 504 else "overloaded"
            raise self._failed(reason, response.status, _said(response, "error"), response.after)
        try:
            if response.status != 200:
                raise ValueError
            outcomes = [self._outcome(each) for each in orjson.loads(response.body)["outcomes"]]
            if len(outcomes) != size:
                raise ValueError
        except (ValueError, KeyError, TypeError):
            text = f"gave no answer of a unit (status {response.status}: {_said(response, 'error')})"
            raise self._failed("answer", 502, text) from None
        return outcomes

    def _outcome(self, given: Mapping[str, Any]) -> Outcome:
        if "error" not in given:
            return Outcome(list(given["values"]), models=[str(made).encode() for made in given.get("models", ())])
        place = str(given.get("place") or self.place)
        return Outcome(error=StepFailed(str(given["step"]), str(given["stage"]), str(given["error"]), place))

    def _failed(self, reason: str, status: int, text: str, after: int = 0) -> LinkFailed:
        metrics.LINK_FAILURES.labels(self._link.unit, reason).inc()
        return LinkFailed(status, self._text(text), after)

    def _text(self, text: str) -> str:
        """Says where, unless the text already says where further on."""
        return text if text.startswith("step ") else f"{self._name} ({self._caller.place}): {text}"


def described(outcome: Outcome) -> dict[str, Any]:
    """The outcome as the unit before this one reads it."""
    error = outcome.error
    if error is None:
        return {"values": outcome.values, "models": [made.decode() for made in outcome.models]}
    return {"step": error.step, "stage": error.stage, "error": error.reason, "place": error.place}


def _joined(outcome: Outcome, answers: list[Outcome]) -> Outcome:
    """One outcome of what became of each of its values; the first error is its error."""
    error = outcome.error or next((answer.error for answer in answers if answer.error), None)
    values = [value for answer in answers for value in answer.values]
    pairs = zip(outcome.models, answers, strict=False)
    models = [made_by(before, after) for before, answer in pairs for after in answer.models]
    return Outcome(values, error=error, models=models)


def _settle(request: _Request, result: list[Outcome] | Exception) -> None:
    if request.answer.done():
        return  # its caller has gone
    if isinstance(result, Exception):
        request.answer.set_exception(result)
    else:
        request.answer.set_result(result)


def _said(response: Response, key: str) -> str:
    """What an error answer says, short enough for a line."""
    try:
        return str(orjson.loads(response.body)[key])
    except (ValueError, KeyError, TypeError):
        return response.body[:80].decode("utf-8", "replace") or "nothing"
