"""The bytes as they are; standard library only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from . import Format


class Raw(Format):
    """A step gets `bytes`, and gives bytes or text (sent as UTF-8)."""

    media = "application/octet-stream"

    def decode(self, data: bytes) -> Any:
        return data

    def decode_all(self, datas: Sequence[bytes]) -> list[Any]:
        return list(datas)

    def encode(self, value: Any) -> bytes:
        if isinstance(value, str):
            return value.encode("utf-8")
        if not isinstance(value, bytes | bytearray | memoryview):
            raise ValueError(f"raw takes bytes or text, the step gave {type(value).__name__}")
        return bytes(value)
