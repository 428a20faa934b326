"""The model-runner routes of units as they run: their own process, asked over HTTP by forms and by protobuf."""

from __future__ import annotations

import json
import pickle
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sklearn.datasets import load_iris
from sklearn.linear_model import LinearRegression, LogisticRegression

from packer_lib.runtime.modelrunner.routes import ROUTES
from packer_lib.runtime.modelrunner.schema import DEFAULT, schema
from tests.runtime.handmade import Reply, Service, code_step, model_step, running, write_bundle

pytestmark = pytest.mark.slow

ROWS, LABELS = load_iris(return_X_y=True)
NAMES = load_iris().target_names[LABELS]
SPLIT = "a boundary"
PREFIXES = ("", "/modelrunner")

FRAME = """syntax = "proto3";
message DataFrameRow { double sepal_len = 1; double sepal_wid = 2; double petal_len = 3; double petal_wid = 4; }
message DataFrame { repeated DataFrameRow rows = 1; }
message Prediction { repeated string prediction = 1; }
service ClassifyModel { rpc classify (DataFrame) returns (Prediction); }
"""
HEADER = "sepal_len,sepal_wid,petal_len,petal_wid"
ONE = """syntax = "proto3";
message In { repeated double x = 1; }
message Out { repeated string label = 1; }
service Model { rpc one (In) returns (Out); }
"""


def csv(rows: Any, header: str = "x,x,x,x") -> str:
    return "\n".join([header, *(",".join(str(cell) for cell in row) for row in rows)])


def as_json(rows: Any) -> str:
    return json.dumps({"rows": [{"x": list(row)} for row in rows]})


KINDS = {"csvFile": "text/csv", "jsonFile": "application/json", "proto": "application/octet-stream"}


def form(parts: dict[str, str | bytes], **kinds: str) -> bytes:
    lines = b""
    for name, data in parts.items():
        kind = {**KINDS, **kinds}.get(name)
        head = f'--{SPLIT}\r\nContent-Disposition: form-data; name="{name}"'
        head += f'; filename="{name}.x"\r\nContent-Type: {kind}' if kind else ""
        lines += head.encode() + b"\r\n\r\n" + (data.encode() if isinstance(data, str) else data) + b"\r\n"
    return lines + f"--{SPLIT}--\r\n".encode()


def send(service: Service, path: str, body: bytes, method: str = "", **headers: str) -> Reply:
    return service.ask(path, body, method, content_type=f'multipart/form-data; boundary="{SPLIT}"', **headers)


def post(service: Service, path: str, **parts: str | bytes) -> Reply:
    return send(service, path, form(parts))


def put(service: Service, path: str, **parts: str | bytes) -> Reply:
    return send(service, path, form(parts), "PUT")


def made(text: str, operation: str = "predict") -> tuple[Any, Any]:
    """The classes of an operation's two messages."""
    found = schema(text).operations[operation]
    return found.takes, found.returns


def texts(reply: Reply, text: str = DEFAULT, operation: str = "predict", field: str = "text") -> list[Any]:
    assert (reply.status, reply.headers.get("content-type")) == (200, "application/octet-stream"), reply.body
    return list(getattr(made(text, operation)[1].FromString(reply.body), field))


def refused(reply: Reply, status: int, message: str) -> None:
    assert reply.status == status, reply.body
    assert reply.json.keys() == {"status", "message"}
    assert reply.json["status"] == "bad request"
    assert message in reply.json["message"]


@pytest.fixture(scope="module")
def model() -> Any:
    return LogisticRegression(max_iter=1000).fit(ROWS, NAMES)


@pytest.fixture(scope="module", params=["python", "bentoml"])
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, model: Any) -> Iterator[Service]:
    """The iris model, which answers texts, run by either server; nothing may change it."""
    folder = tmp_path_factory.mktemp("iris")
    write_bundle(folder, model_step(folder, model))
    with running(folder, request.param, MLPACKER_MAX_BODY_MIB="1") as started:
        yield started


