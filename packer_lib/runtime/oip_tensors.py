"""Tensors of the Open Inference Protocol: from JSON or bytes to arrays, from predictions to tensors. Imports numpy.

    BOOL UINT8…UINT64 INT8…INT64 FP16 FP32 FP64   arrays of that type; binary: little-endian, row-major
    BYTES                                         arrays of texts; binary: each its length (4 bytes) and its UTF-8

BYTES whose `parameters.content_type` is "base64" are `bytes` to the step: JSON has them in base64, binary as they are.
The specifications: kserve/open-inference-protocol (REST), Triton's docs/protocol/extension_binary_data.md.
"""

from __future__ import annotations

import base64
import binascii
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy
import orjson

Array = numpy.ndarray[Any, Any]

DTYPES: dict[str, numpy.dtype[Any]] = {
    "BOOL": numpy.dtype("?"),
    **{f"UINT{8 * size}": numpy.dtype(f"<u{size}") for size in (1, 2, 4, 8)},
    **{f"INT{8 * size}": numpy.dtype(f"<i{size}") for size in (1, 2, 4, 8)},
    **{f"FP{8 * size}": numpy.dtype(f"<f{size}") for size in (2, 4, 8)},
}
DATATYPES = (*DTYPES, "BYTES")
DIMENSIONS_MOST = 32
BASE64, JSON = "base64", "application/json"

# What the data of a datatype are in JSON, by the kind of its numpy type; null is a float that is not a number.
_TYPES: dict[str, frozenset[type]] = {
    "b": frozenset({bool}),
    "u": frozenset({int}),
    "i": frozenset({int}),
    "f": frozenset({int, float, type(None)}),
}
# Flat data of these types need no other look: each of them is a number of the datatype, none is null or too large.
PLAIN: dict[str, set[type]] = {"FP64": {float, int}, "BOOL": {bool}}
_JSON = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS


class Tail:
    """The bytes behind the JSON of a request, handed out from their beginning."""

    def __init__(self, data: memoryview) -> None:
        self._data = data

    def take(self, size: int) -> memoryview:
        """`ValueError` when there are not so many left."""
        if size > len(self._data):
            raise ValueError(f"binary_data_size is {size}, there are {len(self._data)} bytes left")
        taken, self._data = self._data[:size], self._data[size:]
        return taken

    @property
    def left(self) -> int:
        return len(self._data)


@dataclass(frozen=True, slots=True)
class Tensor:
    """`array` has the type of `datatype`; of BYTES it holds texts or `bytes`. `content_type` says what those are."""

    datatype: str
    array: Array
    content_type: str = ""

    def in_json(self) -> dict[str, Any]:
        """`shape`, `datatype` and flat `data`, to be written by orjson with its option for numpy."""
        data: Any = numpy.ascontiguousarray(self.array).ravel()
        if self.datatype == "BYTES":
            data = data.tolist()
            if self.content_type == BASE64:
                data = [base64.b64encode(each).decode() for each in data]
        return {**self._head({}), "data": data}

    def in_binary(self) -> tuple[dict[str, Any], bytes]:
        """`shape` and `datatype` with the size in its parameters, and the bytes."""
        if self.datatype == "BYTES":
            parts = (each if isinstance(each, bytes) else each.encode() for each in self.array.ravel())
            data = b"".join(struct.pack("<I", len(part)) + part for part in parts)
        else:
            data = self.array.astype(DTYPES[self.datatype], copy=False).tobytes()
        return self._head({"binary_data_size": len(data)}), data

    def _head(self, parameters: dict[str, Any]) -> dict[str, Any]:
        if self.content_type:
            parameters = {"content_type": self.content_type, **parameters}
        head = {"shape": list(self.array.shape), "datatype": self.datatype}
        return {**head, "parameters": parameters} if parameters else head


# ── in ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


