"""The REST interface of Acumos' generic model runner, for every API unit: a `front.Interface`; standard library only.

At these paths and below `/modelrunner`; what a route's form has is in `ROUTES`. docs/acumos.md says what differs from
the original. What answers is imported at the first request, so that a unit that nobody asks this way never pays for it.

    POST /getBinary…              the input message of `operation` in protobuf, from a CSV or JSON file
    POST /transform…              the same, predicted: its output message
    POST /model/methods/{name}    output message from input message, both protobuf
    PUT  /model /proto /model/configuration    404 here: what changes a unit is on its admin port, see admin/acumos.py

Errors are `{"status": "bad request", "message": "…"}`: 400 a form that is none; 404; 405; 422 what does not fit the
schema or the model; 503 and 504 as `/predict`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..front import Request
from ..heads import require_method
from ..links import Onward
from ..predict import Answer, Refused
from ..worker import Worker

if TYPE_CHECKING:
    from .answers import Answers

PREFIX = "/modelrunner"
METHODS = "/model/methods/"
FORM = frozenset({b"multipart/form-data"})
# the body is protobuf whatever it calls itself, as in the original
MESSAGE = frozenset({b"application/x-protobuf", b"application/vnd.google.protobuf", b"application/json", b"text/plain"})
ELSEWHERE = (
    "what changes a unit is not on this port but on its admin port (MLPACKER_ADMIN_PORT, with MLPACKER_TOKEN);"
    " `mlpacker swap` needs none"
)


@dataclass(frozen=True, slots=True)
class Route:
    """`data` is the part of its form that it is about, `beside` those that may be there too; of a POST all of them but
    `model` and `operation` must be. `predicts`: it answers with the output message."""

    verb: str
    data: str
    beside: tuple[str, ...] = ()
    predicts: bool = False


ROUTES = {
    "/model": Route("PUT", "model", ("proto", "modelConfig")),
    "/proto": Route("PUT", "proto"),
    "/model/configuration": Route("PUT", "modelConfig"),
    "/getBinary": Route("POST", "csvFile", ("proto", "operation")),
    "/getBinaryDefault": Route("POST", "csvFile", ("operation",)),
    "/getBinaryJSON": Route("POST", "jsonFile", ("proto", "operation")),
    "/getBinaryJSONDefault": Route("POST", "jsonFile", ("operation",)),
    "/transformCSV": Route("POST", "csvFile", ("model", "proto", "operation"), predicts=True),
    "/transformCSVDefault": Route("POST", "csvFile", ("operation",), predicts=True),
    "/transformJSON": Route("POST", "jsonFile", ("model", "proto", "operation"), predicts=True),
    "/transformJSONDefault": Route("POST", "jsonFile", ("operation",), predicts=True),
}


@dataclass(frozen=True, slots=True)
class Backing:
    """What predicts: the unit's `worker` and what follows it. `plain`: its first step is a model, which takes lists
    rather than objects. `folder` is the bundle, `state` the state folder, `info` what `/info` says."""

    worker: Worker
    onward: Onward | None
    folder: Path
    state: Path
    plain: bool
    info: Mapping[str, Any]


class Later:
    """What answers, made at the first request: its libraries are not for the event loop to wait for."""

    def __init__(self, backing: Backing) -> None:
        self._backing = backing
        self._made: Answers | None = None
        self._lock = asyncio.Lock()

    async def __call__(self) -> Answers:
        async with self._lock:
            if self._made is None:
                self._made = await asyncio.to_thread(self._make)
            return self._made

    def _make(self) -> Answers:
        from .answers import Answers

        return Answers(self._backing)


class ModelRunner:
    """The routes of one unit."""

    def __init__(self, backing: Backing) -> None:
        self._answers = Later(backing)

    def kinds(self, path: str) -> Collection[bytes] | None:
        path = path.removeprefix(PREFIX)
        if path in ROUTES:
            return FORM
        return MESSAGE if path.startswith(METHODS) and "/" not in path[len(METHODS) :] else None

    def predicts(self, path: str) -> bool:
        """All but what changes the unit, which has a token of its own."""
        path = path.removeprefix(PREFIX)
        return path not in ROUTES or ROUTES[path].verb == "POST"

    async def answer(self, request: Request) -> Answer:
        path = request.path.removeprefix(PREFIX)
        try:
            verb = ROUTES[path].verb if path in ROUTES else "POST"
            if verb == "PUT":
                raise Refused(404, ELSEWHERE)
            require_method(request.method, path, verb)
            answers = await self._answers()
            if path not in ROUTES:
                return await answers.method(path[len(METHODS) :], request)
            return await answers.form(ROUTES[path], request)
        except Refused as refused:
            return refusal(refused)


def refusal(refused: Refused) -> Answer:
    """In Acumos' words."""
    word = "bad request" if refused.status < 500 else "failed"
    body = json.dumps({"status": word, "message": str(refused)}, ensure_ascii=False).encode()
    return Answer(refused.status, body, headers=refused.headers)
