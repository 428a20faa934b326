"""What the bytes of a message mean: one `Format` per name of the catalogue, loaded where a step uses it.

json     any JSON value                                     NaN and infinities become null, as JSON has none
csv      one line: a list of cells; several: a list of rows cells that read as numbers are numbers, no header
npy      a NumPy .npy array as nested lists                 object arrays (pickle) are refused
msgpack  any MessagePack value
raw      the bytes as they are                              text is sent as UTF-8

What is read is bounded: `MAX_DEPTH` lists or objects in one another, sizes by what is really there, and whoever asks
sees to the `MAX_BYTES` of a message.
Standard library only; the libraries are imported by the modules of the formats.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from ..catalogue import FORMATS

MAX_BYTES = 32 << 20
MAX_DEPTH = 128


@dataclass(frozen=True, slots=True)
class NotRead:
    """In the place of a value, or of its bytes: why there are none, on one line."""

    reason: str


class Format(ABC):
    """`decode` raises for bytes that are not of the format, `encode` for values that it cannot say; what it raises is
    the library's own and tells why. `media` is the content type of what `encode` gives."""

    media: ClassVar[str]

    @abstractmethod
    def decode(self, data: bytes) -> Any: ...

    @abstractmethod
    def encode(self, value: Any) -> bytes: ...

    def decode_all(self, datas: Sequence[bytes]) -> list[Any]:
        """One value per message, same order. One that cannot be read is a `NotRead` and changes no other."""
        decode = self.decode
        try:
            return [decode(data) for data in datas]
        except Exception:
            return [self._decode_one(data) for data in datas]

    def encode_all(self, values: Sequence[Any]) -> list[bytes | NotRead]:
        """The bytes of each value, same order. One that cannot be said is a `NotRead` and changes no other."""
        encode = self.encode
        try:
            return [encode(value) for value in values]
        except Exception:
            return [self._encode_one(value) for value in values]

    def _encode_one(self, value: Any) -> bytes | NotRead:
        try:
            return self.encode(value)
        except Exception as error:
            return NotRead(one_line(error))

    def _decode_one(self, data: bytes) -> Any:
        try:
            return self.decode(data)
        except Exception as error:
            return NotRead(one_line(error))


def find(name: str) -> Format:
    """The format of that name, or `ValueError` with the list of those there are."""
    if name not in FORMATS:
        raise ValueError(f"unknown format {name!r}: there is {', '.join(FORMATS)}")
    found: Format = FORMATS[name].load()()
    return found


def require_shallow(value: Any, most: int = MAX_DEPTH) -> Any:
    """`value`, or `ValueError` when more than `most` lists or objects are in one another: what works on a value goes
    down into it by calling itself, and Python ends that at a thousand."""
    level = [value]
    for _ in range(most + 1):
        level = [item for outer in level for item in _inside(outer)]
        if not level:
            return value
    raise ValueError(f"more than {most} lists or objects in one another")


def _inside(value: Any) -> list[Any]:
    """The lists and objects in `value`, first of all fast to say that there are none."""
    items = value.values() if type(value) is dict else value if type(value) is list else ()
    if _NESTED.isdisjoint(map(type, items)):
        return []
    return [item for item in items if type(item) in _NESTED]


_NESTED = frozenset({list, dict})


def one_line(error: Exception) -> str:
    """The message of `error` on one line of at most 500 characters, or its type."""
    return " ".join(str(error).split())[:500] or type(error).__name__
