"""MLflow's scoring protocol, and what `/predict` takes beside JSON, of real units."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import numpy
import pytest
from sklearn.datasets import load_iris
from sklearn.tree import DecisionTreeClassifier

from packer_lib.runtime.invocations import parse, table
from packer_lib.runtime.predict import Refused
from tests.runtime.handmade import Reply, Service, code_step, model_step, running, write_bundle

pytestmark = pytest.mark.slow

ROWS, LABELS = load_iris(return_X_y=True)
NAMES = ["sepal length", "sepal width", "petal length", "petal width"]
TURNED = NAMES[::-1]
SOME = ROWS[::10]


@pytest.fixture(scope="module")
def model() -> Any:
    return DecisionTreeClassifier(random_state=0).fit(ROWS, LABELS)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, model: Any) -> Iterator[Service]:
    """The iris model, which knows the names of its columns."""
    folder = tmp_path_factory.mktemp("model")
    model.feature_names_in_ = numpy.array(NAMES, dtype=object)
    write_bundle(folder, model_step(folder, model))
    del model.feature_names_in_
    with running(folder) as started:
        yield started


@pytest.fixture(scope="module")
def echo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A function that says what it gets."""
    folder = tmp_path_factory.mktemp("echo")
    text = "def handler(value):\n    return [type(value).__name__, value]"
    write_bundle(folder, code_step(folder, "echo", text))
    with running(folder) as started:
        yield started


class TestRowsByName:
    """Rows of `/predict` and tensors of OIP by the names of the model's columns."""

    def test_predict_takes_rows_as_objects_in_any_order(self, service: Service, model: Any) -> None:
        rows = [dict(zip(TURNED, row[::-1], strict=True)) for row in SOME.tolist()]
        assert service.predict(rows).json == {"predictions": model.predict(SOME).tolist()}
        assert service.predict([rows[0], SOME[1].tolist()]).json == {"predictions": model.predict(SOME[:2]).tolist()}

    def test_a_wrong_name_is_named(self, service: Service) -> None:
        row = dict(zip(NAMES, SOME[0].tolist(), strict=True))
        lacking = service.predict([{name: row[name] for name in NAMES[1:]}])
        text = "of the names that the model was trained with: sepal length, sepal width, petal length, petal width"
        assert (lacking.status, lacking.json) == (400, {"error": f"data[0]: there is no 'sepal length' {text}"})
        assert service.predict([{**row, "x": 1}]).json == {"error": f"data[0]: 'x' is none {text}"}

    def test_an_object_that_carries_a_row_still_travels(self, service: Service, model: Any) -> None:
        carried = {"data": SOME[0].tolist(), "at": 7}
        answer = {**carried, "prediction": model.predict(SOME[:1]).tolist()[0]}
        assert service.predict([carried]).json == {"predictions": [answer]}

    @pytest.mark.parametrize("shape", [[len(SOME)], [len(SOME), 1]])
    def test_a_tensor_a_column(self, service: Service, model: Any, shape: list[int]) -> None:
        inputs = [
            {"name": name, "shape": shape, "datatype": "FP64", "data": column}
            for name, column in zip(NAMES, SOME.T.tolist(), strict=True)
        ]
        answer = service.ask("/v2/models/model/infer", json.dumps({"inputs": inputs}).encode())
        assert answer.json["outputs"][0]["data"] == model.predict(SOME).tolist()

    def test_they_are_described(self, service: Service) -> None:
        described = service.ask("/v2/models/model").json
        taken = {"name": "input-0", "datatype": "FP64", "shape": [-1, 4], "parameters": {"columns": NAMES}}
        assert described["inputs"] == [taken]
        assert described["outputs"] == [{"name": "predict", "datatype": "INT64", "shape": [-1]}]


def invoke(service: Service, value: Any) -> Reply:
    return service.ask("/invocations", json.dumps(value).encode())


