"""The ASGI app in front: what predicts and the routes of every unit are answered here, all else by the app behind.

    POST /predict                        {"data": [instance, …]} → {"predictions": [value or null, …]}
                                         CSV: a line, .npy: a row of the array is an instance, see bodies.py
    GET  /livez /readyz /metrics /info   as every unit

A unit that others follow answers with what the last of them makes of it; `/predict?alone=true` asks this unit alone,
`/predict?step=NAME` one step of it, `/predict?version=…` another version of its models than is live: `candidate`, the
start of a sha256 or, of a step, a number.
`/readyz` is about this unit; `/readyz?chain=true` about those that follow as well. The header `mlpacker-remaining-ms`
says how long the caller waits: there is an answer by then, 504 if need be. `traceparent` and `tracestate` go on to the
units that follow, and a failure that is logged here names the trace. Every answer names its release in the header
`mlpacker-release`.

Errors are `{"error": "…"}`: 400 what is not as above, or an instance that does not fit (by its index); 401 no key; 405;
408 and 413 a body too slow or too large; 415 a content type that the route does not take; 429 too much waits, here or
further on, with `Retry-After`; 500 a step failed; 502 the next unit cannot be reached; 503 not loaded yet, here or
there; 504 no answer in time. What is not declared is refused on every route, so that nothing behind ever decodes it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from . import arrival, bodies, metrics
from .heads import CLOSE, JSON, NO_KIND, Headers, check_headers, headers_of, kind_of, release_header, require_method
from .keys import Keys
from .links import Onward
from .predict import Answer, Refused, error_answer, parse, predict, refusal, shown, wish
from .room import Busy, Room
from .short import Predict, Short, ShortWay
from .worker import Worker

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

BODY_SECONDS = 30.0
ROUTES = (
    "POST /predict, GET /livez, /readyz, /metrics, /info, /v2 (Open Inference Protocol), POST /invocations (MLflow)"
)
POLICY = b"default-src 'self' data:; style-src 'self' 'unsafe-inline'"
PREDICT = JSON | bodies.KINDS


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

    def predicts(self, path: str) -> bool:
        """Whether this route, one of these, asks for a key where the unit has any."""

    async def answer(self, request: Request) -> Answer:
        """To a request of one of these routes; raises `Refused`."""


class Front:
    """Around `app`: the outermost app under `python service.py`, a middleware under `bentoml serve`.

    `info` is what `/info` says, `max_body` the largest body in bytes, `onward` where a unit that is not the last one
    sends what it has made, `interfaces` further routes, `room` for all that waits, `keys` those of who may predict;
    `short` are routes of the interfaces that may go the short way, by their URLs.
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
        room: Room | None = None,
        keys: Keys | None = None,
        short: Mapping[bytes, Short] | None = None,
    ) -> None:
        self._app = app
        self._interfaces = interfaces
        self._worker = worker
        self._max_body = max_body
        self._onward = onward
        self._leaving = leaving or Leaving()
        self._room = room or Room(8 * max_body)
        self._keys = keys
        self._headers = release_header(str(info["release"]))
        routes = {} if onward else {b"/predict": Predict(), **(short or {})}  # the units behind are asked by tasks
        self.short = ShortWay(worker, routes, max_body, self._room, keys, self._every)
        self._probes: dict[str, Callable[[], Answer]] = {
            "/livez": lambda: shown(200, {"live": True}),
            "/readyz": lambda: readiness(worker.unready),
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
            if self._keys and (interface.predicts(scope["path"]) if interface else scope["path"] == "/predict"):
                refused = self._keys.refusal(headers) or refused
            if refused:
                await arrival.drop(receive, self._max_body)  # a client that still sends would not see the answer
                raise refused
            answer: Answer | None
            if interface is None:
                answer = await self._answer(scope, headers, receive)
            else:
                answer = await self._through(interface, scope, headers, receive)
        except (Refused, Busy) as error:
            answer = refusal(error)
        if answer is None:
            await self._app(scope, receive, guarded(send, self._every))
        else:
            await respond(send, answer, self._every())

    def _find(self, path: str) -> tuple[Interface | None, Collection[bytes]]:
        """Who answers `path`, and the content types that it takes."""
        if path == "/predict":
            return None, PREDICT
        if path not in self._probes:
            for interface in self._interfaces:
                if (kinds := interface.kinds(path)) is not None:
                    return interface, kinds
        return None, JSON

    async def _through(
        self, interface: Interface, scope: Message, headers: dict[bytes, bytes], receive: Receive
    ) -> Answer:
        """What `interface` answers; the body takes room from when it is read."""
        held: list[int] = []

        async def body() -> bytes:
            data = await read_body(receive, self._max_body, self._room)
            self._room.enter(len(data))
            held.append(len(data))
            return data

        try:
            return await interface.answer(Request(scope["method"], scope["path"], scope["query_string"], headers, body))
        finally:
            for size in held:
                self._room.leave(size)

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
                return readiness(self._worker.unready or await self._onward.ready())
            return self._probes[path]()
        return None

    async def _predict(self, query: bytes, headers: dict[bytes, bytes], receive: Receive) -> Answer:
        arrived = time.perf_counter()
        wished = wish(query, headers)
        with metrics.IN_FLIGHT.track_inprogress():
            body = await read_body(receive, self._max_body, self._room)
            size = len(body)
            self._room.enter(size)
            try:
                kind = headers.get(b"content-type", bodies.JSON)
                if kind == bodies.JSON:
                    instances = parse(body)
                else:
                    instances = await bodies.read(kind_of(kind), body, self._worker.plain)
                answer = await predict(self._worker, self._onward, instances, wished)
            finally:
                self._room.leave(size)
        metrics.END_TO_END_SECONDS.observe(time.perf_counter() - arrived)
        return answer


def readiness(reason: str) -> Answer:
    return shown(503, {"ready": False, "reason": reason}) if reason else shown(200, {"ready": True})


async def read_body(receive: Receive, limit: int, room: Room) -> bytes:
    """The whole body, or `Refused` when it is over `limit` bytes or not there in time, or `Busy`."""
    try:
        async with asyncio.timeout(BODY_SECONDS):
            message = await receive()
            if not message.get("more_body"):
                return arrival.part(message, 0, limit)
            return await arrival.rest(receive, message, limit, room)
    except TimeoutError:
        raise Refused(408, f"the body was not here within {BODY_SECONDS:.0f} s") from None


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