@pytest.mark.parametrize("prefix", PREFIXES)
class TestTheRoutesThatAnswer:
    def test_get_binary_writes_the_input_message(self, service: Service, prefix: str) -> None:
        takes, _ = made(FRAME, "classify")
        reply = post(service, f"{prefix}/getBinary", csvFile=csv(ROWS[:3], HEADER), proto=FRAME, operation="classify")
        assert (reply.status, reply.headers["content-type"]) == (200, "application/octet-stream")
        assert [row.petal_len for row in takes.FromString(reply.body).rows] == ROWS[:3, 2].tolist()

    def test_get_binary_default(self, service: Service, prefix: str) -> None:
        takes, _ = made(DEFAULT)
        reply = post(service, f"{prefix}/getBinaryDefault?operation=predict", csvFile=csv(ROWS[:3]))
        assert [list(row.x) for row in takes.FromString(reply.body).rows] == ROWS[:3].tolist()

    def test_get_binary_json(self, service: Service, prefix: str) -> None:
        text = json.dumps({"rows": [{"sepal_len": 1, "petalLen": 2}]})
        reply = post(service, f"{prefix}/getBinaryJSON", jsonFile=text, proto=FRAME, operation="classify")
        (row,) = made(FRAME, "classify")[0].FromString(reply.body).rows
        assert (row.sepal_len, row.petal_len) == (1, 2)

    def test_get_binary_json_default(self, service: Service, prefix: str) -> None:
        reply = post(service, f"{prefix}/getBinaryJSONDefault", jsonFile=as_json(ROWS[:2]), operation="predict")
        assert [list(row.x) for row in made(DEFAULT)[0].FromString(reply.body).rows] == ROWS[:2].tolist()

    def test_transform_csv_with_a_schema_of_the_callers(self, service: Service, prefix: str, model: Any) -> None:
        parts = {"csvFile": csv(ROWS, HEADER), "proto": FRAME, "operation": "classify"}
        reply = post(service, f"{prefix}/transformCSV", **parts)
        assert texts(reply, FRAME, "classify", "prediction") == model.predict(ROWS).tolist()
        assert reply.headers["x-model-version"].startswith("model=")
        assert reply.headers["mlpacker-release"] == "r1"

    def test_transform_csv_default(self, service: Service, prefix: str, model: Any) -> None:
        reply = post(service, f"{prefix}/transformCSVDefault", csvFile=csv(ROWS), operation="predict")
        assert texts(reply) == model.predict(ROWS).tolist()

    def test_transform_json(self, service: Service, prefix: str, model: Any) -> None:
        parts = {"jsonFile": json.dumps({"x": ROWS[70].tolist()}), "proto": ONE, "operation": "one"}
        reply = post(service, f"{prefix}/transformJSON", **parts)
        assert texts(reply, ONE, "one", "label") == model.predict(ROWS[70:71]).tolist()

    def test_transform_json_default(self, service: Service, prefix: str, model: Any) -> None:
        reply = post(service, f"{prefix}/transformJSONDefault?operation=predict", jsonFile=as_json(ROWS))
        assert texts(reply) == model.predict(ROWS).tolist()

    @pytest.mark.parametrize(
        "kind", ["application/x-protobuf", "application/vnd.google.protobuf", "application/json", "text/plain"]
    )
    def test_methods_take_what_get_binary_gives(self, service: Service, prefix: str, model: Any, kind: str) -> None:
        binary = post(service, f"{prefix}/getBinaryDefault", csvFile=csv(ROWS), operation="predict").body
        reply = service.ask(f"{prefix}/model/methods/predict", binary, content_type=kind)
        assert texts(reply) == model.predict(ROWS).tolist()

    @pytest.mark.parametrize("path", ["/model", "/proto", "/model/configuration"])
    def test_nothing_can_be_put_on_this_port(self, service: Service, prefix: str, path: str) -> None:
        refused(put(service, prefix + path, **{ROUTES[path].data: "x"}), 404, "its admin port (MLPACKER_ADMIN_PORT")

    def test_every_route_takes_its_verb_only(self, service: Service, prefix: str) -> None:
        for path, route in ROUTES.items():
            if route.verb == "POST":
                refused(service.ask(prefix + path), 405, f"{path} takes POST, got GET")
        refused(service.ask(f"{prefix}/model/methods/predict"), 405, "takes POST, got GET")


