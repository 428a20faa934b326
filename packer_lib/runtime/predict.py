"""`POST /predict`, from the bytes of a request to those of its answer: through the chain, and on to the next unit."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

import orjson

from . import formats, metrics, tracing
from .chain import Outcome
from .contract import MODEL, StepFailed
from .links import OUTCOMES, REMAINING, LinkFailed, Onward, described
from .room import Busy
from .wanted import NoVersion
from .worker import Worker

log = logging.getLogger("mlpacker.rest")

UNKNOWN = "the unit failed; its log says why"
USAGE = 'expected {"data": [instance, …]}'
INDENT = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE

_encode = formats.find("json").encode
_taken = metrics.MESSAGES_IN.labels("http")
_answered = metrics.MESSAGES_OUT.labels("http")
_remaining = REMAINING.encode()
_outcomes = OUTCOMES.encode()
_model = MODEL.encode()
WISHES = frozenset({_remaining, _outcomes, *tracing.HEADERS})  # the headers that `wish` reads


Headers = tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: bytes
    kind: bytes = b"application/json"
    headers: Headers = ()


class Refused(Exception):
    """The request gets this `status` and text, and reaches no step; the answer has these `headers` too."""

    def __init__(self, status: int, text: str, headers: Headers = ()) -> None:
        super().__init__(text)
        self.status = status
        self.headers = headers


@dataclass(frozen=True, slots=True)
class Wish:
    """What a caller asks for beside its data: by when (`time.monotonic`), this unit `alone`, one `step` of it, or an
    outcome for each instance, as the unit before this one does; another `version` of its models than is live, and the
    `trace` that it is part of."""

    deadline: float | None = None
    alone: bool = False
    outcomes: bool = False
    step: str = ""
    trace: tracing.Trace | None = None
    version: str = ""


PLAIN = Wish()


def wish(query: bytes, headers: Mapping[bytes, bytes]) -> Wish:
    """`Refused` when the caller does not say its time in milliseconds, or has none left."""
    given = headers.get(_remaining)
    trace = tracing.given(headers)
    if not query and given is None and _outcomes not in headers:
        return Wish(trace=trace) if trace else PLAIN
    deadline = None
    if given is not None:
        if not given.isdigit() or len(given) > 9:
            raise Refused(400, f"{REMAINING} is {given.decode('latin-1')!r}; send whole milliseconds")
        deadline = time.monotonic() + int(given) / 1000
    asked = dict(parse_qsl(query.decode("latin-1")))
    step, version = asked.get("step", ""), asked.get("version", "")
    return Wish(deadline, bool(step) or asked.get("alone") == "true", _outcomes in headers, step, trace, version)


async def predict(worker: Worker, onward: Onward | None, instances: list[Any], wish: Wish = PLAIN) -> Answer:
    """The answer for `instances`; one that does not get through fails this request, and no other of its batch."""
    outcomes = await attempt(worker, onward, instances, wish)
    return in_full(outcomes) if wish.outcomes else in_short(outcomes, wish.trace)


async def attempt(worker: Worker, onward: Onward | None, instances: list[Any], wish: Wish) -> list[Outcome]:
    """What became of each instance; `Refused` where there is no saying, for all of them."""
    if worker.reason:
        raise Refused(503, f"not ready: {worker.reason}")
    if wish.step and wish.step not in worker.steps:
        raise Refused(404, f"this unit has no step {wish.step!r}, only {', '.join(worker.steps)}")
    taken(len(instances))
    try:
        running = run(worker, None if wish.alone else onward, instances, wish)
        return await (running if wish.deadline is None else _by(wish.deadline, running))
    except TimeoutError:
        raise Refused(504, "the time that the caller gives was up before there was an answer") from None
    except NoVersion as error:
        raise Refused(404, str(error)) from None
    except Busy as busy:
        raise overloaded(busy) from None
    except LinkFailed as failed:
        raise Refused(failed.status, str(failed), retry_after(failed.after)) from None
    except Exception:  # what should not have happened; who found it has logged it
        raise Refused(500, UNKNOWN) from None


async def _by(deadline: float, running: Coroutine[Any, Any, list[Outcome]]) -> list[Outcome]:
    async with asyncio.timeout(deadline - time.monotonic()):
        return await running


async def run(worker: Worker, onward: Onward | None, instances: list[Any], wish: Wish = PLAIN) -> list[Outcome]:
    """What became of each instance. A request that has failed already goes no further, but for the units before."""
    outcomes = await worker.run(instances, wish.step, wish.version)
    if onward is None or (not wish.outcomes and any(outcome.error for outcome in outcomes)):
        return outcomes
    return await onward.run(outcomes, wish.deadline, wish.trace)


def taken(instances: int) -> None:
    """Counts them."""
    _taken.inc(instances)


def unknown_failure() -> Answer:
    return error_answer(500, UNKNOWN)


def in_short(outcomes: list[Outcome], trace: tracing.Trace | None = None) -> Answer:
    """Predictions, or the error of those that failed."""
    predictions = []
    for outcome in outcomes:
        if outcome.error:
            return failure([(index, each.error) for index, each in enumerate(outcomes) if each.error], trace)
        predictions.append(final(outcome))
    try:
        body = _encode({"predictions": predictions})
    except (TypeError, ValueError) as error:
        return error_answer(500, f"the last step gave what JSON cannot hold: {error}")
    return Answer(200, body, headers=given_out(outcomes))


def given_out(outcomes: list[Outcome]) -> Headers:
    """Counts them. The header that says which models made the answer: those of its first instance, for all instances of
    a request go through the same ones."""
    _answered.inc(len(outcomes))
    for outcome in outcomes:
        if outcome.models:
            return ((_model, outcome.models[0]),) if outcome.models[0] else ()
    return ()


def in_full(outcomes: list[Outcome]) -> Answer:
    """One outcome per instance: other requests of the same call know nothing of a failed one."""
    for outcome in outcomes:
        if outcome.error:
            count(outcome.error)
    _answered.inc(sum(not outcome.error for outcome in outcomes))
    try:
        return Answer(200, _encode({"outcomes": [described(outcome) for outcome in outcomes]}))
    except (TypeError, ValueError):
        return Answer(200, _encode({"outcomes": [_sayable(outcome) for outcome in outcomes]}))


def _sayable(outcome: Outcome) -> dict[str, Any]:
    try:
        _encode(outcome.values)
    except (TypeError, ValueError) as error:
        text = f"the last step gave what JSON cannot hold: {error}"
        return {"step": "", "stage": "encode", "error": text, "place": ""}
    return described(outcome)


def final(outcome: Outcome) -> Any:
    """The answer to one instance: null when it was dropped, its value, or the list of what a generator gave."""
    return outcome.values[0] if len(outcome.values) == 1 else outcome.values or None


def failure(failed: list[tuple[int, StepFailed]], trace: tracing.Trace | None = None) -> Answer:
    """Says the first instance that does not fit, else the first that a step failed on; all are counted and logged."""
    part = f" (trace {trace.id})" if trace else ""
    for index, error in failed:
        count(error)
        if error.stage != "input":
            log.error("data[%d]: %s%s", index, error, part, exc_info=error.__cause__)
    unfit = [(index, error) for index, error in failed if error.stage == "input"]
    index, error = (unfit or failed)[0]
    more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
    if unfit:
        return error_answer(400, f"data[{index}]: {error.reason}{more}")
    place = f" on {error.place}" if error.place else ""
    step = f"step {error.step!r}{place} failed: " if error.step else ""
    return error_answer(500, f"data[{index}]: {step}{error.reason}{more}")


def count(error: StepFailed) -> None:
    """Failures of other units are counted there."""
    if not error.place:
        metrics.MESSAGES_FAILED.labels(error.step, error.stage).inc()


def parse(body: bytes) -> list[Any]:
    """The instances in `body`, or `Refused`."""
    try:
        request = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Refused(400, f"the body is not JSON: {error}") from None
    if not isinstance(request, dict):
        raise Refused(400, f"{USAGE}, got {_name(request)}")
    if "data" not in request:
        raise Refused(400, f'{USAGE}, the object has no "data"')
    instances = request["data"]
    if not isinstance(instances, list):
        raise Refused(400, f'{USAGE}, "data" is {_name(instances)}')
    return instances


def _name(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def shown(status: int, value: Any) -> Answer:
    return Answer(status, orjson.dumps(value, None, INDENT))


def error_answer(status: int, text: str, headers: Headers = ()) -> Answer:
    return Answer(status, orjson.dumps({"error": text}), headers=headers)


def overloaded(busy: Busy) -> Refused:
    return Refused(429, f"{busy}; try again later", retry_after(busy.after))


def retry_after(seconds: int) -> Headers:
    """None when nothing is to be said (0)."""
    return ((b"retry-after", b"%d" % seconds),) if seconds else ()


def refusal(error: Refused | Busy) -> Answer:
    error = overloaded(error) if isinstance(error, Busy) else error
    return error_answer(error.status, str(error), error.headers)
