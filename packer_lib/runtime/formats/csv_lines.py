"""CSV without a header, in UTF-8. Lines of plain numbers, which is what models get, are read and written by orjson."""

from __future__ import annotations

import csv
import io
from typing import Any

import orjson

from . import Format

_NUMBERS = b"0123456789+-.eE,\n"
_PLAIN = {int, float}
_LARGEST = 1 << 63


class Csv(Format):
    """One line is a list of cells, several are a list of such lists. A cell that reads as a number is one: an integer
    of up to 64 bits, else a float; `nan` and `inf` are floats, everything else is text."""

    media = "text/csv"

    def decode(self, data: bytes) -> Any:
        lines = rows(data)
        return lines[0] if len(lines) == 1 else lines

    def encode(self, value: Any) -> bytes:
        if type(value) is list and value and _PLAIN.issuperset(map(type, value)):
            line = orjson.dumps(value)[1:-1]
            if b"n" not in line:  # null: it has no NaN, csv has
                return line
        return _write(value)


def rows(data: bytes) -> list[Any]:
    """A list of cells per line, `ValueError` when there is none."""
    lines = _numbers(data.rstrip(b"\r\n").replace(b"\r\n", b"\n")) or _rows(data)
    if not lines:
        raise ValueError("no line in it")
    return lines


def _numbers(data: bytes) -> list[Any]:
    """The rows of `data` when all its cells are numbers as JSON writes them, else none."""
    if not data or data.translate(None, _NUMBERS):
        return []
    try:
        rows: list[Any] = orjson.loads(b"[[" + data.replace(b"\n", b"],[") + b"]]")
    except orjson.JSONDecodeError:
        return []
    return rows


def _rows(data: bytes) -> list[Any]:
    lines = csv.reader(io.StringIO(data.decode("utf-8"), newline=""), strict=True)
    return [[_cell(cell) for cell in row] for row in lines]


def _cell(text: str) -> Any:
    """`1_000` is a number to Python only."""
    if "_" in text:
        return text
    try:
        number = int(text)
        return number if -_LARGEST <= number < 2 * _LARGEST else float(number)
    except (ValueError, OverflowError):
        pass
    try:
        return float(text)
    except ValueError:
        return text


def _write(value: Any) -> bytes:
    value = value.tolist() if hasattr(value, "tolist") else value  # what NumPy calculates
    rows = value if isinstance(value, list) else [value]
    if not any(isinstance(row, list) for row in rows):
        rows = [rows]
    if any(not isinstance(row, list) for row in rows) or any(
        isinstance(cell, list | dict | bytes) for row in rows for cell in row
    ):
        raise ValueError("csv holds a cell, a list of cells or a list of such lists")
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().removesuffix("\n").encode("utf-8")
