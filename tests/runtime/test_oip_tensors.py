"""Tensors of the Open Inference Protocol: what is read is what was written, in JSON, nested or flat, and in binary."""

from __future__ import annotations

import json
import math
from contextlib import suppress
from typing import Any

import numpy
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from packer_lib.runtime.oip_bodies import answer, parse
from packer_lib.runtime.oip_tensors import DTYPES, Array, Tail, Tensor, read, rows, tensor
from packer_lib.runtime.predict import Refused

SHAPES = arrays.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=4)
TEXTS = st.text(st.characters(codec="utf-8"), max_size=20)


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    """Of every datatype, numbers that are none and infinite ones aside, which JSON has not."""
    datatype = draw(st.sampled_from([*DTYPES, "BYTES", "BYTES of bytes"]))
    shape = draw(SHAPES)
    if datatype in DTYPES:
        finite = {"allow_nan": False, "allow_infinity": False} if datatype.startswith("FP") else {}
        elements = arrays.from_dtype(DTYPES[datatype], **finite)
        return Tensor(datatype, draw(arrays.arrays(DTYPES[datatype], shape, elements=elements)))
    raw = datatype == "BYTES of bytes"
    values = draw(st.lists(st.binary(max_size=20) if raw else TEXTS, min_size=math.prod(shape), max_size=4**4))
    array = numpy.empty(math.prod(shape), dtype=object)
    array[:] = values[: math.prod(shape)]
    return Tensor("BYTES", array.reshape(shape), "base64" if raw else "")


def same(one: Array, other: Array) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and one.tolist() == other.tolist()


class TestWhatIsWrittenIsRead:
    @given(tensors())
    def test_in_flat_json(self, given: Tensor) -> None:
        said = orjson.loads(orjson.dumps(given.in_json(), None, orjson.OPT_SERIALIZE_NUMPY))
        assert not any(isinstance(each, list) for each in said["data"])
        assert same(read(said, Tail(memoryview(b""))), given.array)

    @given(tensors().filter(lambda each: not each.content_type))
    def test_in_nested_json_as_python_writes_it(self, given: Tensor) -> None:
        said = json.loads(json.dumps({**given.in_json(), "data": given.array.tolist()}))
        assert same(read(said, Tail(memoryview(b""))), given.array)

    @given(st.lists(tensors(), min_size=1, max_size=3))
    def test_in_binary_one_behind_the_other(self, given: list[Tensor]) -> None:
        said = [each.in_binary() for each in given]
        tail = Tail(memoryview(b"".join(data for _, data in said)))
        for each, (head, _) in zip(given, said, strict=True):
            assert same(read(json.loads(json.dumps(head)), tail), each.array)
        assert tail.left == 0

    @given(tensors(), st.booleans())
    def test_through_the_bodies_of_a_request_and_its_answer(self, given: Tensor, binary: bool) -> None:
        made = answer({"id": "7"}, given.array.tolist(), binary)
        length = dict(made.headers).get(b"inference-header-content-length")
        [output] = json.loads(made.body[: int(length)] if length else made.body)["outputs"]
        back = read(output, Tail(memoryview(made.body)[int(length or len(made.body)) :]))
        assert back.tolist() == given.array.tolist()
        assert (made.kind == b"application/octet-stream") is binary


