from __future__ import annotations

import io
import subprocess
import sys
from typing import Any

import numpy
import pytest

from packer_lib.runtime import formats


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("json", {"data": [1, 2.5, None, "ä"], "flag": True}),
        ("csv", [1, 2.5, "text"]),
        ("csv", [[1, 2], [3, 4]]),
        ("csv", ["a,b", 'with "quotes"', "two\nlines"]),
        ("npy", [[1.0, 2.0], [3.0, 4.0]]),
        ("npy", 3),
        ("msgpack", {"data": [1, 2.5, None, "ä"], 7: b"\xff"}),
        ("raw", b"\x00\xff"),
    ],
)
def test_what_a_format_says_it_reads_again(name: str, value: Any) -> None:
    found = formats.find(name)
    assert found.decode(found.encode(value)) == value


def test_csv_reads_cells_as_the_numbers_they_are() -> None:
    assert formats.find("csv").decode(b"1,-2.5,1e3,x,\r\n") == [1, -2.5, 1000.0, "x", ""]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("json", b"{"),
        ("json", b"\xff"),
        ("json", b"NaN"),
        ("csv", b""),
        ("csv", b'"open'),
        ("npy", b"no array"),
        ("msgpack", b"\xc1"),
        ("msgpack", b"\x01\x02"),
        ("msgpack", b""),
    ],
)
def test_bytes_of_another_format_are_refused(name: str, data: bytes) -> None:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - each library has its own
        formats.find(name).decode(data)
    assert str(caught.value) or caught.type.__name__


def test_an_array_of_objects_is_never_unpickled() -> None:
    harmful = io.BytesIO()
    numpy.save(harmful, numpy.array([print], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="allow_pickle=False"):
        formats.find("npy").decode(harmful.getvalue())


@pytest.mark.parametrize(
    ("name", "value"),
    [("json", object()), ("csv", [{"a": 1}]), ("npy", [object()]), ("msgpack", object()), ("raw", 5)],
)
def test_a_value_that_a_format_cannot_say_is_refused(name: str, value: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        formats.find(name).encode(value)


def test_json_says_what_numpy_calculates() -> None:
    value = {"array": numpy.arange(3), "number": numpy.float32(0.5), 1: numpy.int64(2)}
    assert formats.find("json").encode(value) == b'{"array":[0,1,2],"number":0.5,"1":2}'


def test_an_unknown_format_is_answered_with_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"unknown format 'xml': there is json, csv, npy, msgpack, raw"):
        formats.find("xml")


def test_numpy_and_msgpack_are_imported_only_where_they_are_used() -> None:
    code = (
        "import sys; from packer_lib.runtime import formats;"
        "[formats.find(name) for name in ('json', 'csv', 'raw')];"
        "print([name for name in ('numpy', 'msgpack') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
