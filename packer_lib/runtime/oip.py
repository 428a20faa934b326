"""The Open Inference Protocol v2 over HTTP, with its model repository and binary tensor extensions.

    GET  /v2, /v2/                                            name, version, extensions
    GET  /v2/health/live, /v2/health/ready
    GET  /v2/models/NAME[/versions/VERSION]                   what it is
    GET  /v2/models/NAME[/versions/VERSION]/ready
    POST /v2/models/NAME[/versions/VERSION]/infer
    POST /v2/repository/index                                 {"ready": true}: those that are ready
    POST /v2/repository/models/NAME/load, …/unload            refused: see the admin port, admin/repository.py

NAME is a step, whose version is the start of its model's sha256, its number or its label (`stable`, `candidate`); or
the pipeline's id: the whole chain from this unit on, whose version is the release or a label. What has neither is of
version 1. Without a version it is the one that is live. A step called like the pipeline is meant as that.

The rows of one input tensor are the instances; of several inputs, objects of their rows by name. The answer is one
tensor, `predict`. Errors are `{"error": "…"}`, statuses as those of `/predict`.

A request may come without a content type: `tritonclient` sends none. `infer` takes JSON under either of the two.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Mapping
from dataclasses import replace
from importlib import import_module
from typing import Any

import orjson

from . import metrics
from .contract import Tensor
from .front import Request
from .links import Onward
from .manifest import Manifest, StepSpec
from .oip_infer import KINDS, Infer, Model, answered
from .predict import Answer, Refused, attempt, error_answer, wish
from .short import Short
from .wanted import CANDIDATE, STABLE, Staged
from .worker import Worker

EXTENSIONS = ("model_repository", "binary_tensor_data")
ROUTES = "/v2, /v2/health/live|ready, /v2/models/NAME[/versions/VERSION][/ready|/infer], /v2/repository/index"
NO_VERSION = "1"
LABELS = (STABLE, CANDIDATE)
SHOWN = ("version", "state", "reason", "number", "label")  # of a version, in the index
INPUT, OUTPUT = "input-0", "predict"  # whatever an only input is called, it is taken
PLATFORMS = {"scikit-learn": "sklearn"}
FORMATS = {"onnx": "onnxv1"}  # as the specification has it
REMEDY = (
    "models are not loaded on this port but on the unit's admin port (MLPACKER_ADMIN_PORT, with MLPACKER_TOKEN); or run"
    " `mlpacker deploy` or `mlpacker swap`"
)


class OpenInference:
    """`info` is what `/info` says: versions and release are read from it with each request, as they may change."""

    def __init__(self, manifest: Manifest, worker: Worker, onward: Onward | None, info: Mapping[str, Any]) -> None:
        self._manifest, self._worker, self._onward, self._info = manifest, worker, onward, info
        self.bodies: Any = None

    def kinds(self, path: str) -> Collection[bytes] | None:
        return KINDS if path == "/v2" or path.startswith("/v2/") else None

    def predicts(self, path: str) -> bool:
        return path.rstrip("/").endswith("/infer")

    def short(self) -> dict[bytes, Short]:
        """`infer` of the models that are live, by its URL."""
        return {
            f"/v2/models/{name}/infer".encode(): Infer(lambda: self.bodies, model)
            for name, model in self._models().items()
        }

    async def answer(self, request: Request) -> Answer:
        match request.path.strip("/").split("/")[1:]:
            case []:
                return _get(request, {"name": "mlpacker", "version": self._release(), "extensions": EXTENSIONS})
            case ["health", "live"]:
                return _get(request, {"live": True})
            case ["health", "ready"]:
                return _readiness(request, {}, self._worker.unready)
            case ["models", name, *rest]:
                return await self._model(request, name, rest)
            case ["repository", *rest]:
                return await self._repository(request, rest)
        raise _nowhere(request)

    async def _model(self, request: Request, name: str, rest: list[str]) -> Answer:
        match rest:
            case ["versions", version, *action]:
                model = self._find(name, version)
            case action:
                model = self._find(name)
        match action:
            case []:
                return _get(request, {**_described(model), **self._tensors(model)})
            case ["ready"]:
                reason = self._worker.unready or ("" if model.step or not self._onward else await self._onward.ready())
                return _readiness(request, {"name": name}, reason)
            case ["infer"]:
                return await self._infer(request, model)
        raise _nowhere(request)

    # ── models ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _models(self) -> dict[str, Model]:
        live = {each["step"]: each["version"] for each in self._info["models"]}
        found = {step.name: self._of_step(step, live.get(step.name) or NO_VERSION) for step in self._manifest.steps}
        pipeline, plain = self._manifest.pipeline, any(map(_plain, self._manifest.entries()))
        return {**found, pipeline: Model(pipeline, self._release(), "", "mlpacker_pipeline", plain)}

    def _of_step(self, step: StepSpec, live: str) -> Model:
        rows = tuple(row for row in self._info.get("versions", ()) if row["step"] == step.name)
        return Model(step.name, live, step.name, _platform(step), _plain(step), rows=rows)

    def _tensors(self, model: Model) -> dict[str, Any]:
        """Its inputs and outputs, as far as they are known."""
        takes, gives = self._worker.tensors(model.step)
        columns = self._worker.columns(model.step)
        whole = model.step or self._onward is None
        return {
            "inputs": _shown(INPUT, takes, {"parameters": {"columns": columns}} if columns else {}),
            "outputs": _shown(OUTPUT, gives if whole else None, {}),
        }

    def _release(self) -> str:
        return self._info["release"] or NO_VERSION

    def _find(self, name: str, version: str | None = None) -> Model:
        models = self._models()
        if name not in models:
            raise Refused(404, f"there is no model {name!r}, only {', '.join(models)}")
        model = models[name]
        if version in (None, model.version):
            return model
        if not model.step and version in LABELS:
            return replace(model, asked=version)
        row = next((row for row in model.rows if row["state"] == "READY" and _is_called(row, version)), None)
        if row is None:
            raise Refused(404, f"model {name!r} has no version {version!r}, only {', '.join(_versions(model))}")
        return replace(model, version=row["version"], asked=row["version"])

    # ── inference ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _infer(self, request: Request, model: Model) -> Answer:
        request.require("POST")
        arrived = time.perf_counter()
        wished = replace(
            wish(request.query, request.headers),
            outcomes=False,
            step=model.step,
            alone=bool(model.step),
            version=model.asked,
        )
        with metrics.IN_FLIGHT.track_inprogress():
            body = await request.body()
            bodies = await self._loaded()
            asked = bodies.parse(body, request.headers.get(bodies.LENGTH))
            outcomes = await attempt(self._worker, self._onward, asked.instances(model.plain), wished)
            made = answered(bodies, asked, model, outcomes, wished.trace)
        metrics.END_TO_END_SECONDS.observe(time.perf_counter() - arrived)
        return made

    async def _loaded(self) -> Any:
        """The module that knows the bodies; it imports numpy, for which the event loop is not to stand still."""
        if self.bodies is None:
            self.bodies = await asyncio.to_thread(import_module, ".oip_bodies", __package__)
        return self.bodies

    # ── repository ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def _repository(self, request: Request, rest: list[str]) -> Answer:
        match rest:
            case ["index"]:
                request.require("POST")
                return self._index(_ready_only(await request.body()))
            case ["models", name, "load" | "unload" as action]:
                request.require("POST")
                return error_answer(400, f"{action} of {name!r}: {REMEDY}")
        raise _nowhere(request)

    def _index(self, ready_only: bool) -> Answer:
        reason = self._worker.unready
        state = {"": "READY", "loading": "LOADING", "stopping": "UNLOADING"}.get(reason, "UNAVAILABLE")
        shown = [] if ready_only and reason else self._models().values()
        rows = [row for each in shown for row in _rows(each, state, reason)]
        return Answer(200, orjson.dumps([row for row in rows if not ready_only or row["state"] == "READY"]))


def _versions(model: Model) -> list[str]:
    """That it can be asked for, the live one first."""
    found = [row["version"] for row in model.rows if row["state"] == "READY" and row["version"]]
    return found or [model.version]


def _is_called(row: Mapping[str, Any], name: str) -> bool:
    told = Staged("", row["sha256"], "", row["number"], row["label"])
    return told.is_called(name)


def _rows(model: Model, state: str, reason: str) -> list[dict[str, Any]]:
    """Of the index: what there is of `model`, also what could not be loaded. Not ready is a unit with all it has."""
    if not any(row["version"] for row in model.rows):
        return [{"name": model.name, "version": model.version, "state": state, "reason": reason}]
    rows = [{"name": model.name, **{key: row[key] for key in SHOWN}} for row in model.rows]
    return [{**row, "state": state, "reason": reason} if reason and row["state"] == "READY" else row for row in rows]


def _ready_only(body: bytes) -> bool:
    try:
        asked = orjson.loads(body or b"{}")
    except orjson.JSONDecodeError as error:
        raise Refused(400, f"the body is not JSON: {error}") from None
    only = asked.get("ready", False) if isinstance(asked, dict) else None
    if type(only) is not bool:
        raise Refused(400, 'expected {"ready": true or false}, or nothing')
    return only


def _described(model: Model) -> dict[str, Any]:
    return {"name": model.name, "versions": _versions(model), "platform": model.platform}


def _shown(name: str, tensor: Tensor | None, more: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"name": name, "datatype": tensor.datatype, "shape": tensor.shape, **more}] if tensor else []


def _platform(step: StepSpec) -> str:
    if step.kind == "code":
        return "python_function"
    return f"{PLATFORMS.get(step.framework, step.framework)}_{FORMATS.get(step.serializer, step.serializer)}"


def _plain(step: StepSpec) -> bool:
    return step.kind == "code"


def _get(request: Request, value: Any) -> Answer:
    request.require("GET", "HEAD")
    return Answer(200, orjson.dumps(value))


def _readiness(request: Request, head: dict[str, Any], reason: str) -> Answer:
    request.require("GET", "HEAD")
    said = {"error": f"not ready: {reason}"} if reason else {}
    return Answer(503 if reason else 200, orjson.dumps({**head, "ready": not reason, **said}))


def _nowhere(request: Request) -> Refused:
    return Refused(404, f"{request.path} is not one of {ROUTES}")
