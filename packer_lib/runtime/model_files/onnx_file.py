"""ONNX files without a library: whether one is whole, and whether it has its data to itself.

Source: onnx.proto3 (the numbers of the fields below); CVE-2024-27318, CVE-2022-25882 (external data by any path).
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# by kind of message: the fields that hold others
INSIDE = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
EXTERNAL, LOCATION = 13, 14  # of a tensor: where its data is, and that it is not here
DEPTH = 64


class Damaged(ValueError):
    """No model, or one that ends early."""


def fault(path: Path) -> str:
    """Why the model at `path` is not to be loaded, or ""; `Damaged`."""
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return _fault(data, 0, len(data), "model", 0)


def _fault(data: Any, start: int, end: int, kind: str, depth: int) -> str:
    if depth > DEPTH:
        return "is nested too deeply"
    for number, begin, stop, value in _fields(data, start, end):
        if kind == "tensor" and (number == EXTERNAL or (number == LOCATION and value)):
            return "has data in another file, which a model of one file cannot; save it with its data inside"
        inner = INSIDE[kind].get(number)
        if inner and value is None and (found := _fault(data, begin, stop, inner, depth + 1)):
            return found
    return ""


def _fields(data: Any, start: int, end: int) -> Iterator[tuple[int, int, int, int | None]]:
    """(number, where its value begins, and ends, its value if it is a number) of every field of a message."""
    while start < end:
        tag, start = _number(data, start, end)
        value: int | None = None
        begin = start
        match tag & 7:
            case 0:
                value, start = _number(data, start, end)
            case 1:
                value, start = 0, start + 8
            case 2:
                length, begin = _number(data, start, end)
                start = begin + length
            case 5:
                value, start = 0, start + 4
            case other:
                raise Damaged(f"is no protobuf message: it has a field of type {other}")
        if start > end:
            raise Damaged("ends early, or is no protobuf message")
        yield tag >> 3, begin, start, value


def _number(data: Any, start: int, end: int) -> tuple[int, int]:
    """A varint, and where what follows it begins."""
    value = 0
    for count in range(10):
        if start + count >= end:
            break
        byte = data[start + count]
        value |= (byte & 127) << 7 * count
        if byte < 128:
            return value, start + count + 1
    raise Damaged("ends early, or is no protobuf message")
