"""The ASGI app in front: what predicts and the routes of every unit are answered here, all else by the app behind.

    POST /predict                        {"data": [instance, …]} → {"predictions": [value or null, …]}
                                         CSV: a line, .npy: a row of the array is an instance, see bodies.py
    GET  /livez /readyz /metrics /info   as every unit

A unit that others follow answers with what the last of them makes of it; `/predict?alone=true` asks this unit alone,
`/predict?step=NAME` one step of it.
`/readyz` is about this unit; `/readyz?chain=true` about those that follow as well. The header `mlpacker-remaining-ms`
says how long the caller waits: there is an answer by then, 504 if need be. `traceparent` and `tracestate` go on to the
units that follow, and a failure that is logged here names the trace. Every answer names its release in the header
`mlpacker-release`.

Errors are `{"error": "…"}`: 400 what is not as above, or an instance that does not fit (by its index); 405; 408 and 413
a body too slow or too large; 415 a content type that the route does not take; 500 a step failed; 502 the next unit
cannot be reached; 503 not loaded yet, or too much waiting, here or there; 504 no answer in time. What is not declared
is refused on every route, so that nothing behind ever decodes it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from . import bodies, metrics
from .links import Onward
from .predict import (
    WISHES,
    Answer,
    Refused,
    error_answer,
    in_short,
    parse,
    predict,
    shown,
    taken,
    unknown_failure,
    wish,
)
from .worker import Outcomes, Worker

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

BODY_SECONDS = 30.0
ROUTES = (
    "POST /predict, GET /livez, /readyz, /metrics, /info, /v2 (Open Inference Protocol), POST /invocations (MLflow)"
)
POLICY = b"default-src 'self' data:; style-src 'self' 'unsafe-inline'"
CLOSE = (b"connection", b"close")
UNREAD = frozenset({408, 413, 415})

JSON = frozenset({bodies.JSON})
PREDICT = JSON | bodies.KINDS
NO_KIND = b""  # among the content types of a route: a body may come without one

Headers = list[tuple[bytes, bytes]]
RELEASE = b"mlpacker-release"  # the name of the header; messages of streams carry it under the same


@dataclass(slots=True)
class Leaving:
    """Whether this process no longer takes anything new: each answer is then the last one of its connection."""

    now: bool = False


@dataclass(frozen=True, slots=True)
class Request:
    """`headers` have lower-case names; `body` reads the whole of it, or raises `Refused`."""

    method: str
    path: str
    query: bytes
    headers: Mapping[bytes, bytes]
    body: Callable[[], Awaitable[bytes]]

    @property
    def kind(self) -> bytes:
        """Its content type without parameters, in lower case, or `NO_KIND`."""
        return kind_of(self.headers.get(b"content-type", NO_KIND))

    def require(self, *allowed: str) -> None:
        """`Refused` when its method is not one of these."""
        require_method(self.method, self.path, *allowed)


class Interface(Protocol):
    """Routes that predict, beside `/predict`, by somebody's protocol."""

    def kinds(self, path: str) -> Collection[bytes] | None:
        """The content types that `path` takes; None: it is not one of these routes."""

    async def answer(self, request: Request) -> Answer:
        """To a request of one of these routes; raises `Refused`."""


class Tally:
    """Counts what goes the short way, once for all requests of a turn of the event loop: the counters have locks, and
    to ask for each of them for each request took as long as to read it."""

    def __init__(self) -> None:
        self._requests = self._instances = 0
        self._seconds: list[float] = []

    def taken(self, instances: int) -> None:
        self._later()
        self._requests += 1
        self._instances += instances

    def answered(self, seconds: float) -> None:
        self._later()
        self._seconds.append(seconds)

    def _later(self) -> None:
        if not (self._requests or self._seconds):
            asyncio.get_running_loop().call_soon(self._count)

    def _count(self) -> None:
        taken(self._instances)
        metrics.IN_FLIGHT.inc(self._requests - len(self._seconds))
        for each in self._seconds:
            metrics.END_TO_END_SECONDS.observe(each)
        self._requests = self._instances = 0
        self._seconds.clear()