def said(**changed: Any) -> dict[str, Any]:
    return {"shape": [2, 2], "datatype": "FP32", "data": [1, 2, 3, 4], **changed}


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (said(shape=[2, 3]), "data is of shape [4], shape says [2, 3]"),
        (said(data=[[1, 2, 3, 4]]), "data is of shape [1, 4], shape says [2, 2]"),
        (said(data=[[1, 2], [3]]), "data has lists of different lengths"),
        (said(data=[1, 2, 3, "4"]), "FP32 data has a text in it"),
        (said(data=[1, 2, 3, True]), "FP32 data has a boolean in it"),
        (said(data=[1, 2, 3, {}]), "FP32 data has an object in it"),
        (said(data=[1, 2, 3, 1e39]), "data has a number that is out of the range of FP32"),
        (said(datatype="INT8", data=[1, 2, 3, 128]), "data has a number that is out of the range of INT8"),
        (said(datatype="UINT64", data=[1, 2, 3, -1]), "data has a number that is out of the range of UINT64"),
        (said(datatype="INT64", data=[1, 2, 3, 2**64 - 1]), "data has a number that is out of the range of INT64"),
        (said(datatype="INT32", data=[1, 2, 3, 4.5]), "INT32 data has a fraction in it"),
        (said(datatype="BOOL"), "BOOL data has an integer in it"),
        (said(datatype="BYTES", data=["a", "b", "c", 4]), "BYTES data has an integer in it; send texts"),
        (said(datatype="BF16"), "datatype is 'BF16'; there is BOOL, UINT8"),
        (said(datatype=["FP32"]), "datatype is \"['FP32']\"; there is BOOL"),
        (said(shape=[2, -1]), "shape is [2, -1], not a list of lengths"),
        (said(shape=[True, 4]), "shape is [True, 4], not a list of lengths"),
        (said(shape="2,2"), "shape is 2,2, not a list of lengths"),
        (said(shape=[]), "shape has 0 dimensions; 1 to 32"),
        (said(shape=[1] * 33), "shape has 33 dimensions; 1 to 32"),
        (said(shape=[10**12, 0], data=[]), "shape is [1000000000000, 0]: rows without elements"),
        (said(data=5), "data is not a list"),
        (said(parameters=[]), "parameters is not an object"),
        ({"shape": [1], "datatype": "FP32"}, 'it needs "data" or parameters.binary_data_size, one of the two'),
        (said(parameters={"binary_data_size": 16}), 'it needs "data" or parameters.binary_data_size, one of the two'),
        (
            said(datatype="BYTES", data=["%"] * 4, parameters={"content_type": "base64"}),
            "data is not base64, as content_type says",
        ),
    ],
)
def test_what_does_not_fit_is_said(given: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        read(given, Tail(memoryview(b"")))
    assert str(caught.value).startswith(text)


@pytest.mark.parametrize(
    ("datatype", "data", "text"),
    [
        ("FP32", b"1234", "FP32 of shape [2] is 8 bytes, got 4"),
        ("BOOL", b"\x00\x02", "BOOL data has bytes other than 0 and 1"),
        ("BYTES", b"\x01\x00\x00\x00a", "shape says 2 elements, data has only 1"),
        ("BYTES", b"\x00\x00\x00\x00" * 3, "shape says 2 elements, data has more"),
        ("BYTES", b"\xff\xff\xff\xffa", "the length of element 0 goes beyond the end of the data"),
        ("BYTES", b"\x01\x00", "the length of element 0 goes beyond the end of the data"),
        ("BYTES", b"\x00\x00\x00\x00\x01\x00\x00\x00\xff", "BYTES data is not UTF-8"),
    ],
)
def test_bytes_that_do_not_fit_are_said(datatype: str, data: bytes, text: str) -> None:
    given = {"shape": [2], "datatype": datatype, "parameters": {"binary_data_size": len(data)}}
    with pytest.raises(ValueError, match=r".") as caught:
        read(given, Tail(memoryview(data)))
    assert str(caught.value).startswith(text)


def test_null_is_a_float_that_is_not_a_number() -> None:
    assert math.isnan(read(said(data=[None, 1, 2, 3]), Tail(memoryview(b""))).flat[0])


def test_no_rows_are_no_instances() -> None:
    assert rows({"x": read(said(shape=[0, 5], data=[]), Tail(memoryview(b"")))}, plain=False) == []


def test_rows_are_arrays_or_plain_and_of_several_inputs_objects() -> None:
    matrix, texts = numpy.arange(4.0).reshape(2, 2), numpy.array(["a", "b"], dtype=object)
    assert [row.tolist() for row in rows({"x": matrix}, plain=False)] == [[0.0, 1.0], [2.0, 3.0]]
    assert rows({"x": matrix}, plain=True) == [[0.0, 1.0], [2.0, 3.0]]
    expected = [{"x": [0.0, 1.0], "t": "a"}, {"x": [2.0, 3.0], "t": "b"}]
    assert rows({"x": matrix, "t": texts}, plain=False) == expected
    with pytest.raises(ValueError, match="inputs of different lengths: x 2, t 1"):
        rows({"x": matrix, "t": texts[:1]}, plain=False)


@pytest.mark.parametrize(
    ("predictions", "datatype", "shape"),
    [
        ([1, 2], "INT64", [2]),
        ([1, 2**63], "UINT64", [2]),
        ([1, 2.5], "FP64", [2]),
        ([True, False], "BOOL", [2]),
        (["a", "b"], "BYTES", [2]),
        ([[1, 2, 3], [4, 5, 6]], "INT64", [2, 3]),
        ([[[1.0], [2.0]]], "FP64", [1, 2, 1]),
        ([["a", "b"]], "BYTES", [1, 2]),
        ([numpy.float32(1.5), 2], "FP64", [2]),
        ([numpy.array([1, 2])], "INT64", [1, 2]),
        ([], "FP64", [0]),
    ],
)
def test_predictions_become_one_tensor(predictions: list[Any], datatype: str, shape: list[int]) -> None:
    made = tensor(predictions)
    assert (made.datatype, list(made.array.shape), made.content_type) == (datatype, shape, "")


@pytest.mark.parametrize("predictions", [[[1], [1, 2]], [{"a": 1}], [1, None], [True, 1], [1, "a"], [[]], [2**63, -1]])
def test_what_is_no_tensor_is_bytes_of_json(predictions: list[Any]) -> None:
    made = tensor(predictions)
    assert (made.datatype, made.content_type) == ("BYTES", "application/json")
    assert [json.loads(text) for text in made.array] == predictions


def body(**changed: Any) -> bytes:
    return json.dumps({"inputs": [{"name": "x", **said()}], **changed}).encode()


@pytest.mark.parametrize(
    ("sent", "length", "text"),
    [
        (b"{", None, "the body is not JSON"),
        (b"[]", None, 'expected {"inputs": [tensor, …]}'),
        (b"{}", None, 'expected {"inputs": [tensor, …]}, one at least'),
        (body(inputs=[5]), None, 'inputs[0]: expected {"name"'),
        (body(inputs=[{"name": "x", **said()}] * 2), None, "inputs[1]: a second input 'x'"),
        (body(inputs=[{"name": "x", **said(shape=[3])}]), None, "input 'x': data is of shape [4]"),
        (body(outputs=[{"name": "y"}]), None, "there is no output 'y', only 'predict'"),
        (body(outputs={}), None, "outputs is not a list"),
        (body(parameters=[]), None, "parameters is not an object"),
        (body(parameters={"binary_data_output": 1}), None, "binary_data and binary_data_output are true or false"),
        (body(id=5), None, "id is not a text"),
        (body(id="x" * 1025), None, "id has 1025 characters"),
        (body() + b"12", str(len(body())).encode(), "2 bytes more than the inputs' binary_data_size say"),
        (body(), b"9999", "Inference-Header-Content-Length is '9999'"),
        (body(), b"-1", "Inference-Header-Content-Length is '-1'"),
    ],
)
def test_a_request_that_is_none_is_refused(sent: bytes, length: bytes | None, text: str) -> None:
    with pytest.raises(Refused) as caught:
        parse(sent, length)
    assert caught.value.status == 400
    assert str(caught.value).startswith(text)


@given(st.binary(max_size=200), st.none() | st.binary(max_size=4))
def test_whatever_comes_is_refused_and_never_fails(sent: bytes, length: bytes | None) -> None:
    with pytest.raises(Refused):
        parse(sent, length)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 300) | st.floats() | st.sampled_from(["FP32", "BYTES", "BOOL", "a"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)


@given(shape=JSON, datatype=JSON, data=JSON, parameters=JSON)
def test_whatever_a_tensor_says_is_read_or_refused(shape: Any, datatype: Any, data: Any, parameters: Any) -> None:
    given = {"shape": shape, "datatype": datatype, "data": data, "parameters": parameters}
    with suppress(ValueError):
        read(orjson.loads(orjson.dumps(given)), Tail(memoryview(b"")))