def in_csv(rows: Any, header: str = "") -> bytes:
    lines = [header] if header else []
    return "\n".join([*lines, *(",".join(map(repr, row)) for row in rows.tolist())]).encode()


def in_npy(array: Any) -> bytes:
    data = io.BytesIO()
    numpy.save(data, array)
    return data.getvalue()


def turned() -> list[dict[str, float]]:
    return [dict(zip(TURNED, row[::-1], strict=True)) for row in SOME.tolist()]


class TestInvocations:
    @pytest.mark.parametrize(
        "sent",
        [
            {"dataframe_split": {"columns": NAMES, "index": list(range(15)), "data": SOME.tolist()}},
            {"dataframe_split": {"columns": TURNED, "data": SOME[:, ::-1].tolist()}},
            {"dataframe_split": {"columns": [*NAMES, "more"], "data": [[*row, "x"] for row in SOME.tolist()]}},
            {"dataframe_split": {"columns": [0, 1, 2, 3], "data": SOME.tolist()}},
            {"dataframe_split": {"data": SOME.tolist()}},
            {"dataframe_records": [dict(zip(NAMES, row, strict=True)) for row in SOME.tolist()]},
            {"dataframe_records": turned()},
            {"instances": SOME.tolist()},
            {"instances": turned()},
            {"inputs": SOME.tolist()},
            {"inputs": {name: SOME[:, 3 - place].tolist() for place, name in enumerate(TURNED)}, "params": {}},
        ],
        ids=lambda sent: next(iter(sent)),
    )
    def test_every_form_gives_the_models_own_answers(self, service: Service, model: Any, sent: Any) -> None:
        reply = invoke(service, sent)
        assert (reply.status, reply.json) == (200, {"predictions": model.predict(SOME).tolist()})

    def test_csv_has_a_header(self, service: Service, model: Any) -> None:
        expected = {"predictions": model.predict(SOME).tolist()}
        for rows, names in ((SOME, NAMES), (SOME[:, ::-1], TURNED)):
            sent = in_csv(rows, ",".join(names))
            assert service.ask("/invocations", sent, content_type="text/csv; charset=utf-8").json == expected

    def test_a_function_gets_objects_by_name(self, echo: Service) -> None:
        expected = {"predictions": [["dict", {"a": 1, "b": "x"}]]}
        assert invoke(echo, {"dataframe_split": {"columns": ["a", "b"], "data": [[1, "x"]]}}).json == expected
        assert echo.ask("/invocations", b"a,b\n1,x\n", content_type="text/csv").json == expected
        assert invoke(echo, {"inputs": {"a": [1], "b": ["x"]}}).json == expected
        assert invoke(echo, {"instances": [[1, 2]]}).json == {"predictions": [["list", [1, 2]]]}

    @pytest.mark.parametrize(
        ("sent", "text"),
        [
            ([], "expected an object with one of dataframe_split, dataframe_records, instances, inputs"),
            ({"data": []}, "expected an object with one of dataframe_split, dataframe_records, instances, inputs; it"),
            ({"inputs": [], "instances": []}, "has instances and inputs"),
            ({"instances": 5}, "instances: expected a list"),
            ({"dataframe_split": []}, 'dataframe_split: expected {"columns"'),
            ({"dataframe_split": {"columns": ["a"]}}, 'dataframe_split: expected {"columns"'),
            ({"dataframe_split": {"columns": ["a"], "data": [[1, 2]]}}, "data[0]: 2 cells for 1 columns"),
            ({"dataframe_split": {"columns": ["a"], "data": [5]}}, "data[0]: no list for 1 columns"),
            (
                {"dataframe_split": {"columns": ["a"], "data": [[5]]}},
                "there is no column 'sepal length'; the model was",
            ),
            ({"dataframe_records": [5]}, 'dataframe_records: expected [{"column": cell, …}, …]'),
            ({"dataframe_records": [{"a": 1}, {"b": 1}]}, "data[1]: it has not the columns of data[0] (a)"),
            ({"inputs": {"a": [1], "b": [1, 2]}}, "inputs: expected lists of the same length, one per column"),
            ({"inputs": {"a": 5}}, "inputs: expected lists of the same length, one per column"),
            ({"instances": [[1]]}, "data[0]: expected (4,), got (1,)"),
            ({"instances": [], "params": {"t": 1}}, "params are not taken"),
        ],
    )
    def test_what_does_not_fit_is_named(self, service: Service, sent: Any, text: str) -> None:
        reply = invoke(service, sent)
        assert (reply.status, reply.json.keys()) == (400, {"error"})
        assert text in reply.json["error"]

    def test_other_content_and_methods_are_refused(self, service: Service) -> None:
        assert service.ask("/invocations", b"x", content_type="text/plain").status == 415
        assert service.ask("/invocations").status == 405
        assert service.ask("/ping", b"{}").status == 405

    def test_what_mlflows_server_says_of_itself(self, service: Service) -> None:
        for place in ("/ping", "/health"):
            assert (service.ask(place).status, service.ask(place).body) == (200, b"\n")
        assert service.ask("/version").body == b"2.0.0"

    def test_no_table_no_predictions(self) -> None:
        for sent in (b'{"dataframe_records": []}', b'{"dataframe_split": {"columns": ["a"], "data": []}}'):
            assert parse(sent, table) == []
        with pytest.raises(Refused, match="the body is not JSON"):
            parse(b"{", table)


