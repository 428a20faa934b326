"""JSON by RFC 8259 and nothing beyond it, with a place for every key and value; standard library only.

The standard library's reader knows no places, keeps the last of two equal keys silently, and takes NaN and half
surrogate pairs. This one reads values and places in one pass; a property test holds it to `json.loads`.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from typing import Any, NoReturn

from packer_lib.padl.document import (
    DUPLICATE,
    MAX_DEPTH,
    MAX_NODES,
    TOO_DEEP,
    TOO_MANY,
    Document,
    Finding,
    Place,
    Pointer,
    Unreadable,
)

_SPACE = re.compile(r"[ \t\n\r]*")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")
_BODY = r'"[^"\\\x00-\x1f]*(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\\x00-\x1f]*)*'
_STRING = re.compile(_BODY + '"')
_STRING_BEGUN = re.compile(_BODY)
_WORD = re.compile(r"[^\s,:\[\]{}\"]{1,20}|.")
_NAMES = {"true": True, "false": False, "null": None}
_MAX_DIGITS = 400
_HINTS = {
    "'": "strings and keys stand in double quotes",
    "/": "JSON has no comments; YAML has",
    "#": "JSON has no comments; YAML has",
    "]": "remove the comma before it",
    "True": "write true",
    "False": "write false",
    "None": "write null",
    "NaN": "a number is finite",
    "Infinity": "a number is finite",
    "-Infinity": "a number is finite",
}


def read(text: str) -> Document:
    """The document in `text`; `Unreadable` at the first place that is not JSON or beyond a limit."""
    return _Reader(text).document()


class _Reader:
    def __init__(self, text: str) -> None:
        self.text = text
        self.lines = [0, *(match.end() for match in re.finditer("\n", text))]
        self.at = 0
        self.nodes = 0
        self.result = Document(None)
        self.open: list[tuple[str, int]] = []

    def document(self) -> Document:
        value = self.value(())
        if self.peek():
            self.fail(f"expected the end of the file, got {self.shown()}")
        return Document(value, self.result.values, self.result.keys, self.result.findings)

    def value(self, pointer: Pointer) -> Any:
        char = self.peek()
        self.count()
        self.result.values[pointer] = self.place(self.at)
        match char:
            case "{":
                return self.nested("an object", self.members, pointer)
            case "[":
                return self.nested("a list", self.items, pointer)
            case '"':
                return self.string()
            case _:
                return self.plain()

    def nested(self, kind: str, read: Any, pointer: Pointer) -> Any:
        if len(self.open) >= MAX_DEPTH:
            self.fail(TOO_DEEP)
        self.open.append((kind, self.at))
        self.at += 1
        value = read(pointer)
        self.open.pop()
        return value

    def members(self, pointer: Pointer) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if self.take("}"):
            return found
        while True:
            self.member(pointer, found)
            if self.take("}"):
                return found
            self.expect(",", "',' or '}'")

    def member(self, pointer: Pointer, found: dict[str, Any]) -> None:
        if self.peek() != '"':
            self.fail(f"expected a key in double quotes, got {self.shown()}", self.comma_hint())
        begin = self.at
        self.count()
        key = self.string()
        here = (*pointer, key)
        if key in found:
            message = DUPLICATE.format(line=self.result.keys[here][0])
            self.result.findings.append(Finding(here, message, on="key"))
        self.result.keys[here] = self.place(begin)
        self.expect(":", "':' after the key")
        found[key] = self.value(here)

    def items(self, pointer: Pointer) -> list[Any]:
        found: list[Any] = []
        if self.take("]"):
            return found
        while True:
            found.append(self.value((*pointer, str(len(found)))))
            if self.take("]"):
                return found
            self.expect(",", "',' or ']'")

    def string(self) -> str:
        match = _STRING.match(self.text, self.at)
        if match is None:
            self.bad_string()
        value: str = json.loads(match.group())
        if any("\ud800" <= char <= "\udfff" for char in value):
            self.fail("half of a surrogate pair in a string", "write the character itself, or both \\u escapes")
        self.at = match.end()
        return value

    def bad_string(self) -> NoReturn:
        begun = _STRING_BEGUN.match(self.text, self.at)
        end = begun.end() if begun else self.at
        char = self.text[end : end + 1]
        if char == "\\":
            self.fail(f"unknown escape {self.text[end : end + 2]} in a string", "a backslash is written \\\\", end)
        if char in ("", "\n", "\r"):
            self.fail("the string that begins here does not end on its line", self.writing_hint(char))
        self.fail(f"control character U+{ord(char):04X} in a string", f"write it as \\u{ord(char):04x}", end)

    def plain(self) -> Any:
        for word, value in _NAMES.items():
            if self.text.startswith(word, self.at):
                self.at += len(word)
                return value
        match = _NUMBER.match(self.text, self.at)
        if match is None:
            self.fail(f"expected a value, got {self.shown()}", self.value_hint())
        return self.number(match)

    def number(self, match: re.Match[str]) -> int | float:
        if len(match.group()) > _MAX_DIGITS:
            self.fail(f"a number of {len(match.group())} characters", f"at most {_MAX_DIGITS}")
        value = float(match.group()) if match.group(1) or match.group(2) else int(match.group())
        if value in (float("inf"), float("-inf")):
            self.fail(f"the number {match.group()[:20]} is too large")
        self.at = match.end()
        return value

    def peek(self) -> str:
        """The next character that is not white space, which `at` then points to; empty at the end."""
        match = _SPACE.match(self.text, self.at)
        self.at = match.end() if match else self.at
        return self.text[self.at : self.at + 1]

    def take(self, char: str) -> bool:
        if self.peek() != char:
            return False
        self.at += 1
        return True

    def expect(self, char: str, what: str) -> None:
        if not self.take(char):
            hint = "a comma is missing before it" if char == "," and self.peek() in ('"', "{", "[") else ""
            self.fail(f"expected {what}, got {self.shown()}", hint)

    def count(self) -> None:
        self.nodes += 1
        if self.nodes > MAX_NODES:
            self.fail(TOO_MANY)

    def shown(self) -> str:
        word = _WORD.match(self.text, self.at)
        if word is None:
            return "the end of the file"
        return word.group() if "'" in word.group() else f"'{word.group()}'"

    def comma_hint(self) -> str:
        before = self.text[: self.at].rstrip()[-1:]
        return "remove the comma before it" if before == "," and self.peek() in ("}", "]") else self.value_hint()

    def value_hint(self) -> str:
        word = _WORD.match(self.text, self.at)
        return _HINTS.get(word.group(), _HINTS.get(word.group()[0], "")) if word else ""

    def writing_hint(self, char: str) -> str:
        return "" if char else "the file ends here; is it still being written?"

    def fail(self, message: str, hint: str = "", at: int | None = None) -> NoReturn:
        if at is None and self.at >= len(self.text) and self.open:
            kind, begin = self.open[-1]
            line, column = self.place(begin)
            message = f"the file ends inside {kind} that begins at {line}:{column}"
            hint = "is it still being written?"
        raise Unreadable(self.place(self.at if at is None else at), message, hint)

    def place(self, at: int) -> Place:
        line = bisect_right(self.lines, at)
        return line, at - self.lines[line - 1] + 1
