"""The ASGI app in front: `/predict` and the routes of every unit are answered here, all else by the app behind.

    POST /predict                        {"data": [instance, …]} → {"predictions": [value or null, …]}
    GET  /livez /readyz /metrics /info   as every unit

Errors are `{"error": "…"}`: 400 what is not as above, or an instance that does not fit (by its index); 405; 408 and 413
a body too slow or too large; 415 anything but JSON; 500 a step failed; 503 not loaded yet, or too much waiting. A
content type that is not declared is refused on every route, so that nothing behind ever decodes it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

import orjson

from . import formats, metrics
from .chain import Outcome
from .contract import StepFailed
from .worker import Busy, Worker

log = logging.getLogger("mlpacker.rest")

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

BODY_SECONDS = 30.0
ROUTES = "POST /predict, GET /livez, /readyz, /metrics, /info"
POLICY = b"default-src 'self' data:; style-src 'self' 'unsafe-inline'"
CLOSE = (b"connection", b"close")
UNREAD = frozenset({408, 413, 415})
USAGE = 'expected {"data": [instance, …]}'
INDENT = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE

_encode = formats.find("json").encode
_taken = metrics.MESSAGES_IN.labels("http")
_answered = metrics.MESSAGES_OUT.labels("http")


Headers = list[tuple[bytes, bytes]]
RELEASE = b"mlpacker-release"  # the name of the header; messages of streams carry it under the same


@dataclass(slots=True)
class Leaving:
    """Whether this process no longer takes anything new: each answer is then the last one of its connection."""

    now: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: bytes
    kind: bytes = b"application/json"


class Refused(Exception):
    """The request gets this `status` and text, and reaches no step."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Front:
    """Around `app`: the outermost app under `python service.py`, a middleware under `bentoml serve`.

    `info` is what `/info` says, `max_body` the largest body in bytes. Every answer names the release that gave it.
    """

    def __init__(
        self, app: App, worker: Worker, info: dict[str, Any], max_body: int, leaving: Leaving | None = None
    ) -> None:
        self._app = app
        self._worker = worker
        self._max_body = max_body
        self._leaving = leaving or Leaving()
        self._headers = release_header(str(info["release"]))
        self._probes: dict[str, Callable[[], Answer]] = {
            "/livez": lambda: _show(200, {"live": True}),
            "/readyz": self._ready,
            "/metrics": lambda: Answer(200, metrics.exposition(), metrics.CONTENT_TYPE.encode()),
            "/info": lambda: _show(200, info),
        }

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            refused = check_headers(dict(scope["headers"]), self._max_body)
            if refused:
                await read_body(receive, self._max_body)  # a client that still sends would not see the answer
                raise refused
            answer = await self._answer(scope, receive)
        except Refused as refused:
            answer = _error(refused.status, str(refused))
        if answer is None:
            await self._app(scope, receive, guarded(send, self._every))
        else:
            await respond(send, answer, self._every())

    def _every(self) -> Headers:
        """What every answer says."""
        return [*self._headers, CLOSE] if self._leaving.now else self._headers

    async def _answer(self, scope: Message, receive: Receive) -> Answer | None:
        """None: the route is not one of ours."""
        path = scope["path"]
        if path == "/predict":
            require_method(scope, "POST")
            return await self._predict(receive)
        if path in self._probes:
            require_method(scope, "GET", "HEAD")
            return self._probes[path]()
        return None

    async def _predict(self, receive: Receive) -> Answer:
        arrived = time.perf_counter()
        with metrics.IN_FLIGHT.track_inprogress():
            answer = await predict(self._worker, parse(await read_body(receive, self._max_body)))
        metrics.END_TO_END_SECONDS.observe(time.perf_counter() - arrived)
        return answer

    def _ready(self) -> Answer:
        reason = self._worker.reason
        return _show(503, {"ready": False, "reason": reason}) if reason else _show(200, {"ready": True})


async def predict(worker: Worker, instances: list[Any]) -> Answer:
    """The answer for `instances`; one that does not get through fails this request, and no other of its batch."""
    if worker.reason:
        raise Refused(503, f"not ready: {worker.reason}")
    _taken.inc(len(instances))
    try:
        outcomes = await worker.run(instances)
    except Busy as busy:
        raise Refused(503, f"{busy}; try again later") from None
    except Exception:  # what should not have happened; the worker has logged it
        return _error(500, "the unit failed; its log says why")
    failed = [(index, outcome.error) for index, outcome in enumerate(outcomes) if outcome.error]
    if failed:
        return failure(failed)
    try:
        body = _encode({"predictions": [final(outcome) for outcome in outcomes]})
    except (TypeError, ValueError) as error:
        return _error(500, f"the last step gave what JSON cannot hold: {error}")
    _answered.inc(len(outcomes))
    return Answer(200, body)