def read(tensor: Mapping[str, Any], tail: Tail) -> Array:
    """The array of an input: `shape`, `datatype`, and `data` or as many bytes of `tail` as its parameters say.

    `ValueError` says what does not fit."""
    shape = _shape(tensor)
    datatype = tensor.get("datatype")
    if datatype not in DATATYPES:
        raise ValueError(f"datatype is {str(datatype)[:80]!r}; there is {', '.join(DATATYPES)}")
    parameters = _parameters(tensor)
    raw = parameters.get("content_type") == BASE64
    size = parameters.get("binary_data_size")
    if (size is None) == ("data" not in tensor):
        raise ValueError('it needs "data" or parameters.binary_data_size, one of the two')
    if size is None:
        return _of_json(tensor["data"], datatype, shape, raw)
    if type(size) is not int or size < 0:
        raise ValueError(f"binary_data_size is {size!r}, not a number of bytes")
    return _of_binary(tail.take(size), datatype, shape, raw)


def rows(inputs: Mapping[str, Array], plain: bool) -> list[Any]:
    """The instances: rows of the one input, or objects of those of several by name; arrays, or `plain` lists and
    numbers. `ValueError` when the inputs have different numbers of rows."""
    if len(inputs) == 1:
        [array] = inputs.values()
        return array.tolist() if plain or array.ndim == 1 or array.dtype.hasobject else list(array)
    sizes = {name: len(array) for name, array in inputs.items()}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"inputs of different lengths: {', '.join(f'{name} {size}' for name, size in sizes.items())}")
    columns = (array.tolist() for array in inputs.values())
    return [dict(zip(inputs, row, strict=True)) for row in zip(*columns, strict=True)]


def _shape(tensor: Mapping[str, Any]) -> tuple[int, ...]:
    shape = tensor.get("shape")
    if not isinstance(shape, list) or not all(type(length) is int and length >= 0 for length in shape):
        raise ValueError(f"shape is {str(shape)[:80]}, not a list of lengths")
    if not 1 <= len(shape) <= DIMENSIONS_MOST:
        raise ValueError(f"shape has {len(shape)} dimensions; 1 to {DIMENSIONS_MOST}, the first is that of the rows")
    if shape[0] and not math.prod(shape):
        raise ValueError(f"shape is {shape}: rows without elements")
    return (0,) * len(shape) if not shape[0] else tuple(shape)


def _parameters(tensor: Mapping[str, Any]) -> Mapping[str, Any]:
    parameters = tensor.get("parameters")
    if parameters is not None and not isinstance(parameters, dict):
        raise ValueError("parameters is not an object")
    return parameters or {}


def _of_json(data: Any, datatype: str, shape: tuple[int, ...], raw: bool) -> Array:
    """`data` is flat or nested as `shape` says."""
    if not isinstance(data, list):
        raise ValueError("data is not a list")
    if datatype in PLAIN and set(map(type, data)) <= PLAIN[datatype] and len(data) == math.prod(shape):
        return numpy.array(data, DTYPES[datatype]).reshape(shape)  # the usual case, in a fifth of the time
    found = numpy.asarray(data, dtype=object)
    types = set(map(type, found.flat))
    if list in types:
        raise ValueError("data has lists of different lengths")
    if found.shape not in (shape, (math.prod(shape),)):
        raise ValueError(f"data is of shape {list(found.shape)}, shape says {list(shape)}")
    found = found.reshape(shape)
    if datatype == "BYTES":
        return _texts(found, types, raw)
    if wrong := types - _TYPES[DTYPES[datatype].kind]:
        raise ValueError(f"{datatype} data has {_said(wrong)} in it")
    try:
        with numpy.errstate(over="raise"):
            return found.astype(DTYPES[datatype])
    except (OverflowError, FloatingPointError):
        raise ValueError(f"data has a number that is out of the range of {datatype}") from None


def _texts(found: Array, types: set[type], raw: bool) -> Array:
    if wrong := types - {str}:
        raise ValueError(f"BYTES data has {_said(wrong)} in it; send texts")
    if not raw:
        return found
    try:
        return _objects([base64.b64decode(text, validate=True) for text in found.flat], found.shape)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"data is not base64, as content_type says: {error}") from None


