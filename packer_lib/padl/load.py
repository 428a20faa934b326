"""A PADL file → `Document`: size, encoding and syntax, before anything is known of the language.

The limits (1 MiB, depth 64, 10 000 keys and values) are checked as the text is read, not after.
"""

from __future__ import annotations

import codecs
from pathlib import Path

from packer_lib.errors import PadlInvalid
from packer_lib.padl.document import MAX_BYTES, Document, Unreadable, invalid

SUFFIXES = (".json", ".yaml", ".yml")
_MARKS = {
    codecs.BOM_UTF8: "UTF-8 with a byte-order mark",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


def load(path: Path) -> Document:
    """The document in the file at `path`; `PadlInvalid` when it cannot be read."""
    try:
        return _document(_text(_bytes(path)), path.suffix.lower())
    except Unreadable as stop:
        raise invalid(str(path), stop) from None


def load_text(text: str, file: str) -> Document:
    """The document in `text`, by the suffix of `file`; `PadlInvalid` when it cannot be read."""
    try:
        return _document(_checked(text), Path(file).suffix.lower())
    except Unreadable as stop:
        raise invalid(file, stop) from None


def locate(path: Path, pointer: tuple[str, ...]) -> tuple[int, int]:
    """Line and column of the value at `pointer` (`("pipeline", "lstm", "props", "path")`) in the file at `path`.

    What is not there is placed at the nearest thing around it; a file that cannot be read any more, at 1:1.
    """
    try:
        return load(path).place(pointer)
    except PadlInvalid:
        return 1, 1


def _bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        raise Unreadable((1, 1), f"the file cannot be read: {error.strerror or error}") from None


def _text(data: bytes) -> str:
    if len(data) > MAX_BYTES:
        raise Unreadable((1, 1), "the file is too large: at most 1 MiB", "models and data have files of their own")
    for mark, name in _MARKS.items():
        if data.startswith(mark):
            raise Unreadable((1, 1), f"the file is {name}", "save it as UTF-8 without a byte-order mark")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        before = data[: error.start].decode()
        place = before.count("\n") + 1, len(before) - before.rfind("\n")
        raise Unreadable(place, f"the byte 0x{data[error.start]:02x} is not UTF-8", "save the file as UTF-8") from None


def _checked(text: str) -> str:
    """`text` under the same rules as a file's bytes."""
    try:
        return _text(text.encode())
    except UnicodeEncodeError as error:
        place = text.count("\n", 0, error.start) + 1, error.start - text.rfind("\n", 0, error.start)
        raise Unreadable(place, "half of a surrogate pair", "save the file as UTF-8") from None


def _document(text: str, suffix: str) -> Document:
    if suffix not in SUFFIXES:
        message = f"the name does not tell the syntax: it ends in {suffix}" if suffix else "the name has no suffix"
        raise Unreadable((1, 1), message, f"use {', '.join(SUFFIXES)}")
    if not text.strip():
        raise Unreadable((1, 1), "the file is empty", "is it still being written?")
    document = _syntax(text, suffix)
    if not isinstance(document.value, dict):
        raise Unreadable(document.place(()), f"expected an object of keys, got {_kind(document.value)}")
    return document


def _syntax(text: str, suffix: str) -> Document:
    if suffix == ".json":
        from packer_lib.padl import json_text

        return json_text.read(text)
    from packer_lib.padl import yaml_text

    return yaml_text.read(text)


def _kind(value: object) -> str:
    names = {list: "a list", str: "text", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")
