"""What the bytes of a message mean: one decoder and one encoder per format; numpy and msgpack only where they are used.

json     any JSON value                                     NaN and infinities become null, as JSON has none
csv      one line: a list of cells; several: a list of rows cells that read as numbers are numbers, no header
npy      a NumPy .npy array as nested lists                 object arrays (pickle) are refused
msgpack  any MessagePack value
raw      the bytes as they are                              text is sent as UTF-8
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson


@dataclass(frozen=True, slots=True)
class Format:
    """`decode` raises `ValueError` for bytes that are not of the format, `encode` for values that it cannot say."""

    decode: Callable[[bytes], Any]
    encode: Callable[[Any], bytes]


def find(name: str) -> Format:
    """The format of that name, or `ValueError` with the list of those there are."""
    if name not in FORMATS:
        raise ValueError(f"unknown format {name!r}: there is {', '.join(FORMATS)}")
    return FORMATS[name]()


def _json() -> Format:
    options = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS
    return Format(orjson.loads, lambda value: orjson.dumps(value, None, options))


def _csv() -> Format:
    return Format(_read_csv, _write_csv)


def _read_csv(data: bytes) -> list[Any]:
    rows = [
        [_cell(cell) for cell in row] for row in csv.reader(io.StringIO(data.decode("utf-8"), newline=""), strict=True)
    ]
    if not rows:
        raise ValueError("no line in it")
    return rows[0] if len(rows) == 1 else rows


def _cell(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _write_csv(value: Any) -> bytes:
    rows = value if isinstance(value, list) else [value]
    if not any(isinstance(row, list) for row in rows):
        rows = [rows]
    if any(isinstance(cell, (list, dict)) for row in rows for cell in row):
        raise ValueError("csv holds a cell, a list of cells or a list of such lists")
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().removesuffix("\n").encode("utf-8")


def _npy() -> Format:
    import numpy

    def decode(data: bytes) -> Any:
        return numpy.load(io.BytesIO(data), allow_pickle=False).tolist()

    def encode(value: Any) -> bytes:
        target = io.BytesIO()
        numpy.save(target, numpy.asarray(value), allow_pickle=False)
        return target.getvalue()

    return Format(decode, encode)


def _msgpack() -> Format:
    import msgpack

    return Format(lambda data: msgpack.unpackb(data, strict_map_key=False), msgpack.packb)


def _raw() -> Format:
    return Format(lambda data: data, _bytes)


def _bytes(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode("utf-8")
    if not isinstance(value, bytes):
        raise ValueError(f"raw takes bytes or text, the step gave {type(value).__name__}")
    return value


FORMATS: dict[str, Callable[[], Format]] = {"json": _json, "csv": _csv, "npy": _npy, "msgpack": _msgpack, "raw": _raw}
