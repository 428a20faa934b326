"""The bodies of `infer`: from a request to instances, from predictions to its answer, in JSON or with binary tensors.

Imported with the first such request, since it imports numpy.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from .oip import OUTPUT
from .oip_tensors import Array, Tail, Tensor, read, rows, tensor
from .predict import Answer, Refused

__all__ = ["LENGTH", "OUTPUT", "Inference", "answer", "parse"]

LENGTH = b"inference-header-content-length"
OCTETS = b"application/octet-stream"
ID_MOST = 1024
_KINDS = {"dict": "an object", "list": "a list", "str": "a text"}
_NUMPY = orjson.OPT_SERIALIZE_NUMPY


@dataclass(frozen=True, slots=True)
class Inference:
    """What a request asks for. `binary`: whether the output tensor is to come as bytes behind the JSON."""

    id: str
    inputs: dict[str, Array]
    binary: bool

    def instances(self, plain: bool) -> list[Any]:
        """As `rows`; `Refused` when the inputs do not go together."""
        try:
            return rows(self.inputs, plain)
        except ValueError as error:
            raise Refused(400, str(error)) from None


def parse(body: bytes, length: bytes | None) -> Inference:
    """The request in `body`, whose JSON is `length` bytes long when binary tensors follow it; or `Refused`."""
    size = len(body) if length is None else _length(length, len(body))
    whole = memoryview(body)
    request = _object(whole[:size])
    parameters = _optional(request, "parameters", dict)
    tail = Tail(whole[size:])
    inputs = _inputs(request, tail)
    if tail.left:
        raise Refused(400, f"{tail.left} bytes more than the inputs' binary_data_size say")
    asked = _optional(request, "id", str)
    if len(asked) > ID_MOST:
        raise Refused(400, f"id has {len(asked)} characters, at most {ID_MOST} are taken")
    return Inference(asked or uuid.uuid4().hex, inputs, _binary(request, parameters))


def answer(head: Mapping[str, Any], predictions: Sequence[Any], binary: bool) -> Answer:
    """`head` is what comes before the outputs. `TypeError` or `ValueError` for what no tensor can hold."""
    made: Tensor = tensor(predictions)
    if not binary:
        body = orjson.dumps({**head, "outputs": [{"name": OUTPUT, **made.in_json()}]}, None, _NUMPY)
        return Answer(200, body)
    described, data = made.in_binary()
    start = orjson.dumps({**head, "outputs": [{"name": OUTPUT, **described}]})
    return Answer(200, start + data, OCTETS, ((LENGTH, b"%d" % len(start)),))


def _length(given: bytes, most: int) -> int:
    if not given.isdigit() or len(given) > 12 or int(given) > most:
        text = f"Inference-Header-Content-Length is {given.decode('latin-1')[:40]!r}"
        raise Refused(400, f"{text}; it is how many of the body's {most} bytes are its JSON")
    return int(given)


def _object(data: memoryview) -> dict[str, Any]:
    try:
        request = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise Refused(400, f"the body is not JSON: {error}") from None
    if not isinstance(request, dict):
        raise Refused(400, 'expected {"inputs": [tensor, …]}')
    return request


def _inputs(request: Mapping[str, Any], tail: Tail) -> dict[str, Array]:
    given = request.get("inputs")
    if not isinstance(given, list) or not given:
        raise Refused(400, 'expected {"inputs": [tensor, …]}, one at least')
    inputs: dict[str, Array] = {}
    for place, each in enumerate(given):
        if not isinstance(each, dict) or not isinstance(each.get("name"), str):
            raise Refused(400, f'inputs[{place}]: expected {{"name", "shape", "datatype", "data"}}')
        if each["name"] in inputs:
            raise Refused(400, f"inputs[{place}]: a second input {each['name']!r}")
        try:
            inputs[each["name"]] = read(each, tail)
        except ValueError as error:
            raise Refused(400, f"input {each['name']!r}: {error}") from None
    return inputs


def _binary(request: Mapping[str, Any], parameters: Mapping[str, Any]) -> bool:
    """Whether the output is wanted as bytes: what it says itself counts more than what the request says."""
    binary = parameters.get("binary_data_output", False)
    for each in _optional(request, "outputs", list):
        name = each.get("name") if isinstance(each, dict) else None
        if name != OUTPUT:
            raise Refused(400, f"there is no output {str(name)[:80]!r}, only {OUTPUT!r}")
        binary = _optional(each, "parameters", dict).get("binary_data", binary)
    if type(binary) is not bool:
        raise Refused(400, "binary_data and binary_data_output are true or false")
    return binary


def _optional(request: Mapping[str, Any], key: str, kind: type[Any]) -> Any:
    """`request[key]`, or an empty one of its kind; null is as if it were not there."""
    found = request.get(key)
    if found is not None and not isinstance(found, kind):
        raise Refused(400, f"{key} is not {_KINDS[kind.__name__]}")
    return found or kind()
