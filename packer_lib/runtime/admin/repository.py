"""The model repository extension of the Open Inference Protocol, and uploads to it that are not base64 in JSON.

    POST /v2/repository/index                       every version: name, version, state, reason; number, label, sha256
    POST /v2/repository/models/STEP/load            what is wanted is loaded, again if need be;
                                                    with {"parameters": {"file:1/NAME": base64}}: that, and it is live
    POST /v2/repository/models/STEP/unload          its models are in no memory, the unit is not ready
    PUT  /v2/repository/models/STEP/versions        a model as the body: ?live=false stages it only,
                                                    ?sha256= and ?serializer= say what it has to be
    ?wait=SECONDS                                   of all that changes something: how long that may take

Source: triton-inference-server/server docs/protocol/extension_model_repository.md; `tritonclient[http]` as it is.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import orjson

from .. import wanted
from ..heads import NO_KIND
from ..predict import Answer, Refused, shown
from ..wanted import Staged
from ..worker import Worker
from . import arriving
from .asked import Asked
from .models import Models

WAIT_SECONDS, LONGEST_WAIT = 120.0, 600.0
BODIES = frozenset({b"application/octet-stream", NO_KIND})
DONE = Answer(200, b"")


class Repository:
    """`info` is what `/info` of this process says, `most` how large a model may be, in bytes."""

    def __init__(self, models: Models, info: dict[str, Any], worker: Worker, most: int) -> None:
        self._models, self._info, self._worker, self._most = models, info, worker, most

    async def answer(self, asked: Asked) -> Answer | None:
        match asked.path.strip("/").split("/"):
            case ["v2", "repository", "index"]:
                asked.require("POST")
                return self._index((await asked.value()).get("ready") is True)
            case ["v2", "repository", "models", name, "load"]:
                asked.require("POST")
                return await self._load(asked, name)
            case ["v2", "repository", "models", name, "unload"]:
                asked.require("POST")
                await asked.value()
                step = self._models.step(name).name
                await self._models.change(step, lambda want: wanted.unload(want, step), wait(asked))
                return DONE
            case ["v2", "repository", "models", name, "versions"]:
                asked.require("PUT")
                return await self._put(asked, name)
        return None

    def _index(self, ready_only: bool) -> Answer:
        rows = [{"name": row["step"], **row} for row in self._models.rows(self._info, self._worker.reason)]
        code = [step.name for step in self._models.manifest.steps if step.kind != "model"]
        reason = self._worker.reason
        rows += [
            {"name": name, "version": "1", "state": "LOADING" if reason else "READY", "reason": reason} for name in code
        ]
        return Answer(200, orjson.dumps([row for row in rows if not ready_only or row["state"] == "READY"]))

    async def _load(self, asked: Asked, name: str) -> Answer:
        step, data = self._models.step(name), _file((await asked.value()).get("parameters") or {})
        if data is None:
            await self._models.change(step.name, lambda want: wanted.load(want, step.name), wait(asked))
            return DONE
        async with arriving.file_in(self._models.state, self._most) as file:
            await asyncio.to_thread(file.write, data)
            await asyncio.to_thread(file.flush)
            serializer = await self._models.checked(step, file)
            await self._models.bring(step, file, serializer, wait(asked), live=True)
        return DONE

    async def _put(self, asked: Asked, name: str) -> Answer:
        step, live, seconds = self._models.step(name), asked.flag("live", True), wait(asked)
        asked.require_kind(BODIES, self._most)
        async with arriving.file_in(self._models.state, self._most) as file:
            await arriving.raw(asked.receive, file)
            given = asked.query.get("serializer", ""), asked.query.get("sha256", "")
            serializer = await self._models.checked(step, file, *given)
            model = await self._models.bring(step, file, serializer, seconds, live)
        return shown(200, said(step.name, model))


def wait(asked: Asked) -> float:
    return asked.seconds("wait", WAIT_SECONDS, LONGEST_WAIT)


def said(step: str, model: Staged) -> dict[str, Any]:
    """What answers say of a version; a path is nobody's business."""
    told = asdict(model)
    del told["path"]
    return {"step": step, "version": model.version, **told}


def _file(parameters: Mapping[str, Any]) -> bytes | None:
    """The model among the `parameters` of `load`; None: there is none. `Refused` for what cannot be done."""
    files = [name for name in parameters if name.startswith("file:")]
    if unknown := sorted(set(parameters) - {"config", *files}):
        raise Refused(400, f"there is no parameter {unknown[0][:60]!r}; there is config, and file:1/NAME")
    if len(files) > 1:
        raise Refused(400, f"a model is one file, and there are {len(files)}")
    try:
        if not isinstance(orjson.loads(parameters.get("config") or "{}"), dict):
            raise ValueError("it is no object")
    except (TypeError, ValueError) as error:
        raise Refused(400, f"config is not the JSON of an object: {error}") from None
    if not files:
        if parameters.get("config"):
            raise Refused(400, "a config without a file changes nothing here: what a step is, the PADL file says")
        return None
    try:
        return base64.b64decode(parameters[files[0]], validate=True)
    except (TypeError, ValueError, binascii.Error) as error:
        raise Refused(400, f"{files[0][:60]} is not base64: {error}") from None
