"""From predictions, one per row, to the message that an operation returns.

The predictions go into the first field of the message, in the order in which the schema writes them, that holds them
all: a repeated field one per row, a field that is not repeated where there is one row only. Where the request was one
row rather than a table or lines, an object with a value for every field of the message fills it by name, and a repeated
field takes the items of a prediction that is a list.

A whole number fits fields of whole numbers and of fractions, a fraction without a rest those of whole numbers, an enum
its number or name, `bytes` base64 text. A `string` holds a text as it is and anything else as JSON. A message holds an
object by name (more than it has fields for is left out), a list in its only field where that is repeated, or item by
field, and a single value in its only field.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import Any

import orjson
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from .unfit import Unfit

MISFIT = (TypeError, ValueError, OverflowError, binascii.Error)


def message(kind: type[Message], predictions: Sequence[Any], one_row: bool) -> Message:
    """`Unfit` when no field holds `predictions`. `one_row`: the request was a message that is one row by itself."""
    descriptor = kind.DESCRIPTOR
    dropped = [place for place, value in enumerate(predictions) if value is None]
    if dropped:
        raise Unfit(f"row {dropped[0]}: a step dropped it, and a message cannot say so")
    for fill in ways(descriptor, predictions, one_row):
        made = kind()
        try:
            fill(made)
        except MISFIT:
            continue
        return made
    raise Unfit(f"no field of {descriptor.name} holds {_described(predictions)}; it has {_fields(descriptor)}")


def ways(descriptor: Descriptor, predictions: Sequence[Any], one_row: bool) -> list[Callable[[Message], None]]:
    """To fill such a message, the best first."""
    found: list[Callable[[Message], None]] = []
    if one_row and isinstance(predictions[0], dict):
        found.append(lambda made: _by_name(made, predictions[0]))
    for field in descriptor.fields:
        if field.is_repeated:
            found.append(lambda made, field=field: put(made, field, predictions))  # type: ignore[misc]
            if one_row and isinstance(predictions[0], list):
                found.append(lambda made, field=field: put(made, field, predictions[0]))  # type: ignore[misc]
        elif len(predictions) == 1:
            found.append(lambda made, field=field: put(made, field, predictions[0]))  # type: ignore[misc]
    return found


def put(made: Message, field: FieldDescriptor, value: Any) -> None:
    """`value` into `field` of `made`; one of `MISFIT` when it does not fit."""
    if field.is_repeated:
        if not isinstance(value, list | tuple):
            raise TypeError("not a list")
        held = getattr(made, field.name)
        if field.message_type is None:
            held.extend([scalar(field, item) for item in value])
        else:
            for item in value:
                fill(held.add(), item)
    elif field.message_type is not None:
        getattr(made, field.name).SetInParent()
        fill(getattr(made, field.name), value)
    else:
        setattr(made, field.name, scalar(field, value))


def fill(made: Message, value: Any) -> None:
    """A message from one value."""
    fields = made.DESCRIPTOR.fields
    if isinstance(value, dict):
        _by_name(made, value)
    elif len(fields) == 1:
        put(made, fields[0], value if isinstance(value, list) or not fields[0].is_repeated else [value])
    elif isinstance(value, list) and len(value) == len(fields):
        for field, item in zip(fields, value, strict=True):
            put(made, field, item)
    else:
        raise TypeError("neither an object nor one value a field")


def _by_name(made: Message, value: dict[str, Any]) -> None:
    fields = made.DESCRIPTOR.fields
    if not fields or any(field.name not in value for field in fields):
        raise TypeError("not a value for every field")
    for field in fields:
        put(made, field, value[field.name])


def scalar(field: FieldDescriptor, value: Any) -> Any:
    """`value` as one of `field`; one of `MISFIT` when it is none."""
    if field.enum_type is not None:
        names = field.enum_type.values_by_name
        return names[value].number if isinstance(value, str) and value in names else _whole(value)
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_BOOL:
            if not isinstance(value, bool):
                raise TypeError("not a boolean")
            return value
        case FieldDescriptor.CPPTYPE_DOUBLE | FieldDescriptor.CPPTYPE_FLOAT:
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise TypeError("not a number")
            return float(value)
        case FieldDescriptor.CPPTYPE_STRING:
            if field.type == FieldDescriptor.TYPE_BYTES:
                return base64.b64decode(value, validate=True)
            return value if isinstance(value, str) else orjson.dumps(value, None, orjson.OPT_SERIALIZE_NUMPY).decode()
    return _whole(value)


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value):
        raise TypeError("not a whole number")
    return int(value)


def _described(predictions: Sequence[Any]) -> str:
    first = predictions[0]
    kind = {bool: "booleans", str: "texts", dict: "objects", list: "lists"}.get(type(first), "numbers")
    return f"{len(predictions)} predictions that are {kind}, such as {str(first)[:60]!r}"


def _fields(descriptor: Descriptor) -> str:
    return ", ".join(f"{'repeated ' * field.is_repeated}{field.name}" for field in descriptor.fields) or "none"
