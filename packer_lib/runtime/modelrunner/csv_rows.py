"""A CSV file as a message, or as one message a line, the way Acumos reads it.

The header names fields; lines are split at plain commas, there are no quotes. A column goes to every field of its
name, at any depth. Line by line, a repeated field of scalars gets what is in all columns of its name, a repeated
message gets one more message, filled from that line. An empty or missing cell is skipped; enum cells are numbers,
booleans `true` and `false`; the bytes of a `bytes` field are the cell's own.

Where Acumos drops values in silence this refuses: a column that no field is named after, a line longer than the header,
and a field that is not repeated but has different values in several lines (there, the last one wins).
Source: acumos/generic-model-runner, RunnerController.java, getInputBuilder.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from .unfit import Unfit

CELLS = 5_000_000  # of one file, counted as often as they are used
LEAVES = 5_000  # fields at all depths, counted as often as they occur


@dataclass(frozen=True, slots=True)
class Filling:
    """How one field gets its values: from the cells in `columns` by `read`, or, a message, by `inner`."""

    field: FieldDescriptor
    columns: tuple[int, ...] = ()
    read: Callable[[str], Any] = str
    inner: tuple[Filling, ...] = ()


Line = tuple[int, list[str]]  # its number in the file, and its cells


def lines_of(text: str) -> tuple[list[str], list[Line]]:
    """The names in the header, and what follows it; `Unfit` when there is neither."""
    if text.count(",") + text.count("\n") > CELLS:
        raise _too_many()
    rows = text.removeprefix("\ufeff").replace("\r\n", "\n").split("\n")
    header = [name.strip() for name in rows[0].split(",")]
    found = [(number, row.split(",")) for number, row in enumerate(rows[1:], 2) if row.strip()]
    if not found:
        raise Unfit("the CSV file needs a header and at least one line below it")
    for number, cells in found:
        if len(cells) > len(header):
            raise Unfit(f"line {number} has {len(cells)} cells, the header {len(header)} (quotes do not hold commas)")
    return header, found


def message(kind: type[Message], text: str) -> Message:
    """The whole file in one message, as `/getBinary` writes it."""
    header, lines = lines_of(text)
    fillings = plan(kind.DESCRIPTOR, header, len(lines))
    made = kind()
    fill(made, fillings, lines)
    return made


def messages(kind: type[Message], text: str) -> list[Message]:
    """One message a line."""
    header, lines = lines_of(text)
    fillings = plan(kind.DESCRIPTOR, header, len(lines))
    found = []
    for line in lines:
        made = kind()
        fill(made, fillings, [line])
        found.append(made)
    return found


def plan(descriptor: Descriptor, header: Sequence[str], lines: int) -> tuple[Filling, ...]:
    """How `header` fills a message of that type; `Unfit` for a column without a field, or too much work."""
    columns: dict[str, list[int]] = {}
    for place, name in enumerate(header):
        columns.setdefault(name, []).append(place)
    counted = Counted(columns)
    fillings = counted.fillings(descriptor, ())
    for name in columns:
        if name not in counted.used:
            near = get_close_matches(name, counted.names, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else f"; it has {', '.join(sorted(counted.names))}"
            raise Unfit(f"the header names {name!r}, which no field of {descriptor.name} is called{hint}")
    if counted.cost * lines > CELLS:
        raise _too_many()
    return fillings


def _too_many() -> Unfit:
    return Unfit(f"the file has more than {CELLS} cells; send it in parts")


class Counted:
    """The fillings of a message, with what they use of the columns and cost a line."""

    def __init__(self, columns: dict[str, list[int]]) -> None:
        self._columns = columns
        self.names: set[str] = set()
        self.used: set[str] = set()
        self.cost = 0
        self._leaves = 0

    def fillings(self, descriptor: Descriptor, around: tuple[str, ...]) -> tuple[Filling, ...]:
        if descriptor.full_name in around:
            raise Unfit(f"{descriptor.name} holds itself, which no CSV file can say; send JSON")
        inside = (*around, descriptor.full_name)
        return tuple(self._filling(field, inside) for field in descriptor.fields)

    def _filling(self, field: FieldDescriptor, around: tuple[str, ...]) -> Filling:
        self._leaves += 1
        if self._leaves > LEAVES:
            raise Unfit(f"the message has more than {LEAVES} fields, at all depths; send JSON")
        self.cost += 1
        if field.message_type is not None:
            return Filling(field, inner=self.fillings(field.message_type, around))
        self.names.add(field.name)
        columns = tuple(self._columns.get(field.name, ()))
        if columns:
            self.used.add(field.name)
            self.cost += len(columns)
        return Filling(field, columns, reader(field))


def fill(made: Message, fillings: tuple[Filling, ...], lines: Sequence[Line]) -> None:
    for filling in fillings:
        for line in lines:
            (_fill_inner if filling.inner or filling.field.message_type else _fill_cells)(made, filling, line)


def _fill_inner(made: Message, filling: Filling, line: Line) -> None:
    name = filling.field.name
    if filling.field.is_repeated:
        fill(getattr(made, name).add(), filling.inner, [line])
        return
    there = made.HasField(name)
    inner = type(getattr(made, name))()
    fill(inner, filling.inner, [line])
    if there and getattr(made, name) != inner:
        raise _twice(filling, line)
    getattr(made, name).CopyFrom(inner)


def _fill_cells(made: Message, filling: Filling, line: Line) -> None:
    number, cells = line
    values = [cells[place] for place in filling.columns if place < len(cells) and cells[place]]
    if not values:
        return
    name = filling.field.name
    try:
        if filling.field.is_repeated:
            getattr(made, name).extend([filling.read(cell) for cell in values])
            return
        value, former = filling.read(values[0]), getattr(made, name)
        set_before = made.HasField(name) if filling.field.has_presence else former != filling.field.default_value
        setattr(made, name, value)
    except (ValueError, TypeError) as error:
        raise Unfit(f"line {number}: {name} is {kind_of(filling.field)}, got {values[0]!r}: {error}") from None
    if set_before and getattr(made, name) != former:
        raise _twice(filling, line)


def _twice(filling: Filling, line: Line) -> Unfit:
    message = filling.field.containing_type.name
    return Unfit(
        f"line {line[0]}: {message}.{filling.field.name} has a value already; {message} holds one row: for more, let"
        " the message that the operation takes have a repeated message"
    )


def kind_of(field: FieldDescriptor) -> str:
    """What people call the type of a field of no message."""
    if field.enum_type is not None:
        return f"enum {field.enum_type.name} (a number)"
    return NAMES[field.type]


def reader(field: FieldDescriptor) -> Callable[[str], Any]:
    """From a cell to a value of that field; raises `ValueError`."""
    if field.enum_type is not None:
        known = field.enum_type.values_by_number
        return lambda cell: _declared(int(cell), known)
    return READERS[field.cpp_type] if field.type != FieldDescriptor.TYPE_BYTES else str.encode


def _declared(number: int, known: Any) -> int:
    if number not in known:
        raise ValueError(f"it has {', '.join(map(str, sorted(known)))}")
    return number


def _boolean(cell: str) -> bool:
    word = cell.strip().lower()
    if word not in {"true", "false", "1", "0"}:
        raise ValueError("it is true or false")
    return word in {"true", "1"}


READERS: dict[int, Callable[[str], Any]] = {
    FieldDescriptor.CPPTYPE_INT32: int,
    FieldDescriptor.CPPTYPE_INT64: int,
    FieldDescriptor.CPPTYPE_UINT32: int,
    FieldDescriptor.CPPTYPE_UINT64: int,
    FieldDescriptor.CPPTYPE_DOUBLE: float,
    FieldDescriptor.CPPTYPE_FLOAT: float,
    FieldDescriptor.CPPTYPE_BOOL: _boolean,
    FieldDescriptor.CPPTYPE_STRING: str,
}
NAMES = {
    getattr(FieldDescriptor, name): name.removeprefix("TYPE_").lower()
    for name in dir(FieldDescriptor)
    if name.startswith("TYPE_")
}
