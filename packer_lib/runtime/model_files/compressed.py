"""A joblib file as the pickle that is in it, whichever compressor is around; what it grows to is bounded."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from .zips import GROWTH, GROWTH_FREE

CHUNK = 1 << 18


class Bomb(OSError):
    """More comes out than honest weights shrink to."""


class Bounded(io.RawIOBase):
    """What `read` gives, at most `most` bytes of it."""

    def __init__(self, read: Callable[[int], bytes], most: int) -> None:
        self._read, self._left = read, most

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._read(len(buffer))
        self._left -= len(data)
        if self._left < 0:
            raise Bomb("unpacks to far more than it is, as a bomb does")
        buffer[: len(data)] = data
        return len(data)


class Zlib:
    """The bytes in a bare zlib stream."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self._inflate = stream, zlib.decompressobj()

    def read(self, size: int) -> bytes:
        while not self._inflate.eof:
            packed = self._inflate.unconsumed_tail or self._stream.read(CHUNK)
            if not packed:
                raise EOFError("the compressed data ends early")
            if data := self._inflate.decompress(packed, size):
                return data
        return b""


def opened(path: Path) -> BinaryIO:
    """The pickle in the file at `path`; `ValueError` for a compressor that no unit has."""
    stream = path.open("rb")
    first = stream.read(4)
    stream.seek(0)
    if first.startswith(b"\x1f\x8b"):
        return _bounded(gzip.GzipFile(fileobj=stream), path)
    if first.startswith(b"BZh"):
        return _bounded(bz2.BZ2File(stream), path)
    if first.startswith((b"\xfd7zX", b"\x5d\x00")):
        return _bounded(lzma.LZMAFile(stream), path)
    if first.startswith(b"\x04\x22\x4d\x18"):
        stream.close()
        raise ValueError("is compressed by lz4, which no unit has; save it with compress=3 (zlib)")
    return _bounded(Zlib(stream), path) if first.startswith(b"\x78") else stream


def _bounded(source: Any, path: Path) -> BinaryIO:
    most = GROWTH * path.stat().st_size + GROWTH_FREE
    return io.BufferedReader(Bounded(source.read, most), CHUNK)