def final(outcome: Outcome) -> Any:
    """The answer to one instance: null when it was dropped, its value, or the list of what a generator gave."""
    return outcome.values[0] if len(outcome.values) == 1 else outcome.values or None


def failure(failed: list[tuple[int, StepFailed]]) -> Answer:
    """Says the first instance that does not fit, else the first that a step failed on; all are counted and logged."""
    for index, error in failed:
        metrics.MESSAGES_FAILED.labels(error.step, error.stage).inc()
        if error.stage != "input":
            log.error("data[%d]: %s", index, error, exc_info=error.__cause__)
    unfit = [(index, error) for index, error in failed if error.stage == "input"]
    index, error = (unfit or failed)[0]
    more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
    if unfit:
        return _error(400, f"data[{index}]: {error.reason}{more}")
    return _error(500, f"data[{index}]: step {error.step!r} failed: {error.reason}{more}")


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


def check_headers(headers: dict[bytes, bytes], max_body: int) -> Refused | None:
    """What is wrong: a content type or encoding that is not declared, or a length over `max_body`."""
    kind = headers.get(b"content-type")
    if kind is not None and kind.partition(b";")[0].strip().lower() != b"application/json":
        return Refused(415, f"Content-Type is {kind.decode('latin-1')!r}; send application/json")
    if headers.get(b"content-encoding", b"identity") != b"identity":
        return Refused(415, "Content-Encoding is not supported; send the JSON as it is")
    if int(headers.get(b"content-length", b"0")) > max_body:
        return _too_large(max_body)
    if kind is None and (b"content-length" in headers or b"transfer-encoding" in headers):
        return Refused(415, "there is no Content-Type; send application/json")
    return None


def require_method(scope: Message, *allowed: str) -> None:
    if scope["method"] not in allowed:
        raise Refused(405, f"{scope['path']} takes {' or '.join(allowed)}, got {scope['method']}")


async def read_body(receive: Receive, limit: int) -> bytes:
    """The whole body, or `Refused` when it is over `limit` bytes or not there in time.

    What is over the limit is read and dropped, as far as the same again, so that its sender gets to read the answer.
    """
    parts: list[bytes] = []
    size, more = 0, True
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while more and size <= 2 * limit:
                message = await receive()
                more = message.get("more_body", False)
                size += len(message.get("body", b""))
                if size <= limit:
                    parts.append(message.get("body", b""))
    except TimeoutError:
        raise Refused(408, f"the body was not here within {BODY_SECONDS:.0f} s") from None
    if size > limit:
        raise _too_large(limit)
    return b"".join(parts)


def guarded(send: Send, every: Callable[[], Headers]) -> Send:
    """For answers of the app behind: with the headers of `every`, errors as ours are, and pages that load nothing from
    elsewhere (BentoML's would load a tracker)."""
    replaced = False

    async def pass_on(message: Message) -> None:
        nonlocal replaced
        if message["type"] == "http.response.start":
            replaced = message["status"] >= 400
            if replaced:
                text = f"not one of {ROUTES}, and not in the documentation at /"
                await respond(send, _error(message["status"], text), every())
                return
            added = [(b"content-security-policy", POLICY), *every()]
            message = {**message, "headers": [*message["headers"], *added]}
        if not replaced:
            await send(message)

    return pass_on


async def respond(send: Send, answer: Answer, every: Headers) -> None:
    headers = [(b"content-type", answer.kind), (b"content-length", str(len(answer.body)).encode()), *every]
    if answer.status in UNREAD and CLOSE not in headers:  # the rest of the body is not worth waiting for
        headers.append(CLOSE)
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})


def release_header(release: str) -> Headers:
    return [(RELEASE, release.encode())] if release and release.isascii() and release.isprintable() else []


def _too_large(limit: int) -> Refused:
    return Refused(413, f"the body is larger than {limit} bytes (MLPACKER_MAX_BODY_MIB sets how much may be sent)")


def _name(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def _show(status: int, value: Any) -> Answer:
    return Answer(status, orjson.dumps(value, None, INDENT))


def _error(status: int, text: str) -> Answer:
    return Answer(status, orjson.dumps({"error": text}))
