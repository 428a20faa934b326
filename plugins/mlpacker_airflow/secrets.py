"""Passwords written literally in a PADL file: which they are, and the text without them. Imports no Airflow.

The paper's language has `pass`; it works, but nothing of it may reach the metadata database, the Code tab or a log.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from packer_lib.errors import PadlInvalid
from packer_lib.padl.document import Document, Pointer
from packer_lib.padl.load import load_text

HIDDEN = "(hidden)"
_NAMES = re.compile(r"pass(?!_env$)|secret|token(?!_env$)|credential|api_?key", re.IGNORECASE)
# how a scalar may be written where it starts, in either syntax; which one it is shows when the result is read again
_TOKENS = [re.compile(way) for way in (r'"(?:[^"\\]|\\.)*"', r"'(?:[^']|'')*'", r"[^\s,{}\[\]#]+", r"[^\n#]*[^\s#]")]


def literals(text: str, file: str) -> list[str]:
    """The secrets in a PADL text, to be masked in logs; none when it cannot be read."""
    try:
        found = _found(load_text(text, file).value, ())
        return [str(value) for _, value in found if value]
    except PadlInvalid:
        return []


def hide(text: str, file: str) -> str:
    """`text` with its secrets replaced; all of it when it cannot be read, for nobody knows what is in it then."""
    try:
        document = load_text(text, file)
    except PadlInvalid:
        return "(not shown: the file cannot be read)"
    wanted = _hidden(document.value)
    for pointer, _ in reversed(list(_found(document.value, ()))):
        text = _replace(text, document, pointer, file)
    return text if _value(text, file) == wanted else json.dumps(wanted, indent=2, ensure_ascii=False)


def _found(value: Any, pointer: Pointer, below: bool = False) -> Iterator[tuple[Pointer, Any]]:
    """The scalars whose key, or a key above them, says that they are secret, in the order of the file."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _found(item, (*pointer, key), below or bool(_NAMES.search(key)))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _found(item, (*pointer, str(index)), below)
    elif below:
        yield pointer, value


def _hidden(value: Any, below: bool = False) -> Any:
    if isinstance(value, dict):
        return {key: _hidden(item, below or bool(_NAMES.search(key))) for key, item in value.items()}
    if isinstance(value, list):
        return [_hidden(item, below) for item in value]
    return HIDDEN if below else value


def _replace(text: str, document: Document, pointer: Pointer, file: str) -> str:
    """The first way of reading the token at the secret's place that takes away exactly this secret."""
    line, column = document.place(pointer)
    start = sum(len(part) for part in text.split("\n")[: line - 1]) + (line - 1) + column - 1
    for token in _TOKENS:
        if match := token.match(text, start):
            tried = text[:start] + f'"{HIDDEN}"' + text[match.end() :]
            if _at(_value(tried, file), pointer) == HIDDEN:
                return tried
    return text


def _value(text: str, file: str) -> Any:
    try:
        return load_text(text, file).value
    except PadlInvalid:
        return None


def _at(value: Any, pointer: Pointer) -> Any:
    for key in pointer:
        if not isinstance(value, dict | list):
            return None
        value = value[int(key)] if isinstance(value, list) else value.get(key)
    return value
