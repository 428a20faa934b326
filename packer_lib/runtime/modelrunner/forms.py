"""From a form to the messages that it is about: its operation, by its schema or the unit's, and its file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import parse_qs

from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message

from . import csv_rows
from .instances import is_table
from .multipart import Part
from .routes import Route
from .schema import Operation, ProtoInvalid, Schema, schema
from .unfit import Unfit

CSV = {"text/csv", "application/vnd.ms-excel"}
NO_MODEL = (
    "a model is not taken on this port. Send no part 'model' to be answered by the unit's own; another one is tried, or"
    " put in its place, on the admin port (MLPACKER_ADMIN_PORT, with MLPACKER_TOKEN) or by: mlpacker swap"
)


@dataclass(frozen=True, slots=True)
class Asked:
    """`messages` of an `operation`, which are its input: one, or one a line of a CSV file."""

    operation: Operation
    messages: list[Message]


def require_no_model(parts: Mapping[str, Part]) -> None:
    if parts.get("model", Part()).data:
        raise Unfit(NO_MODEL)


def asked(route: Route, query: bytes, parts: Mapping[str, Part], own: Callable[[], Schema]) -> Asked:
    """`Unfit` says what of the form cannot be used; `own` gives the unit's schema."""
    check_names(route, parts)
    found = operation(_schema(parts.get("proto", Part()), own), _operation_name(query, parts))
    file = parts[route.data]
    if not file.data:
        raise Unfit(f"the part {route.data!r} is empty")
    if route.data == "jsonFile":
        return Asked(found, [_from_json(found.takes, file)])
    text = _csv_text(file)
    if route.predicts and not is_table(found.takes.DESCRIPTOR):
        return Asked(found, csv_rows.messages(found.takes, text))
    return Asked(found, [csv_rows.message(found.takes, text)])


def from_bytes(name: str, body: bytes, own: Schema) -> Asked:
    """What `/model/methods/{name}` is asked about."""
    found = operation(own, name)
    made = found.takes()
    try:
        made.ParseFromString(body)
    except DecodeError as error:
        raise Unfit(f"the body is not a {found.takes.DESCRIPTOR.name} in protobuf: {error}") from None
    return Asked(found, [made])


def operation(used: Schema, name: str) -> Operation:
    there = ", ".join(used.operations)
    if not name:
        raise Unfit(f"there is no operation; name one, in the query or as a field of the form: {there}")
    if name not in used.operations:
        raise Unfit(f"the schema has no operation {name!r}, only {there}")
    return used.operations[name]


def check_names(route: Route, parts: Mapping[str, Part]) -> None:
    known = (route.data, *route.beside)
    if unknown := sorted(parts.keys() - set(known)):
        raise Unfit(f"the form has a part {unknown[0]!r}; this route takes {', '.join(known)}")
    needed = [route.data, *(["proto"] if route.verb == "POST" and "proto" in route.beside else [])]
    if missing := [name for name in needed if name not in parts]:
        raise Unfit(f"the form has no part {missing[0]!r}; this route takes {', '.join(known)}")


def _schema(part: Part, own: Callable[[], Schema]) -> Schema:
    """That of the part, or `own` when it is empty, as in the original."""
    if not part.data:
        return own()
    try:
        return schema(text_of(part))
    except ProtoInvalid as error:
        raise Unfit(f"proto: {error}") from None


def _operation_name(query: bytes, parts: Mapping[str, Part]) -> str:
    names = parse_qs(query.decode("latin-1")).get("operation", [])
    if "operation" in parts:
        names = [*names, text_of(parts["operation"]).strip()]
    if len(set(names)) > 1:
        raise Unfit(f"more than one operation is named: {', '.join(sorted(set(names)))}")
    return names[0] if names else ""


def _csv_text(part: Part) -> str:
    if part.kind not in CSV:
        raise Unfit(f"the content type of {part.name!r} is {part.kind!r}; send {' or '.join(sorted(CSV))}")
    return text_of(part)


def _from_json(kind: type[Message], part: Part) -> Message:
    if "json" not in part.kind:
        raise Unfit(f"the content type of {part.name!r} is {part.kind!r}; send application/json")
    made = kind()
    try:
        json_format.Parse(text_of(part), made)
    except (json_format.ParseError, ValueError, RecursionError) as error:
        raise Unfit(f"{part.name} is not a {kind.DESCRIPTOR.name} in JSON: {error}") from None
    return made


def text_of(part: Part) -> str:
    try:
        return part.data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Unfit(f"{part.name} is not UTF-8: {error.reason} at byte {error.start}") from None