def _of_binary(data: memoryview, datatype: str, shape: tuple[int, ...], raw: bool) -> Array:
    count = math.prod(shape)
    if datatype == "BYTES":
        return _objects(_elements(data, count, raw), shape)
    dtype = DTYPES[datatype]
    if len(data) != count * dtype.itemsize:
        raise ValueError(f"{datatype} of shape {list(shape)} is {count * dtype.itemsize} bytes, got {len(data)}")
    if datatype == "BOOL" and count and numpy.frombuffer(data, "u1").max() > 1:
        raise ValueError("BOOL data has bytes other than 0 and 1")
    return numpy.frombuffer(data, dtype).reshape(shape)


def _elements(data: memoryview, count: int, raw: bool) -> list[Any]:
    found: list[Any] = []
    at = 0
    while at < len(data) and len(found) < count:
        end = at + 4 + int.from_bytes(data[at : at + 4], "little")
        if at + 4 > len(data) or end > len(data):
            raise ValueError(f"the length of element {len(found)} goes beyond the end of the data")
        found.append(bytes(data[at + 4 : end]))
        at = end
    if at != len(data) or len(found) != count:
        more = "more" if at != len(data) else "only"
        raise ValueError(f"shape says {count} elements, data has {more}{'' if at != len(data) else f' {len(found)}'}")
    try:
        return found if raw else [each.decode() for each in found]
    except UnicodeDecodeError:
        raise ValueError('BYTES data is not UTF-8; with content_type "base64" a step gets the bytes') from None


def _objects(values: Sequence[Any], shape: tuple[int, ...]) -> Array:
    array = numpy.empty(len(values), dtype=object)
    array[:] = values
    return array.reshape(shape)


def _said(types: set[type]) -> str:
    names = {str: "a text", bool: "a boolean", int: "an integer", float: "a fraction", type(None): "null"}
    return " and ".join(sorted(names.get(each, "an object") for each in types))


# ── out ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def tensor(predictions: Sequence[Any]) -> Tensor:
    """One tensor of them all, as many rows as predictions.

    Booleans: BOOL; integers: INT64, or UINT64 where they are too large for that; with fractions: FP64; texts and
    `bytes`: BYTES; each also as rows of one shape. All else: BYTES of JSON texts, and `TypeError` or `ValueError` for
    what JSON cannot hold."""
    types = set(map(type, predictions))
    if types == {float}:
        return Tensor("FP64", numpy.array(predictions, numpy.float64))
    found = numpy.asarray(predictions, dtype=object)
    types = set(map(type, found.flat))
    if any(issubclass(each, numpy.generic) for each in types):
        found = numpy.asarray(numpy.frompyfunc(_item, 1, 1)(found), dtype=object)
        types = set(map(type, found.flat))
    if types <= {int, float}:
        return _numbers(found, predictions, types)
    if types == {bool}:
        return Tensor("BOOL", found.astype(bool))
    if types == {str}:
        return Tensor("BYTES", found)
    return Tensor("BYTES", found, BASE64) if types == {bytes} else _said_in_json(predictions)


def _numbers(found: Array, predictions: Sequence[Any], types: set[type]) -> Tensor:
    if not types:
        return _said_in_json(predictions) if predictions else Tensor("FP64", numpy.empty(0))
    for datatype in ("INT64", "UINT64") if types == {int} else ("FP64",):
        try:
            return Tensor(datatype, found.astype(DTYPES[datatype]))
        except OverflowError:
            continue
    return _said_in_json(predictions)


def _said_in_json(predictions: Sequence[Any]) -> Tensor:
    texts = [orjson.dumps(each, None, _JSON).decode() for each in predictions]
    return Tensor("BYTES", _objects(texts, (len(texts),)), JSON)


def _item(value: Any) -> Any:
    return value.item() if isinstance(value, numpy.generic) else value
