"""The parts that descriptions of routes are made of: schemas of bodies, and answers by status; standard library only.

OpenAPI 3.0, which is what the page that shows it knows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .contract import Tensor

Schema = dict[str, Any]

JSON, BINARY = "application/json", "application/octet-stream"
ANY: Schema = {}
TEXT: Schema = {"type": "string"}
BYTES: Schema = {"type": "string", "format": "binary"}
FLAG: Schema = {"type": "boolean"}
CELLS = {"BOOL": FLAG, "BYTES": TEXT}  # all else are numbers
DATATYPES = (
    *("BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64"),
    *("FP16", "FP32", "FP64", "BYTES"),
)

WORDS = {
    400: "What was sent is not as described, or does not fit the model.",
    401: "No key, or none of the unit's.",
    404: "There is no such step, model, version or operation.",
    405: "The route takes another method.",
    408: "The body was not here in time.",
    413: "The body is too large.",
    415: "The route takes another content type.",
    422: "What was sent does not fit the schema or the model.",
    429: "Too much waits here or at a unit behind; come again later.",
    500: "A step failed.",
    502: "The next unit of the pipeline cannot be reached.",
    503: "Not ready, here or at a unit behind.",
    504: "No answer in the time that the caller or a link gives.",
}
HEADERS = {
    401: {"www-authenticate": {"required": True, "schema": TEXT}},
    405: {"allow": {"required": True, "schema": TEXT}},
    429: {"retry-after": {"required": True, "schema": {"type": "string", "pattern": "^[0-9]+$"}}},
}
MADE_BY = {"mlpacker-model": {"description": "The models that made it: step=version, by commas.", "schema": TEXT}}


def ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def some(properties: Mapping[str, Schema], *required: str, **more: Any) -> Schema:
    """An object."""
    needed = {"required": list(required)} if required else {}
    return {"type": "object", "properties": dict(properties), **needed, **more}


def many(items: Schema, **more: Any) -> Schema:
    return {"type": "array", "items": items, **more}


def either(*schemas: Schema) -> Schema:
    """Any of them; each once."""
    found = [each for place, each in enumerate(schemas) if each not in schemas[:place]]
    if ANY in found:
        return ANY
    return found[0] if len(found) == 1 else {"anyOf": found}


def optional(schema: Schema) -> Schema:
    """Or null, which is as if it were not there."""
    return {**schema, "nullable": True}


ERROR = some({"error": TEXT}, "error")
ACUMOS_ERROR = some(
    {"status": {"type": "string", "enum": ["bad request", "failed"]}, "message": TEXT}, "message", "status"
)

TENSOR_IN = some(
    {
        "name": TEXT,
        "shape": many({"type": "integer", "minimum": 0}, minItems=1, maxItems=32),
        "datatype": {"type": "string", "enum": list(DATATYPES)},
        "data": many(ANY, description="Flat or nested, row by row."),
        "parameters": optional(
            some({"binary_data_size": optional({"type": "integer", "minimum": 0}), "content_type": TEXT})
        ),
    },
    *("name", "shape", "datatype"),
)
OUTPUT = some(
    {"name": {"type": "string", "enum": ["predict"]}, "parameters": optional(some({"binary_data": FLAG}))}, "name"
)
INFER = some(
    {
        "id": optional({"type": "string", "maxLength": 1024}),
        "parameters": optional(some({"binary_data_output": FLAG})),
        "inputs": many(TENSOR_IN, minItems=1),
        "outputs": optional(many(OUTPUT)),
    },
    "inputs",
)
TENSOR_OUT = some(
    {
        "name": TEXT,
        "shape": many({"type": "integer"}),
        "datatype": {"type": "string", "enum": list(DATATYPES)},
        "data": many(ANY),
        "parameters": some({"binary_data_size": {"type": "integer"}, "content_type": TEXT}),
    },
    *("name", "shape", "datatype"),
)
INFERRED = some(
    {"model_name": TEXT, "model_version": TEXT, "id": TEXT, "outputs": many(TENSOR_OUT)},
    *("model_name", "model_version", "id", "outputs"),
)
DESCRIBED = some({"name": TEXT, "datatype": TEXT, "shape": many({"type": "integer"})}, "name", "datatype", "shape")
MODEL = some(
    {
        "name": TEXT,
        "versions": many(TEXT, minItems=1),
        "platform": TEXT,
        "inputs": many(DESCRIBED),
        "outputs": many(DESCRIBED),
    },
    *("name", "versions", "platform", "inputs", "outputs"),
)
INDEX = many(some({"name": TEXT, "version": TEXT, "state": TEXT, "reason": TEXT}, "name", "state", "reason"))

COMMON = {"Error": ERROR, "AcumosError": either(ACUMOS_ERROR, ERROR), "Infer": INFER, "Inferred": INFERRED}


def instance(takes: Tensor | None, columns: Sequence[str]) -> Schema:
    """One instance of a model that takes that: nested lists, or an object by the names of its columns, or an object
    that carries one and comes back with the answer in it. Anything, where that is not known."""
    if takes is None:
        return ANY
    cell = CELLS.get(takes.datatype, {"type": "number"})
    row = cell
    for length in reversed(takes.shape[1:]):
        row = many(row) if length < 0 else many(row, minItems=length, maxItems=length)
    plain = [row, cell] if takes.shape[1:] == (1,) else [row]
    named = some(dict.fromkeys(columns, cell), *columns, additionalProperties=False)
    return either(*plain, *([named] if columns else []), some({"data": row}, "data"))


def content(schemas: Mapping[str, Schema]) -> dict[str, Any]:
    return {kind: {"schema": schema} for kind, schema in schemas.items()}


def answers(good: Mapping[str, Any], statuses: Iterable[int], error: str = "Error") -> dict[str, Any]:
    """The responses of an operation: `good` ones by status, and errors."""
    return {**good, **{str(status): failed(status, error) for status in sorted(statuses)}}


def failed(status: int, error: str = "Error") -> dict[str, Any]:
    headers = {"headers": HEADERS[status]} if status in HEADERS else {}
    return {"description": WORDS[status], **headers, "content": content({JSON: ref(error)})}


def good(text: str, schema: Schema, kind: str = JSON, **more: Any) -> dict[str, Any]:
    return {"200": {"description": text, "content": content({kind: schema}), **more}}
