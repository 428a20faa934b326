"""The text of one PADL file as a value with a place for every key and value; standard library only."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from packer_lib.errors import PadlInvalid, Problem

Pointer = tuple[str, ...]
"""The way to a value: `("queues", "q1", "props", "port")`; list items by their index as text."""

Place = tuple[int, int]
"""Line and column, both from 1; columns count characters."""

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 64
MAX_NODES = 10_000
MAX_PROBLEMS = 200
_SHOWN = 80

TOO_DEEP = f"nested too deeply: at most {MAX_DEPTH} levels"
TOO_MANY = f"too many entries: at most {MAX_NODES} keys and values in one file"
DUPLICATE = "this key is here twice; the first is at line {line}"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing wrong at a pointer, before it has a line: `on` says whether the key or the value is to blame."""

    pointer: Pointer
    message: str
    hint: str = ""
    level: Literal["error", "warning"] = "error"
    on: Literal["key", "value"] = "value"


class Unreadable(Exception):
    """The text cannot be read beyond this place."""

    def __init__(self, place: Place, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.place, self.message, self.hint = place, message, hint


@dataclass(frozen=True, slots=True)
class Document:
    """`value` holds plain dicts, lists, strings, finite numbers, booleans and None, and no part of it twice.

    `findings` are what is wrong with the text though it can be read: keys that are there twice.
    """

    value: Any
    values: dict[Pointer, Place] = field(default_factory=dict)
    keys: dict[Pointer, Place] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def place(self, pointer: Pointer, on: Literal["key", "value"] = "value") -> Place:
        """Where it is written; the nearest thing around it when it is not there. An object is placed at its key."""
        first, second = (self.keys, self.values) if on == "key" else (self.values, self.keys)
        for end in range(len(pointer), 0, -1):
            if place := first.get(pointer[:end]) or second.get(pointer[:end]):
                return place
            first, second = self.keys, self.values
        return self.values.get((), (1, 1))


def problems(file: str, document: Document, findings: Iterable[Finding]) -> list[Problem]:
    """The findings with their lines, sorted by place, each once; of a flood, the first ones and how many there are."""
    found = sorted({problem(file, document.place(one.pointer, one.on), one) for one in findings})
    if len(found) <= MAX_PROBLEMS:
        return found
    last = found[MAX_PROBLEMS]
    rest = f"{len(found) - MAX_PROBLEMS} more problems from here on"
    return [*found[:MAX_PROBLEMS], Problem(file, last.line, last.column, "", rest)]


def problem(file: str, place: Place, found: Finding) -> Problem:
    path = ".".join(short(part) for part in found.pointer)
    return Problem(file, *place, path, found.message, found.hint, found.level)


def short(text: str) -> str:
    """`text` cut to a length that fits into a message."""
    return text if len(text) <= _SHOWN else f"{text[:60]}… ({len(text)} characters)"


def invalid(file: str, stop: Unreadable) -> PadlInvalid:
    return PadlInvalid([Problem(file, *stop.place, "", stop.message, stop.hint)])