class TestWhatDoesNotFit:
    def test_lines_of_a_row_message_are_rows(self, service: Service, model: Any) -> None:
        reply = post(service, "/transformCSV", csvFile=csv(ROWS[::30]), proto=ONE, operation="one")
        assert texts(reply, ONE, "one", "label") == model.predict(ROWS[::30]).tolist()

    @pytest.mark.parametrize(
        ("path", "parts", "said"),
        [
            ("/getBinaryDefault", {"csvFile": "x\n1"}, "there is no operation; name one"),
            ("/transformJSONDefault", {"jsonFile": "{}"}, "there is no operation; name one"),
            ("/getBinaryDefault", {"csvFile": "x\n1", "operation": "nope"}, "no operation 'nope', only predict"),
            ("/getBinaryDefault?operation=a", {"csvFile": "x\n1", "operation": "b"}, "more than one operation"),
            ("/getBinaryDefault", {"operation": "predict"}, "no part 'csvFile'"),
            ("/getBinaryDefault", {"csvFile": "", "operation": "predict"}, "'csvFile' is empty"),
            ("/getBinary", {"csvFile": "x\n1", "operation": "predict"}, "no part 'proto'"),
            ("/getBinary", {"csvFile": "x\n1", "proto": "?", "operation": "predict"}, "proto: 1:1: this belongs to no"),
            ("/getBinary", {"csvFile": "x\n1", "proto": b"\xff", "operation": "predict"}, "proto is not UTF-8"),
            ("/transformCSVDefault", {"csvFile": "x\n1", "model": "x", "operation": "predict"}, "has a part 'model'"),
            ("/transformCSVDefault", {"csvFile": "y\n1", "operation": "predict"}, "no field of In is called"),
            ("/transformCSVDefault", {"csvFile": "x\na", "operation": "predict"}, "line 2: x is double, got 'a'"),
            (
                "/transformCSVDefault",
                {"csvFile": "x,x\n1,2", "operation": "predict"},
                "row 0: expected (4,), got (2,)",
            ),
            ("/transformJSONDefault", {"jsonFile": "{", "operation": "predict"}, "jsonFile is not a In in JSON"),
            ("/transformJSONDefault", {"jsonFile": "[" * 9999, "operation": "predict"}, "jsonFile is not a In in JSON"),
            ("/transformJSONDefault", {"jsonFile": '{"r": 1}', "operation": "predict"}, 'no field named "r"'),
            ("/transformJSONDefault", {"jsonFile": "{}", "operation": "predict"}, "In.rows has 0 rows"),
        ],
    )
    def test_is_422_and_says_what(self, service: Service, path: str, parts: dict[str, Any], said: str) -> None:
        refused(post(service, path, **parts), 422, said)

    def test_answers_that_the_schema_cannot_hold(self, service: Service) -> None:
        numbers = FRAME.replace("repeated string", "repeated double")
        reply = post(service, "/transformCSV", csvFile=csv(ROWS, HEADER), proto=numbers, operation="classify")
        refused(reply, 422, "no field of Prediction holds 150 predictions that are texts")

    @pytest.mark.parametrize("path", ["/transformCSV", "/transformJSON"])
    def test_a_model_from_the_network_is_never_loaded(self, service: Service, path: str, tmp_path: Path) -> None:
        canary = tmp_path / "canary"
        data = {"csvFile": "x\n1"} if path.endswith("CSV") else {"jsonFile": "{}"}
        for body in (pickle.dumps(Canary(canary)), b"PK\x03\x04"):
            reply = post(service, path, model=body, proto=DEFAULT, operation="predict", **data)
            refused(reply, 422, "a model is not taken on this port")
            assert "mlpacker swap" in reply.json["message"]
        assert not canary.exists()

    def test_an_empty_model_or_proto_is_as_none(self, service: Service, model: Any) -> None:
        reply = post(service, "/transformCSV", csvFile=csv(ROWS), model="", proto="", operation="predict")
        assert texts(reply) == model.predict(ROWS).tolist()

    def test_parts_of_the_wrong_type(self, service: Service) -> None:
        parts: dict[str, str | bytes] = {"csvFile": "x\n1", "operation": "predict"}
        reply = send(service, "/getBinaryDefault", form(parts, csvFile="application/octet-stream"))
        refused(reply, 422, "'application/octet-stream'; send application/vnd.ms-excel or text/csv")
        assert send(service, "/getBinaryDefault", form(parts, csvFile="application/vnd.ms-excel")).status == 200
        parts = {"jsonFile": "{}", "operation": "predict"}
        refused(send(service, "/getBinaryJSONDefault", form(parts, jsonFile="text/csv")), 422, "send application/json")

    def test_methods_that_are_none_and_bytes_that_are_none(self, service: Service) -> None:
        kind = "application/x-protobuf"
        refused(service.ask("/model/methods/nope", b"", content_type=kind), 404, "no operation 'nope', only predict")
        reply = service.ask("/model/methods/predict", b"\xff\xff", content_type=kind)
        refused(reply, 422, "the body is not a In in protobuf")
        refused(service.ask("/model/methods/predict", b"", content_type=kind), 422, "In.rows has 0 rows")

    def test_types_that_no_route_declares_are_refused(self, service: Service) -> None:
        assert service.ask("/getBinaryDefault", b"{}").status == 415
        assert service.ask("/getBinaryDefault", b"{}", content_type="application/vnd.bentoml+pickle").status == 415
        assert service.ask("/model/methods/predict", b"", content_type="multipart/form-data; boundary=x").status == 415
        assert send(service, "/predict", form({"csvFile": "x"})).status == 415
        assert send(service, "/model/methods/a/b", form({"csvFile": "x"})).status == 415

    def test_hostile_forms(self, service: Service) -> None:
        path = "/getBinaryDefault"
        refused(send(service, path, form({f"part{n}": "" for n in range(9)})), 400, "more than 8 parts")
        refused(send(service, path, form({"a": "1"})[:-6]), 400, "ends before its closing boundary")
        endless = f"--{SPLIT}\r\nContent-Disposition: form-data; x=".encode() + b"y" * 900_000
        refused(send(service, path, endless), 400, "Maximum header size")
        refused(send(service, path, b"\0" * 1000), 400, "is not multipart/form-data")
        many = b"--x\r\n\r\n\r\n" * 90_000
        refused(service.ask(path, many, content_type="multipart/form-data; boundary=x"), 400, "has no name")
        refused(service.ask(path, b"x", content_type="multipart/form-data"), 400, "names no boundary")
        assert send(service, path, form({"csvFile": "x" * (1 << 20)})).status == 413
        assert service.ask("/livez").status == 200

    def test_a_form_that_never_ends_holds_nobody_up(self, service: Service) -> None:
        host, port = service.url.removeprefix("http://").split(":")
        head = f"POST /getBinaryDefault HTTP/1.1\r\nhost: {host}\r\ncontent-length: 1000\r\n"
        with socket.create_connection((host, int(port)), 10) as connection:
            connection.sendall(f"{head}content-type: multipart/form-data; boundary=x\r\n\r\n--x\r\n".encode())
            assert post(service, "/getBinaryDefault", csvFile="x\n1", operation="predict").status == 200

    def test_a_file_that_takes_long_to_read_holds_no_probe_up(self, service: Service) -> None:
        with ThreadPoolExecutor(1) as other:
            text = csv([[1, 2, 3, 4]] * 100_000)
            slow = other.submit(post, service, "/getBinaryDefault", csvFile=text, operation="predict")
            longest = 0.0
            while not slow.done():
                began = time.perf_counter()
                assert service.ask("/livez").status == 200
                longest = max(longest, time.perf_counter() - began)
            assert slow.result().status == 200
        assert longest < 2

    def test_calls_beside_each_other_do_not_interfere(self, service: Service, model: Any) -> None:
        """With schemas that call different messages by the same names, which is where the original gets mixed up."""
        expected = model.predict(ROWS).tolist()

        def call(number: int) -> bool:
            rows, right = ROWS[number : number + 40], expected[number : number + 40]
            if number % 3 == 0:
                parts = {"csvFile": csv(rows, HEADER), "proto": FRAME, "operation": "classify"}
                return texts(post(service, "/transformCSV", **parts), FRAME, "classify", "prediction") == right
            if number % 3 == 1:
                fields = "double d = 1; double c = 2; double b = 3; double a = 4;"
                other = FRAME[: FRAME.index("double")] + fields + FRAME[FRAME.index(" }") :]
                text = csv(rows[:, ::-1], "a,b,c,d")
                reply = post(service, "/transformCSV", csvFile=text, proto=other, operation="classify")
                return texts(reply, other, "classify", "prediction") == right
            return texts(post(service, "/transformJSONDefault", jsonFile=as_json(rows), operation="predict")) == right

        with ThreadPoolExecutor(12) as clients:
            assert all(clients.map(call, range(96)))

    def test_a_caller_that_has_no_time_left_is_told_so(self, service: Service) -> None:
        body = form({"csvFile": csv(ROWS), "operation": "predict"})
        reply = send(service, "/transformCSVDefault", body, mlpacker_remaining_ms="0")
        assert (reply.status, reply.json["status"]) == (504, "failed")


