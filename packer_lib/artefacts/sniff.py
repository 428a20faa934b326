"""What a model file is by its first bytes, without loading it: whether the `serializer` of the PADL can be true."""

from __future__ import annotations

import zipfile
from pathlib import Path

from packer_lib.artefacts.files import open_file
from packer_lib.artefacts.model import Unfit

# joblib writes a pickle, bare or inside one of its compressors
COMPRESSED = {
    b"\x78": "zlib",
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"\x5d\x00": "lzma",
    b"\x04\x22\x4d\x18": "lz4",
}
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
            try:
                members = set(zipfile.ZipFile(stream).namelist())
            except (zipfile.BadZipFile, NotImplementedError, ValueError):
                return ()
            return tuple(kind for kind, needed in ZIPS.items() if needed <= members)[:1]
    if first[:1] == b"\x80" and first[1:2] <= b"\x05":
        return ("joblib", "pickle")
    return ("joblib",) if any(first.startswith(magic) for magic in COMPRESSED) else ()
