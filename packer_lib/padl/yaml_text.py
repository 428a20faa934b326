"""YAML with the scalars of YAML 1.2, with a place for every key and value.

PyYAML's C parser gives events and the composing is ours, without recursion: its own composer dies of a segmentation
fault on deep nesting, resolves YAML 1.1 (`no` is false, `010` is 8), keeps the last of two equal keys, and knows no
limits. Events are taken one by one, so that a limit stops the parser at the place where it is passed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import yaml

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
    short,
)

# YAML 1.2.2, section 10.3.2 "Tag Resolution" of the core schema.
_WORDS = (
    (re.compile(r"null|Null|NULL|~|"), None),
    (re.compile(r"true|True|TRUE"), True),
    (re.compile(r"false|False|FALSE"), False),
)
_INTEGER = re.compile(r"[-+]?[0-9]+")
_OCTAL = re.compile(r"0o[0-7]+")
_HEX = re.compile(r"0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_MAX_DIGITS = 400
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read(text: str) -> Document:
    """The document in `text`; `Unreadable` at the first place that is not plain YAML or beyond a limit."""
    composer = _Composer()
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            composer.take(event)
    except yaml.YAMLError as error:
        raise _unreadable(error, text) from None
    if composer.documents == 0:
        raise Unreadable((1, 1), "there is nothing in the file but comments", "expected a PADL object")
    return Document(composer.value, composer.values, composer.keys, composer.findings)


@dataclass(slots=True)
class _Open:
    """A collection that has begun. `key` is the key whose value comes next, None when a key is next (or in a list)."""

    value: Any
    pointer: Pointer
    key: str | None = None
    seen: set[str] = field(default_factory=set)


@dataclass(slots=True)
class _Composer:
    value: Any = None
    values: dict[Pointer, Place] = field(default_factory=dict)
    keys: dict[Pointer, Place] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    open: list[_Open] = field(default_factory=list)
    nodes: int = 0
    documents: int = 0

    def take(self, event: Any) -> None:
        match event:
            case yaml.DocumentStartEvent():
                self.begin(event)
            case yaml.AliasEvent() | yaml.NodeEvent():
                self.node(event)
            case yaml.CollectionEndEvent():
                self.open.pop()

    def begin(self, event: Any) -> None:
        self.documents += 1
        if self.documents > 1:
            raise Unreadable(_place(event), "a second document begins here", "one pipeline per file")

    def node(self, event: Any) -> None:
        self.nodes += 1
        _refuse_what_is_not_plain(event)
        if self.nodes > MAX_NODES:
            raise Unreadable(_place(event), TOO_MANY)
        if self.open and isinstance(self.open[-1].value, dict) and self.open[-1].key is None:
            self.key(event)
        else:
            self.add(event)

    def key(self, event: Any) -> None:
        if not isinstance(event, yaml.ScalarEvent):
            raise Unreadable(_place(event), "a key must be plain text", "expected key: value")
        top = self.open[-1]
        pointer = (*top.pointer, event.value)
        if event.value in top.seen:
            message = DUPLICATE.format(line=self.keys[pointer][0])
            self.findings.append(Finding(pointer, message, on="key"))
        top.key = event.value
        top.seen.add(event.value)
        self.keys[pointer] = _place(event)

    def add(self, event: Any) -> None:
        pointer = self.pointer()
        self.values[pointer] = _place(event)
        value: Any = {} if isinstance(event, yaml.MappingStartEvent) else []
        if isinstance(event, yaml.ScalarEvent):
            value = _scalar(event)
        self.attach(value)
        if isinstance(event, yaml.CollectionStartEvent):
            if len(self.open) >= MAX_DEPTH:
                raise Unreadable(_place(event), TOO_DEEP)
            self.open.append(_Open(value, pointer))

    def pointer(self) -> Pointer:
        if not self.open:
            return ()
        top = self.open[-1]
        return (*top.pointer, top.key if top.key is not None else str(len(top.value)))

    def attach(self, value: Any) -> None:
        if not self.open:
            self.value = value
            return
        top = self.open[-1]
        if top.key is None:
            top.value.append(value)
        else:
            top.value[top.key], top.key = value, None


def _refuse_what_is_not_plain(event: Any) -> None:
    name = short(event.anchor or "")
    if isinstance(event, yaml.AliasEvent):
        raise Unreadable(_place(event), f"aliases are not allowed: *{name}", "write the value out")
    if name:
        raise Unreadable(_place(event), f"anchors are not allowed: &{name}", "write the value out each time")
    if event.tag is not None:
        tag = event.tag.replace("tag:yaml.org,2002:", "!!")
        raise Unreadable(_place(event), f"tags are not allowed: {short(tag)}", "write the plain value")


def _scalar(event: Any) -> Any:
    if not event.implicit[0]:
        return event.value
    for words, value in _WORDS:
        if words.fullmatch(event.value):
            return value
    return _number(event)


def _number(event: Any) -> Any:
    text = event.value
    if len(text) <= _MAX_DIGITS:
        for kind, base in ((_INTEGER, 10), (_OCTAL, 8), (_HEX, 16)):
            if kind.fullmatch(text):
                return int(text, base)
    if _NOT_FINITE.fullmatch(text):
        raise Unreadable(_place(event), f"expected a finite number, got {text}")
    if _FLOAT.fullmatch(text):
        return _finite(event)
    return text


def _finite(event: Any) -> float:
    value = float(event.value)
    if value in (float("inf"), float("-inf")):
        raise Unreadable(_place(event), f"the number {event.value[:20]} is too large")
    return value


def _place(event: Any) -> Place:
    return event.start_mark.line + 1, event.start_mark.column + 1


def _unreadable(error: yaml.YAMLError, text: str) -> Unreadable:
    if isinstance(error, yaml.reader.ReaderError):
        return Unreadable(_place_of_byte(text, error.position), f"not YAML: {error.reason}", "remove the character")
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    place = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    context = getattr(error, "context", None)
    reason = getattr(error, "problem", None) or "it cannot be read"
    message = f"not YAML: {reason}" + (f" {context}" if context else "")
    return Unreadable(place, message, _hint(reason, place, text))


def _hint(reason: str, place: Place, text: str) -> str:
    lines = text.splitlines()
    line = lines[place[0] - 1] if place[0] <= len(lines) else ""
    if "\t" in line[: len(line) - len(line.lstrip())] or "tab" in reason:
        return "indent with spaces; YAML does not take tabs"
    if place[0] > len(lines) or "end of stream" in reason:
        return "is it still being written?"
    return "a value with ': ' or '#' in it needs quotes" if "mapping values" in reason else ""


def _place_of_byte(text: str, position: int) -> Place:
    before = text.encode()[:position].decode(errors="replace")
    return before.count("\n") + 1, len(before) - before.rfind("\n")
