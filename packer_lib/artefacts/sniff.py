"""What a model file is by its first bytes, without loading it: whether the `serializer` of the PADL can be true."""

from __future__ import annotations

from pathlib import Path

from packer_lib.artefacts.files import open_file
from packer_lib.artefacts.model import Unfit
from packer_lib.runtime.model_files import kinds as files
from packer_lib.runtime.model_files.kinds import FOLDERS


def check(path: Path, serializer: str) -> None:
    """`Unfit` when the file or folder at `path` cannot be what `serializer` says."""
    if path.is_dir() != (serializer in FOLDERS):
        what, wanted = ("a folder", "a file") if path.is_dir() else ("a file", "a folder with saved_model.pb")
        raise Unfit(f"{path} is {what}, serializer {serializer!r} needs {wanted}", _suggest(kinds(path)))
    found = kinds(path)
    if serializer not in found:
        is_one = f"looks like {found[0]}" if found else "is none of the formats we know, or damaged"
        raise Unfit(
            f"{path} is no {serializer} file: it {is_one}", _suggest(found), key="serializer", refused=not found
        )


def _suggest(found: tuple[str, ...]) -> str:
    return f"set serializer to {found[0]!r}" if found else "save the model again, or look at the file's first bytes"


def kinds(path: Path) -> tuple[str, ...]:
    """The serializers that could have written `path`, likeliest first; empty when none of ours could."""
    if path.is_dir():
        return files.kinds(path)
    with open_file(path) as stream:
        return files.kinds_of(stream)
