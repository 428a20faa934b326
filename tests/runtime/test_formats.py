from __future__ import annotations

import io
import math
import struct
import subprocess
import sys
from typing import Any

import msgpack
import numpy
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as some

from packer_lib.runtime import formats
from packer_lib.runtime.formats import NotRead

SCALARS = (
    some.none() | some.booleans() | some.integers(-(2**63), 2**63 - 1) | some.floats(allow_nan=False) | some.text()
)
VALUES = some.recursive(
    SCALARS, lambda inner: some.lists(inner, max_size=5) | some.dictionaries(some.text(), inner, max_size=5)
)
NUMBERS = some.integers(-(2**63), 2**63 - 1) | some.floats(allow_nan=False)
SHAPES = some.lists(some.integers(1, 4), max_size=3).map(tuple)
DTYPES = some.sampled_from(["<f4", "<f8", ">f8", "<i8", "|u1", "|b1", "<f2", "<U3"])


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
        ("json", b"[" * 200 + b"]" * 200),
        ("json", b'{"a":' * 200 + b"1" + b"}" * 200),
        ("msgpack", b"\x91" * 200 + b"\x01"),
        ("msgpack", b"\xdd\xff\xff\xff\xff"),
    ],
)
def test_bytes_of_another_format_are_refused(name: str, data: bytes) -> None:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - each library has its own
        formats.find(name).decode(data)
    assert str(caught.value) or caught.type.__name__


def test_an_array_of_objects_is_never_unpickled() -> None:
    harmful = io.BytesIO()
    numpy.save(harmful, numpy.array([print], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="never unpickled"):
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


@given(VALUES)
def test_any_json_value_comes_back(value: Any) -> None:
    found = formats.find("json")
    assert found.decode(found.encode(value)) == _as_json(value)


def _as_json(value: Any) -> Any:
    """Infinities are null."""
    if isinstance(value, float) and math.isinf(value):
        return None
    if isinstance(value, list):
        return [_as_json(item) for item in value]
    return {key: _as_json(item) for key, item in value.items()} if isinstance(value, dict) else value


@given(VALUES)
def test_any_messagepack_value_comes_back(value: Any) -> None:
    found = formats.find("msgpack")
    assert found.decode(found.encode(value)) == value


@given(
    some.lists(some.lists(NUMBERS, min_size=1, max_size=4), min_size=2, max_size=4) | some.lists(NUMBERS, min_size=1)
)
def test_any_table_of_numbers_comes_back_as_csv(value: Any) -> None:
    found = formats.find("csv")
    assert found.decode(found.encode(value)) == value


@given(some.lists(NUMBERS, min_size=1, max_size=6))
def test_numbers_in_csv_mean_the_same_whichever_way_they_are_read(numbers: list[Any]) -> None:
    line = ",".join(map(repr, numbers)).encode()
    plain, beside_a_text = formats.find("csv").decode(line), formats.find("csv").decode(line + b",x")
    assert [*plain, "x"] == beside_a_text
    assert [type(cell) for cell in plain] == [type(cell) for cell in beside_a_text[:-1]]


@pytest.mark.parametrize(
    ("line", "cells"),
    [
        (b"1, 2", [1, 2]),
        (b"01,+2,.5,1.", [1, 2, 0.5, 1.0]),
        (b"1_000", ["1_000"]),
        (b"-", ["-"]),
        (b"1,,3", [1, "", 3]),
        (b"36893488147419103232", [36893488147419103232.0]),
        (b"1\r\n2\r\n", [[1], [2]]),
        (b"1e400", [math.inf]),
    ],
)
def test_cells_of_csv(line: bytes, cells: list[Any]) -> None:
    assert formats.find("csv").decode(line) == cells


def test_csv_has_nan_and_json_has_not() -> None:
    assert formats.find("csv").encode([1, math.nan]) == b"1,nan"
    assert math.isnan(formats.find("csv").decode(b"nan")[0])
    assert formats.find("json").encode([1, math.nan]) == b"[1,null]"


def array(dtype: str, shape: tuple[int, ...], seed: int = 0) -> numpy.ndarray[Any, Any]:
    size = math.prod(shape) * numpy.dtype(dtype).itemsize
    if numpy.dtype(dtype).kind == "U":
        return numpy.full(shape, "abc"[: seed % 3 + 1], dtype)
    return numpy.frombuffer(numpy.random.default_rng(seed).integers(0, 2, size, "u1").tobytes(), dtype).reshape(shape)


@given(some.lists(some.tuples(DTYPES, SHAPES, some.booleans()), max_size=8))
def test_arrays_of_any_kind_in_any_row_are_read_as_numpy_reads_them(
    kinds: list[tuple[str, tuple[int, ...], bool]],
) -> None:
    arrays = [array(dtype, shape, seed) for seed, (dtype, shape, _) in enumerate(kinds)]
    arrays = [numpy.asfortranarray(one) if kind[2] else one for one, kind in zip(arrays, kinds, strict=True)]
    written = [io.BytesIO() for _ in arrays]
    for one, stream in zip(arrays, written, strict=True):
        numpy.save(stream, one)
    found = formats.find("npy").decode_all([stream.getvalue() for stream in written])
    assert repr(found) == repr([one.tolist() for one in arrays])  # repr: NaN is NaN


@given(DTYPES, SHAPES)
def test_what_npy_says_numpy_reads(dtype: str, shape: tuple[int, ...]) -> None:
    value = array(dtype, shape).tolist()
    said = numpy.load(io.BytesIO(formats.find("npy").encode(value)), allow_pickle=False)
    assert repr(said.tolist()) == repr(value)


def npy(shape: str, dtype: str = "|u1", body: bytes = b"") -> bytes:
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + body


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (npy("(1000000000, 0)"), "more lists than elements"),
        (npy("(5000, 1, 1, 1)", body=bytes(5000)), "more lists than elements"),
        (npy("(1000000000000,)", body=b"12"), "says 1000000000000 bytes of data, there are 2"),
        (npy("(2,)", body=b"123"), "says 2 bytes of data, there are 3"),
        (npy("(1,)", "<c8", bytes(8)), "an array of complex64"),
        (npy("(1,)", "<M8[s]", bytes(8)), "an array of datetime64"),
        (npy("(1,)", "|O", bytes(8)), "never unpickled"),
        (npy("__import__('os').system('true')"), ""),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff", "claims 4294967307 bytes"),
        (b"\x93NUMPY\x07\x00" + bytes(10), "no .npy header"),
        (b"", "no .npy header"),
    ],
)
def test_an_array_that_claims_more_than_it_is_is_refused(data: bytes, reason: str) -> None:
    (found,) = formats.find("npy").decode_all([data])
    assert isinstance(found, NotRead)
    assert reason in found.reason