class Turn(Protocol):
    """A request whose body is here, and that waits for its answer."""

    def answer(self, answer: Answer, every: Headers) -> None:
        """Sends it, with the headers `every`, unless the client has gone."""


class Front:
    """Around `app`: the outermost app under `python service.py`, a middleware under `bentoml serve`.

    `info` is what `/info` says, `max_body` the largest body in bytes, `onward` where a unit that is not the last one
    sends what it has made, `interfaces` further routes.
    """

    def __init__(  # noqa: PLR0913
        self,
        app: App,
        worker: Worker,
        info: dict[str, Any],
        max_body: int,
        onward: Onward | None = None,
        leaving: Leaving | None = None,
        interfaces: Sequence[Interface] = (),
    ) -> None:
        self._app = app
        self._interfaces = interfaces
        self._worker = worker
        self._max_body = max_body
        self._onward = onward
        self._leaving = leaving or Leaving()
        self._tally = Tally()
        self._headers = release_header(str(info["release"]))
        self._probes: dict[str, Callable[[], Answer]] = {
            "/livez": lambda: shown(200, {"live": True}),
            "/readyz": lambda: readiness(worker.reason),
            "/metrics": lambda: Answer(200, metrics.exposition(), metrics.CONTENT_TYPE.encode()),
            "/info": lambda: shown(200, info),
        }

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            headers = dict(scope["headers"])
            interface, kinds = self._find(scope["path"])
            refused = check_headers(headers, self._max_body, kinds)
            if refused:
                await read_body(receive, self._max_body)  # a client that still sends would not see the answer
                raise refused
            answer: Answer | None
            if interface is None:
                answer = await self._answer(scope, headers, receive)
            else:
                answer = await interface.answer(self._request(scope, headers, receive))
        except Refused as refused:
            answer = error_answer(refused.status, str(refused))
        if answer is None:
            await self._app(scope, receive, guarded(send, self._every))
        else:
            await respond(send, answer, self._every())

    def shortly(self, headers: Headers, body: bytes, turn: Turn) -> bool:
        """Whether `turn`, a `POST /predict`, gets its answer without a task of its own: when it asks for nothing but
        that, in JSON. All else is for `__call__`, which answers this one the same."""
        given = dict(headers)
        if (
            given.get(b"content-type") != bodies.JSON
            or not WISHES.isdisjoint(given)
            or check_headers(given, self._max_body)
        ):
            return False
        if self._onward is not None or self._worker.reason or self._worker.full:
            return False
        arrived = time.perf_counter()
        try:
            instances = parse(body)
        except Refused as refused:
            turn.answer(error_answer(refused.status, str(refused)), self._every())
            return True

        def answer(outcomes: Outcomes) -> None:
            made = unknown_failure() if isinstance(outcomes, Exception) else in_short(outcomes)
            turn.answer(made, self._every())
            self._tally.answered(time.perf_counter() - arrived)

        self._worker.submit(instances, answer)
        self._tally.taken(len(instances))
        return True

    def _find(self, path: str) -> tuple[Interface | None, Collection[bytes]]:
        """Who answers `path`, and the content types that it takes."""
        if path == "/predict":
            return None, PREDICT
        if path not in self._probes:
            for interface in self._interfaces:
                if (kinds := interface.kinds(path)) is not None:
                    return interface, kinds
        return None, JSON

    def _request(self, scope: Message, headers: dict[bytes, bytes], receive: Receive) -> Request:
        body = partial(read_body, receive, self._max_body)
        return Request(scope["method"], scope["path"], scope["query_string"], headers, body)

    def _every(self) -> Headers:
        """What every answer says."""
        return [*self._headers, CLOSE] if self._leaving.now else self._headers

    async def _answer(self, scope: Message, headers: dict[bytes, bytes], receive: Receive) -> Answer | None:
        """None: the route is not one of ours."""
        path = scope["path"]
        if path == "/predict":
            require_method(scope["method"], path, "POST")
            return await self._predict(scope["query_string"], headers, receive)
        if path in self._probes:
            require_method(scope["method"], path, "GET", "HEAD")
            if path == "/readyz" and scope["query_string"] == b"chain=true" and self._onward:
                return readiness(self._worker.reason or await self._onward.ready())
            return self._probes[path]()
        return None

    async def _predict(self, query: bytes, headers: dict[bytes, bytes], receive: Receive) -> Answer:
        arrived = time.perf_counter()
        wished = wish(query, headers)
        with metrics.IN_FLIGHT.track_inprogress():
            body = await read_body(receive, self._max_body)
            kind = headers.get(b"content-type", bodies.JSON)
            if kind == bodies.JSON:
                instances = parse(body)
            else:
                instances = await bodies.read(kind_of(kind), body, self._worker.plain)
            answer = await predict(self._worker, self._onward, instances, wished)
        metrics.END_TO_END_SECONDS.observe(time.perf_counter() - arrived)
        return answer


