"""Which serializers could have written a model file, by its content and never by its name."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import BinaryIO

from . import zips

# joblib writes a pickle, bare or inside zlib, gzip, bzip2, xz, lzma or lz4
COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"\x5d\x00", b"\x04\x22\x4d\x18")
HDF5 = b"\x89HDF\r\n\x1a\n"
# members that a zip of this kind always has; the first that fits names it
ZIPS = {"keras": {"config.json", "metadata.json"}, "skops": {"schema.json"}}
FOLDERS = frozenset({"savedmodel"})
# these can run code of their author while they are loaded
UNSAFE = frozenset({"joblib", "pickle", "h5"})
# protocols 0 and 1 have no mark of their own: they begin by naming a class, or with an empty or a marked collection
OLD_PICKLE = re.compile(rb"c[\w.]+\n[\w.]+\n|\([cldit()]|[\]}]q.")


def kinds(path: Path) -> tuple[str, ...]:
    """The serializers that could have written the file or folder at `path`, likeliest first."""
    if path.is_dir():
        return ("savedmodel",) if (path / "saved_model.pb").is_file() else ()
    with path.open("rb") as stream:
        return kinds_of(stream)


def kinds_of(stream: BinaryIO) -> tuple[str, ...]:
    """The same of an open file; empty when none of ours could."""
    first = stream.read(64)
    if first.startswith(HDF5):
        return ("h5",)
    if first.startswith(b"PK"):
        names = set(zips.names(stream))
        return tuple(kind for kind, needed in ZIPS.items() if needed <= names)[:1]
    if (first[:1] == b"\x80" and first[1:2] <= b"\x05") or _is_old_pickle(first, stream):
        return ("joblib", "pickle")
    if first.startswith(COMPRESSED) or _is_zlib(first):
        return ("joblib",)
    return ("onnx",) if _is_onnx(first) else ()


def _is_zlib(first: bytes) -> bool:
    """By its header's own checksum (RFC 1950): one byte alone would take any text that begins with an x."""
    return len(first) > 1 and first[0] == 0x78 and int.from_bytes(first[:2], "big") % 31 == 0


def _is_old_pickle(first: bytes, stream: BinaryIO) -> bool:
    """Ends with the stop mark, too."""
    if not OLD_PICKLE.match(first):
        return False
    stream.seek(-1, os.SEEK_END)
    return stream.read(1) == b"."


def _is_onnx(first: bytes) -> bool:
    """A protobuf message that begins with a small `ir_version` (field 1) and the tag of one of its fields 2 to 8."""
    return len(first) > 2 and first[0] == 0x08 and 0 < first[1] < 64 and first[2] >> 3 in range(2, 9)
