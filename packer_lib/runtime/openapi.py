"""The OpenAPI document of one unit: its steps, its models with their versions, what they take, and every status.

    GET /openapi.json, /docs.json     the same; the page at / shows it

Made at each request, since models are swapped. Standard library only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from . import openapi_schemas as schemas
from .manifest import Manifest
from .modelrunner.routes import PREFIX, ROUTES, Route
from .openapi_schemas import ANY, BINARY, BYTES, FLAG, JSON, TEXT, Schema, answers, content, good, many, ref, some
from .worker import Worker

VERSION = "3.0.3"
KEY = "key"
READ = (405, 413, 415)  # of every route, read by the front before it looks at anything else
SENT = (400, *READ, 408, 429)
PREDICTS = (*SENT, 500, 503, 504)
CSV, NPY, FORM = "text/csv", "application/x-npy", "multipart/form-data"
MESSAGES = ("application/x-protobuf", "application/vnd.google.protobuf")
REMAINING = "With the header `mlpacker-remaining-ms` there is an answer within so many milliseconds, 504 if need be."

Paths = dict[str, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Described:
    """`info` is what `/info` says; `keys`: whether the unit asks for one."""

    manifest: Manifest
    worker: Worker
    info: Mapping[str, Any]
    keys: bool


def document(unit: Described) -> dict[str, Any]:
    """As JSON has it."""
    made: dict[str, Any] = {
        "openapi": VERSION,
        "info": {
            "title": unit.manifest.unit,
            "version": unit.info["release"] or "1",
            "description": f"A unit of the pipeline {unit.manifest.pipeline}. {REMAINING}",
        },
        "paths": {**_predict(unit), **_inference(unit), **_invocations(unit), **_acumos(unit), **_every()},
        "components": {"schemas": schemas.COMMON},
    }
    if unit.keys:
        made["components"]["securitySchemes"] = {KEY: {"type": "http", "scheme": "bearer"}}
    return made


# ── what predicts ────────────────────────────────────────────────────────────────────────────────────────────────────


def _asks(
    unit: Described, tag: str, body: Mapping[str, Schema], responses: dict[str, Any], **more: Any
) -> dict[str, Any]:
    """A POST that predicts: with the key, where the unit asks for one."""
    if unit.keys:
        more["security"] = [{KEY: []}]
        responses = {**responses, "401": schemas.failed(401)}
    if unit.manifest.links:
        responses = {**responses, "502": schemas.failed(502)}
    asked = {"required": True, "content": content(body)}
    return {"post": {"tags": [tag], "requestBody": asked, "responses": responses, **more}}


def _predict(unit: Described) -> Paths:
    steps = [step.name for step in unit.manifest.steps]
    body = some({"data": many(_instance(unit))}, "data")
    if examples := [step.test["input"] for step in unit.manifest.entries() if step.test]:
        body["example"] = {"data": examples[:1]}
    text = "One prediction per instance, in the same order; null where a step dropped it."
    made = some({"predictions": many({**ANY, "nullable": True})}, "predictions")
    operation = _asks(
        unit,
        "predict",
        {JSON: body, CSV: TEXT, NPY: BYTES},
        answers(good(text, made, headers=schemas.MADE_BY), (*PREDICTS, 404)),
        summary=f"Asks {' → '.join(steps)}{', and the units behind' if unit.manifest.links else ''}",
        parameters=[
            _query("step", {"type": "string", "enum": steps}, "That step alone."),
            _query("alone", TEXT, "true: this unit alone, not those behind it."),
            _query(
                "version",
                TEXT,
                "Of its models: candidate, a sha256 or, of a step, a number.",
            ),
        ],
    )
    return {"/predict": operation}


def _instance(unit: Described) -> Schema:
    """Of the chain, or of any step that may be asked by its name."""
    found = [schemas.instance(unit.worker.tensors(name)[0], unit.worker.columns(name)) for name in ("", *_names(unit))]
    return schemas.either(*found)


def _names(unit: Described) -> tuple[str, ...]:
    return tuple(step.name for step in unit.manifest.steps)


def _inference(unit: Described) -> Paths:
    server = some({"name": TEXT, "version": TEXT, "extensions": many(TEXT)}, "name", "version", "extensions")
    paths: Paths = {
        "/v2": _get("oip", "The server", good("What it is.", server)),
        "/v2/health/live": _get("oip", "Liveness", good("It lives.", some({"live": FLAG}, "live"))),
        "/v2/health/ready": _get("oip", "Readiness", _ready(some({"ready": FLAG}, "ready"))),
        "/v2/repository/index": _index(),
    }
    for name, versions in _models(unit).items():
        for place in (
            f"/v2/models/{quote(name)}",
            *(f"/v2/models/{quote(name)}/versions/{quote(v)}" for v in versions),
        ):
            paths |= _model(unit, place)
    return paths


def _models(unit: Described) -> dict[str, list[str]]:
    """The versions of each that can be asked for."""
    found: dict[str, list[str]] = {name: [] for name in _names(unit)}
    for row in (*unit.info["models"], *unit.info.get("versions", ())):
        if row["version"] and row.get("state", "READY") == "READY" and row["version"] not in found[row["step"]]:
            found[row["step"]].append(row["version"])
    return {**{name: versions or ["1"] for name, versions in found.items()}, unit.manifest.pipeline: [_release(unit)]}


def _release(unit: Described) -> str:
    return unit.info["release"] or "1"


def _model(unit: Described, place: str) -> Paths:
    """A version, or none, of one model: a swap may have taken it since it was described, which is 404."""
    ready = some({"name": TEXT, "ready": FLAG}, "name", "ready")
    inferred = good("One tensor of all predictions.", ref("Inferred"), headers=schemas.MADE_BY)
    inferred["200"]["content"] |= content({BINARY: BYTES})
    text = "The rows of one tensor are the instances, or there is a tensor per column. Binary tensors come behind the"
    text += " JSON, whose length the header `Inference-Header-Content-Length` says then."
    return {
        place: _get("oip", "What it is", good("What it is.", schemas.MODEL), 404),
        f"{place}/ready": _get("oip", "Readiness", _ready(ready), 404),
        f"{place}/infer": _asks(
            unit,
            "oip",
            {JSON: ref("Infer"), BINARY: BYTES},
            answers(inferred, (*PREDICTS, 404)),
            summary="Infer",
            description=text,
        ),
    }


def _index() -> dict[str, Any]:
    body = {"required": False, "content": content({JSON: some({"ready": FLAG})})}
    responses = answers(good("The models of the unit.", schemas.INDEX), SENT)
    return {"post": {"tags": ["oip"], "summary": "Models", "requestBody": body, "responses": responses}}


def _invocations(unit: Described) -> Paths:
    rows, names = many(many(ANY)), many(ANY)
    split = some({"columns": schemas.optional(names), "index": ANY, "data": rows}, "data")
    forms: dict[str, Schema] = {
        "dataframe_split": split,
        "dataframe_records": many({"type": "object"}),
        "instances": many(ANY),
        "inputs": schemas.either(many(ANY), {"type": "object", "additionalProperties": many(ANY)}),
    }
    body = {"oneOf": [some({name: form}, name) for name, form in forms.items()]}
    made = some({"predictions": many({**ANY, "nullable": True})}, "predictions")
    text = good("One prediction per row.", made, headers=schemas.MADE_BY)
    state = good("It can answer.", TEXT, "text/plain")
    return {
        "/invocations": _asks(unit, "mlflow", {JSON: body, CSV: TEXT}, answers(text, PREDICTS), summary="Score"),
        "/ping": _get("mlflow", "Readiness", answers(state, (503,))),
        "/health": _get("mlflow", "Readiness", answers(state, (503,))),
        "/version": _get("mlflow", "Of the protocol", good("Of the protocol.", TEXT, "text/plain")),
    }


def _acumos(unit: Described) -> Paths:
    """Those that change the unit are on its admin port."""
    shown = {path: route for path, route in ROUTES.items() if route.verb == "POST"}
    paths = {f"{prefix}{path}": _form(unit, route) for prefix in ("", PREFIX) for path, route in shown.items()}
    message = {**dict.fromkeys(MESSAGES, BYTES)}
    statuses = (*PREDICTS, 404, 422)
    for prefix in ("", PREFIX):
        operation = _asks(unit, "acumos", message, _binary(statuses), summary="The output message of an input message")
        operation["post"]["parameters"] = [{"name": "operation", "in": "path", "required": True, "schema": TEXT}]
        paths[f"{prefix}/model/methods/{{operation}}"] = operation
    return paths


def _form(unit: Described, route: Route) -> dict[str, Any]:
    parts = {name: TEXT if name == "operation" else BYTES for name in (route.data, *route.beside)}
    needed = [name for name in parts if name not in ("operation", "model") or name == route.data]
    body = {FORM: some(parts, *needed)}
    text = "The output message" if route.predicts else "The input message"
    operation = _asks(unit, "acumos", body, _binary((*PREDICTS, 422)), summary=text)
    operation["post"]["parameters"] = [_query("operation", TEXT, "An rpc of the schema; or a part of the form.")]
    return operation


def _binary(statuses: tuple[int, ...]) -> dict[str, Any]:
    return answers(good("A message in protobuf.", BYTES, BINARY), statuses, "AcumosError")


# ── what is asked about the unit ─────────────────────────────────────────────────────────────────────────────────────


def _every() -> Paths:
    reason = some({"ready": FLAG, "reason": TEXT}, "ready")
    chain = [_query("chain", TEXT, "true: the units behind as well.")]
    return {
        "/livez": _get("unit", "Liveness", good("It lives.", some({"live": FLAG}, "live"))),
        "/readyz": _get("unit", "Readiness", _ready(reason), parameters=chain),
        "/metrics": _get("unit", "Metrics", good("In Prometheus's text format.", TEXT, "text/plain")),
        "/info": _get("unit", "What it is", good("Steps, models, release.", {"type": "object"})),
        "/openapi.json": _get("unit", "This document", good("This document.", {"type": "object"})),
    }


def _get(tag: str, summary: str, responses: Mapping[str, Any], *statuses: int, **more: Any) -> dict[str, Any]:
    """And HEAD, as with every route that is read."""
    found = answers(responses, (*READ, *statuses))
    bare = {status: {"description": each["description"]} for status, each in found.items()}
    head = {"tags": [tag], "summary": summary, "responses": bare, **more}
    return {"get": {**head, "responses": found}, "head": head}


def _ready(schema: Schema) -> dict[str, Any]:
    """503 says the same, with the reason."""
    not_yet = {"description": "Not ready, and why.", "content": content({JSON: schema})}
    return {**good("Ready.", schema), "503": not_yet}


def _query(name: str, schema: Schema, text: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "description": text, "schema": schema}