def readiness(reason: str) -> Answer:
    return shown(503, {"ready": False, "reason": reason}) if reason else shown(200, {"ready": True})


def check_headers(headers: Mapping[bytes, bytes], max_body: int, kinds: Collection[bytes] = JSON) -> Refused | None:
    """What is wrong: a content type that is not of `kinds`, an encoding, or a length over `max_body`."""
    kind = headers.get(b"content-type")
    if kind is not None and kind_of(kind) not in kinds:
        return Refused(415, f"Content-Type is {kind.decode('latin-1')!r}; send {_listed(kinds)}")
    if headers.get(b"content-encoding", b"identity") != b"identity":
        return Refused(415, "Content-Encoding is not supported; send the body as it is")
    if int(headers.get(b"content-length", b"0")) > max_body:
        return _too_large(max_body)
    if kind is None and (b"content-length" in headers or b"transfer-encoding" in headers) and NO_KIND not in kinds:
        return Refused(415, f"there is no Content-Type; send {_listed(kinds)}")
    return None


def _listed(kinds: Collection[bytes]) -> str:
    return " or ".join(sorted(kind.decode() for kind in kinds if kind != NO_KIND))


def kind_of(content_type: bytes) -> bytes:
    """Without parameters, in lower case."""
    return content_type.partition(b";")[0].strip().lower()


def require_method(method: str, path: str, *allowed: str) -> None:
    if method not in allowed:
        raise Refused(405, f"{path} takes {' or '.join(allowed)}, got {method}")


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
                await respond(send, error_answer(message["status"], text), every())
                return
            added = [(b"content-security-policy", POLICY), *every()]
            message = {**message, "headers": [*message["headers"], *added]}
        if not replaced:
            await send(message)

    return pass_on


async def respond(send: Send, answer: Answer, every: Headers) -> None:
    await send({"type": "http.response.start", "status": answer.status, "headers": headers_of(answer, every)})
    await send({"type": "http.response.body", "body": answer.body})


def headers_of(answer: Answer, every: Headers) -> Headers:
    headers = [(b"content-type", answer.kind), (b"content-length", b"%d" % len(answer.body)), *answer.headers, *every]
    if answer.status in UNREAD and CLOSE not in headers:  # the rest of the body is not worth waiting for
        headers.append(CLOSE)
    return headers


def release_header(release: str) -> Headers:
    return [(RELEASE, release.encode())] if release and release.isascii() and release.isprintable() else []


def _too_large(limit: int) -> Refused:
    return Refused(413, f"the body is larger than {limit} bytes (MLPACKER_MAX_BODY_MIB sets how much may be sent)")
