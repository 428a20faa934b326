"""MessagePack by the msgpack package. Sizes that a message claims are held to its own length before memory is taken."""

from __future__ import annotations

from typing import Any

import msgpack

from . import Format, require_shallow


class MessagePack(Format):
    """Any MessagePack value, with NumPy's arrays and numbers said as what they hold; keys may be other than text."""

    media = "application/vnd.msgpack"

    def decode(self, data: bytes) -> Any:
        return require_shallow(msgpack.unpackb(data, strict_map_key=False))

    def encode(self, value: Any) -> bytes:
        packed: bytes = msgpack.packb(value, default=_plain)
        return packed


def _plain(value: Any) -> Any:
    """What NumPy calculates, by its own method, so that nothing is imported for it; `TypeError` for anything else."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is no MessagePack value")