class Canary:
    """A pickle that makes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


class TestOtherUnits:
    def test_a_schema_in_the_bundle_is_the_default(self, tmp_path: Path, model: Any) -> None:
        write_bundle(tmp_path, model_step(tmp_path, model))
        (tmp_path / "model.proto").write_text(FRAME)
        with running(tmp_path) as service:
            ask = {"csvFile": csv(ROWS, HEADER), "operation": "classify"}
            reply = post(service, "/transformCSVDefault", **ask)
            assert texts(reply, FRAME, "classify", "prediction") == model.predict(ROWS).tolist()

    def test_one_that_cannot_be_used_stops_nothing_else(self, tmp_path: Path, model: Any) -> None:
        write_bundle(tmp_path, model_step(tmp_path, model))
        (tmp_path / "model.proto").write_text("syntax = 3")
        with running(tmp_path) as service:
            assert service.predict(ROWS[:1].tolist()).status == 200
            ask: dict[str, Any] = {"csvFile": csv(ROWS), "operation": "predict"}
            refused(post(service, "/transformCSVDefault", **ask), 422, "the unit's own schema, model.proto, cannot be")
            assert post(service, "/transformCSV", proto=DEFAULT, **ask).status == 200

    def test_numbers_and_vectors_by_the_default(self, tmp_path: Path) -> None:
        for name, target, field in [("one", ROWS[:, 0], "y"), ("two", ROWS[:, :2], "rows")]:
            folder = tmp_path / name
            folder.mkdir()
            fitted = LinearRegression().fit(ROWS, target)
            write_bundle(folder, model_step(folder, fitted))
            with running(folder) as service:
                reply = post(service, "/transformCSVDefault", csvFile=csv(ROWS), operation="predict")
                found = texts(reply, field=field)
                right = fitted.predict(ROWS).tolist()
                assert (found if name == "one" else [list(row.x) for row in found]) == right

    def test_code_steps_get_objects_and_fill_messages(self, tmp_path: Path) -> None:
        text = "def handler(value):\n    if value['n'] < 0: raise ValueError('below')\n"
        text += "    return {'twice': value['n'] * 2, 'said': value['word'] + '!'} if value['n'] else None"
        proto = """syntax = "proto3";
        message Item { int32 n = 1; string word = 2; } message Items { repeated Item items = 1; }
        message Made { string said = 2; int32 twice = 1; } message All { repeated Made made = 3; }
        service S { rpc many (Items) returns (All); rpc one (Item) returns (Made); }"""
        write_bundle(tmp_path, code_step(tmp_path, "code", text))
        (tmp_path / "model.proto").write_text(proto)
        with running(tmp_path) as service:
            many = post(service, "/transformCSVDefault", csvFile="n,word\n3,a\n4,b", operation="many")
            assert [(each.said, each.twice) for each in texts(many, proto, "many", "made")] == [("a!", 6), ("b!", 8)]
            one = post(service, "/transformJSONDefault", jsonFile='{"n": 5, "word": "c"}', operation="one")
            assert made(proto, "one")[1].FromString(one.body).twice == 10
            gone = post(service, "/transformJSONDefault", jsonFile='{"n": 0}', operation="one")
            refused(gone, 422, "row 0: a step dropped it")
            bad = post(service, "/transformJSONDefault", jsonFile='{"n": -1}', operation="one")
            assert (bad.status, bad.json["status"]) == (500, "failed")
            assert "step 'code' failed: ValueError: below" in bad.json["message"]


def test_a_unit_that_nobody_asks_this_way_imports_none_of_it(tmp_path: Path) -> None:
    text = "import sys\ndef handler(value):\n"
    text += "    return [name for name in ('google.protobuf', 'python_multipart') if name in sys.modules]"
    write_bundle(tmp_path, code_step(tmp_path, "code", text))
    with running(tmp_path) as service:
        assert service.predict([1]).json == {"predictions": [[]]}
        post(service, "/getBinaryDefault", csvFile="x\n1", operation="predict")
        assert service.predict([1]).json == {"predictions": [["google.protobuf", "python_multipart"]]}