class TestPredictTakesMoreThanJson:
    @pytest.mark.parametrize("dtype", ["f8", "f4", ">f8"])
    def test_npy(self, service: Service, model: Any, dtype: str) -> None:
        reply = service.ask("/predict", in_npy(SOME.astype(dtype)), content_type="application/x-npy")
        assert reply.json == {"predictions": model.predict(SOME.astype("f4")).tolist()}

    def test_csv_without_a_header(self, service: Service, model: Any) -> None:
        for rows in (SOME, SOME[:1]):
            reply = service.ask("/predict", in_csv(rows), content_type="Text/CSV; charset=utf-8")
            assert reply.json == {"predictions": model.predict(rows).tolist()}

    def test_a_function_gets_lists(self, echo: Service) -> None:
        for array in (numpy.array([[1, 2], [3, 4]]), numpy.array(["a", "b"])):
            said = echo.ask("/predict", in_npy(array), content_type="application/x-npy").json["predictions"]
            assert said == [[type(row).__name__, row] for row in array.tolist()]
        said = echo.ask("/predict", b"1,x\n2.5,y\n", content_type="text/csv").json["predictions"]
        assert said == [["list", [1, "x"]], ["list", [2.5, "y"]]]

    @pytest.mark.parametrize(
        ("sent", "kind", "text"),
        [
            (b"", "text/csv", "the body is not text/csv: no line in it"),
            (b'"a', "text/csv", "the body is not text/csv: "),
            (b"\xff", "text/csv", "the body is not text/csv: "),
            (b"a,b,c,d\n1,2,3,4", "text/csv", "data[0]: could not convert string to float: 'a'"),
            (b"", "application/x-npy", "the body is not application/x-npy: no .npy header at its beginning"),
            (in_npy(numpy.array(5.0)), "application/x-npy", "an array without dimensions has no rows"),
            (in_npy(numpy.array([{}], dtype=object)), "application/x-npy", "Python objects is never unpickled"),
            (in_npy(numpy.ones((2, 3))), "application/x-npy", "data[0]: expected (4,), got (3,) (and 1 more)"),
        ],
    )
    def test_what_does_not_fit_is_named(self, service: Service, sent: bytes, kind: str, text: str) -> None:
        reply = service.ask("/predict", sent, content_type=kind)
        assert (reply.status, reply.json.keys()) == (400, {"error"})
        assert text in reply.json["error"]
