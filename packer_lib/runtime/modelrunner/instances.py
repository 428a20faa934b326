"""From a message to what the first step is asked about, which is what `/predict` would have in its `data`.

A message whose only field is a repeated message is a **table**: each of those is a row, and one instance. Any other
message is one row. (In a CSV file for such a message each line is a row.)

A row is, by the first rule that holds,
1. a list: its only field is repeated. Numbers (`repeated double x`) make a plain list, messages a list of rows: a
   window of rows is a message of repeated messages;
2. for a code step, an object: field name → value, messages as objects;
3. for a model, the text itself, where its only field is one text; else the list of its values in the order in which the
   schema writes the fields, those of repeated fields and of inner messages one after the other.

An enum is its number, bytes are base64 text, as JSON has them; a field that is not set has its default, null if it is
`optional`.
"""

from __future__ import annotations

import base64
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from .unfit import Unfit

ROWS = 1_000_000


def is_table(descriptor: Descriptor) -> bool:
    """Whether its rows are what one predicts for."""
    only = descriptor.fields
    return len(only) == 1 and only[0].is_repeated and only[0].message_type is not None


def rows(message: Message) -> list[Message]:
    """The rows of a table, or the message itself; `Unfit` for a table without rows."""
    descriptor = message.DESCRIPTOR
    if not is_table(descriptor):
        return [message]
    found = list(getattr(message, descriptor.fields[0].name))
    if not 0 < len(found) <= ROWS:
        raise Unfit(f"{descriptor.name}.{descriptor.fields[0].name} has {len(found)} rows; send 1 to {ROWS}")
    return found


def instance(row: Message, plain: bool) -> Any:
    """What `row` is to the first step; `plain`: it is a model, and takes lists rather than objects."""
    fields = row.DESCRIPTOR.fields
    if not fields:
        raise Unfit(f"{row.DESCRIPTOR.name} has no field, so that there is nothing to predict for")
    if len(fields) == 1 and fields[0].is_repeated:
        return [_value(fields[0], item, plain) for item in getattr(row, fields[0].name)]
    if not plain:
        return {field.name: _named(row, field) for field in fields}
    if len(fields) == 1 and fields[0].type == FieldDescriptor.TYPE_STRING:
        return getattr(row, fields[0].name)
    return _flat(row)


def _named(row: Message, field: FieldDescriptor) -> Any:
    if field.is_repeated:
        return [_value(field, item, False) for item in getattr(row, field.name)]
    if field.has_presence and not row.HasField(field.name):
        return None
    return _value(field, getattr(row, field.name), False)


def _flat(row: Message) -> list[Any]:
    values: list[Any] = []
    for field in row.DESCRIPTOR.fields:
        if field.is_repeated and field.message_type is not None:
            raise Unfit(
                f"{row.DESCRIPTOR.name}.{field.name} is a repeated message beside other fields, and a model takes plain"
                " rows: let the message have that field alone"
            )
        if field.is_repeated:
            values += [_value(field, item, True) for item in getattr(row, field.name)]
        elif field.has_presence and not row.HasField(field.name) and field.message_type is None:
            values.append(None)
        elif field.message_type is not None:
            values += _inner(row, field)
        else:
            values.append(_value(field, getattr(row, field.name), True))
    return values


def _inner(row: Message, field: FieldDescriptor) -> list[Any]:
    if not row.HasField(field.name):  # and a message that holds itself ends here
        raise Unfit(f"{row.DESCRIPTOR.name}.{field.name} is not set, and a model takes all the values of a row")
    return _flat(getattr(row, field.name))


def _value(field: FieldDescriptor, value: Any, plain: bool) -> Any:
    if field.message_type is not None:
        return instance(value, plain)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return base64.b64encode(value).decode()
    return value
