"""What a model file is by its first bytes, without loading it: whether the `serializer` of the PADL can be true."""

from __future__ import annotations

import os
import struct
import zipfile
from pathlib import Path
from typing import BinaryIO

from packer_lib.artefacts.files import open_file
from packer_lib.artefacts.model import Unfit

# joblib writes a pickle, bare or inside zlib, gzip, bzip2, xz, lzma or lz4
COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"\x5d\x00", b"\x04\x22\x4d\x18")
LARGEST_DIRECTORY = 16 << 20
TAIL = 65_535 + 22 + 76  # the longest comment, the end record, the two of zip64
HDF5 = b"\x89HDF\r\n\x1a\n"
# members that a zip of this kind always has; the first that fits names it
ZIPS = {"keras": {"config.json", "metadata.json"}, "skops": {"schema.json"}}
FOLDERS = frozenset({"savedmodel"})
# these can run code of their author while they are loaded
UNSAFE = frozenset({"joblib", "pickle", "h5"})


def check(path: Path, serializer: str) -> None:
    """`Unfit` when the file or folder at `path` cannot be what `serializer` says."""
    if path.is_dir() != (serializer in FOLDERS):
        what, wanted = ("a folder", "a file") if path.is_dir() else ("a file", "a folder with saved_model.pb")
        raise Unfit(f"{path} is {what}, serializer {serializer!r} needs {wanted}", _suggest(kinds(path)))
    found = kinds(path)
    if serializer not in found:
        is_one = f"looks like {found[0]}" if found else "is none of the formats we know"
        raise Unfit(f"{path} is no {serializer} file: it {is_one}", _suggest(found), key="serializer")


def _suggest(found: tuple[str, ...]) -> str:
    return f"set serializer to {found[0]!r}" if found else "save the model again, or look at the file's first bytes"


def kinds(path: Path) -> tuple[str, ...]:
    """The serializers that could have written `path`, likeliest first; empty when none of ours could."""
    if path.is_dir():
        return ("savedmodel",) if (path / "saved_model.pb").is_file() else ()
    with open_file(path) as stream:
        first = stream.read(8)
        if first == HDF5:
            return ("h5",)
        if first.startswith(b"PK"):
            members = _members(stream)
            return tuple(kind for kind, needed in ZIPS.items() if needed <= members)[:1]
    if first[:1] == b"\x80" and first[1:2] <= b"\x05":
        return ("joblib", "pickle")
    if first.startswith(COMPRESSED) or _is_zlib(first):
        return ("joblib",)
    return ("onnx",) if _is_onnx(first) else ()


def _is_zlib(first: bytes) -> bool:
    """By its header's own checksum (RFC 1950): one byte alone would take any text that begins with an x."""
    return len(first) > 1 and first[0] == 0x78 and int.from_bytes(first[:2], "big") % 31 == 0


def _is_onnx(first: bytes) -> bool:
    """A protobuf message that begins with a small `ir_version` (field 1) and the tag of one of its fields 2 to 8."""
    return len(first) > 2 and first[0] == 0x08 and 0 < first[1] < 64 and first[2] >> 3 in range(2, 9)


def _members(stream: BinaryIO) -> set[str]:
    """The names in a zip; none when it is damaged or its directory alone would fill the memory."""
    try:
        return set(zipfile.ZipFile(stream).namelist()) if _directory_size(stream) <= LARGEST_DIRECTORY else set()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error):
        return set()


def _directory_size(stream: BinaryIO) -> int:
    """How long a zip says its directory is, found the way `zipfile` finds it (APPNOTE.TXT 4.3.14 to 4.3.16)."""
    size = stream.seek(0, os.SEEK_END)
    stream.seek(max(0, size - TAIL))
    tail = stream.read()
    plain = tail[-22:-18] == b"PK\5\6" and tail[-2:] == b"\0\0"
    end = len(tail) - 22 if plain else tail.rfind(b"PK\5\6")
    if tail[end - 20 : end - 16] == b"PK\6\7":  # zip64: its own end record is in front
        return int(struct.unpack_from("<Q", tail, end - 76 + 40)[0])
    return int(struct.unpack_from("<I", tail, end + 12)[0])
