"""JSON by orjson, both ways; NumPy's arrays and numbers are said as what they hold."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat
from typing import Any

import orjson

from . import MAX_DEPTH, Format, NotRead, require_shallow

_OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS


class Json(Format):
    """Any JSON value; NaN and infinities are written as null. Integers over 64 bits are read as the nearest float."""

    media = "application/json"

    def decode(self, data: bytes) -> Any:
        value = orjson.loads(data)
        return require_shallow(value) if _could_be_deep(data) else value

    def decode_all(self, datas: Sequence[bytes]) -> list[Any]:
        """As always; the common case is one loop in C."""
        try:
            values = list(map(orjson.loads, datas))
        except orjson.JSONDecodeError:
            return super().decode_all(datas)
        return super().decode_all(datas) if _some_could_be_deep(datas) else values

    def encode_all(self, values: Sequence[Any]) -> list[bytes | NotRead]:
        dumps = orjson.dumps
        try:
            return [dumps(value, None, _OPTIONS) for value in values]
        except TypeError:
            return super().encode_all(values)

    def encode(self, value: Any) -> bytes:
        return orjson.dumps(value, None, _OPTIONS)


def _could_be_deep(data: bytes) -> bool:
    return data.count(b"[") + data.count(b"{") > MAX_DEPTH


def _some_could_be_deep(datas: Sequence[bytes]) -> bool:
    """Loops in C: to look at each by `_could_be_deep` took half as long as to decode it."""
    most = (max(map(bytes.count, datas, repeat(bracket)), default=0) for bracket in (b"[", b"{"))
    return sum(most) > MAX_DEPTH