def test_an_empty_array_is_an_empty_list() -> None:
    assert formats.find("npy").decode_all([npy("(0,)"), npy("(2, 0)"), npy("()", body=b"1")]) == [[], [[], []], 49]


GOOD = {
    "json": [b"1", b'{"a":[1]}', b"[[1]]"],
    "csv": [b"1,2", b"a,b", b"1\n2"],
    "npy": [npy("(1,)", body=b"1"), npy("(2,)", body=b"12")],
    "msgpack": [msgpack.packb(1), msgpack.packb([1])],
}
BAD = {"json": [b"[1", b"2],3", b"", b"NaN"], "csv": [b"", b'"'], "npy": [b"", b"\x93NUMPY"], "msgpack": [b"", b"\x91"]}


@pytest.mark.parametrize("name", GOOD)
@given(picks=some.lists(some.tuples(some.booleans(), some.integers(0, 3)), max_size=8))
def test_a_bad_message_never_changes_its_neighbours(name: str, picks: list[tuple[bool, int]]) -> None:
    """Two of the bad JSON ones make sense when they are laid beside each other."""
    found = formats.find(name)
    datas = [(GOOD if good else BAD)[name][number % len((GOOD if good else BAD)[name])] for good, number in picks]
    for data, (good, _), value in zip(datas, picks, found.decode_all(datas), strict=True):
        assert value == found.decode(data) if good else isinstance(value, NotRead)


def test_depth_is_bounded_by_what_is_really_nested() -> None:
    wide = [[1]] * 1000
    assert formats.find("json").decode(orjson.dumps(wide)) == wide
    brackets = {"a": "[" * 1000}
    assert formats.find("json").decode_all([orjson.dumps(brackets)]) == [brackets]
    (found,) = formats.find("json").decode_all([b"[" * 200 + b"]" * 200])
    assert found == NotRead("more than 128 lists or objects in one another")


def test_numpys_numbers_can_be_said_in_every_format() -> None:
    value = numpy.arange(3, dtype="f4")
    assert formats.find("msgpack").encode(value) == msgpack.packb([0.0, 1.0, 2.0])
    assert formats.find("csv").encode(value) == b"0.0,1.0,2.0"
    assert formats.find("json").encode(value) == b"[0.0,1.0,2.0]"
