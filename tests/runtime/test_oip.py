"""The Open Inference Protocol of a real unit, asked over plain HTTP and by Triton's own client."""

from __future__ import annotations

import hashlib
import http.client
import json
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import pytest
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from uv import find_uv_bin

from tests.runtime.handmade import Reply, Service, code_step, end, model_step, running, start, write_bundle
from tests.support import missing, wait_for

pytestmark = pytest.mark.slow

ROWS, LABELS = load_breast_cancer(return_X_y=True)
SHA = "0123456789ab" + "0" * 52
CLIENT = Path(__file__).parent.parent / "clients" / "triton.py"
TRITONCLIENT = "tritonclient[http]==2.73.0"


@pytest.fixture(scope="module")
def model() -> Any:
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)).fit(ROWS, LABELS)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, model: Any) -> Iterator[Service]:
    """The breast-cancer model, and behind it a function that gives back what it gets: steps `model` and `on`."""
    folder = tmp_path_factory.mktemp("oip")
    text = "def handler(value):\n    return value if value != 'drop' else None"
    on = code_step(folder, "on", text, inputs=("model",))
    write_bundle(folder, model_step(folder, model, outputs=("on",)), on)
    with running(folder, MLPACKER_MAX_BODY_MIB="4") as started:
        yield started


def tensor(data: Any, datatype: str = "FP64", name: str = "x", **more: Any) -> dict[str, Any]:
    shape = list(numpy.asarray(data, dtype=object).shape)
    return {"name": name, "shape": shape, "datatype": datatype, "data": data, **more}


def infer(service: Service, name: str, *inputs: dict[str, Any], version: str = "", **more: Any) -> Reply:
    place = f"/v2/models/{name}{f'/versions/{version}' if version else ''}/infer"
    return service.ask(place, json.dumps({"inputs": inputs, **more}).encode())


def in_binary(array: Any, datatype: str, **more: Any) -> tuple[bytes, dict[str, str]]:
    """The body and the headers of a request for one input, as its bytes."""
    data = array.tobytes()
    given = {"name": "x", "shape": list(array.shape), "datatype": datatype}
    head = json.dumps({"inputs": [{**given, "parameters": {"binary_data_size": len(data)}}], **more}).encode()
    kind = {"content_type": "application/octet-stream", "inference_header_content_length": str(len(head))}
    return head + data, kind


TAKEN = {"name": "input-0", "datatype": "FP64", "shape": [-1, 30]}
KNOWN: dict[str, Any] = {  # a function may give back anything
    "model": {"inputs": [TAKEN], "outputs": [{"name": "predict", "datatype": "INT64", "shape": [-1]}]},
    "on": {"inputs": [], "outputs": []},
    "plant": {"inputs": [TAKEN], "outputs": []},
}


class TestWhatIsThere:
    @pytest.mark.parametrize("place", ["/v2", "/v2/"])
    def test_the_server(self, service: Service, place: str) -> None:
        assert service.ask(place).json == {
            "name": "mlpacker",
            "version": "r1",
            "extensions": ["model_repository", "binary_tensor_data"],
        }

    def test_health(self, service: Service) -> None:
        assert service.ask("/v2/health/live").json == {"live": True}
        assert service.ask("/v2/health/ready").json == {"ready": True}
        assert service.ask("/v2/health/ready", method="HEAD").status == 200

    def test_models_with_and_without_their_version(self, service: Service) -> None:
        for name, version, platform in (
            ("model", "1", "sklearn_joblib"),
            ("on", "1", "python_function"),
            ("plant", "r1", "mlpacker_pipeline"),
        ):
            expected = {"name": name, "versions": [version], "platform": platform, **KNOWN[name]}
            assert service.ask(f"/v2/models/{name}").json == expected
            assert service.ask(f"/v2/models/{name}/versions/{version}").json == expected
            assert service.ask(f"/v2/models/{name}/ready").json == {"name": name, "ready": True}
            assert service.ask(f"/v2/models/{name}/versions/{version}/ready").status == 200

    @pytest.mark.parametrize(
        ("place", "status", "text"),
        [
            ("/v2/models/nobody", 404, "there is no model 'nobody', only model, on, plant"),
            ("/v2/models/model/versions/7", 404, "model 'model' has no version '7', only 1"),
            ("/v2/models/model/versions/7/ready", 404, "model 'model' has no version"),
            ("/v2/nowhere", 404, "/v2/nowhere is not one of /v2, /v2/health"),
            ("/v2/models/model/stats", 404, "/v2/models/model/stats is not one of"),
            ("/v2/models", 404, ""),
            ("/v2/models/model/infer", 405, "/v2/models/model/infer takes POST, got GET"),
        ],
    )
    def test_what_is_not_there_is_an_error_object(self, service: Service, place: str, status: int, text: str) -> None:
        reply = service.ask(place)
        assert (reply.status, reply.json.keys()) == (status, {"error"})
        assert text in reply.json["error"]

    def test_all_other_routes_name_it(self, service: Service) -> None:
        assert "/v2 (Open Inference Protocol)" in service.ask("/nowhere").json["error"]

    def test_the_repository(self, service: Service) -> None:
        every = [("model", "1"), ("on", "1"), ("plant", "r1")]
        expected = [{"name": name, "version": version, "state": "READY", "reason": ""} for name, version in every]
        assert service.ask("/v2/repository/index", b"{}").json == expected
        assert service.ask("/v2/repository/index", b"", content_type="application/json").json == expected
        assert service.ask("/v2/repository/index", b'{"ready": true}').json == expected
        wrong = service.ask("/v2/repository/index", b'{"ready": 1}')
        assert (wrong.status, wrong.json["error"]) == (400, 'expected {"ready": true or false}, or nothing')

    @pytest.mark.parametrize("action", ["load", "unload"])
    def test_models_are_not_loaded_by_a_request(self, service: Service, action: str) -> None:
        reply = service.ask(f"/v2/repository/models/model/{action}", b"{}")
        assert (reply.status, "`mlpacker deploy`" in reply.json["error"]) == (400, True)


class TestInference:
    @pytest.mark.parametrize("datatype", ["FP64", "FP32"])
    def test_gives_the_models_own_answers(self, service: Service, model: Any, datatype: str) -> None:
        rows = ROWS[:50].tolist()
        expected = {"name": "predict", "shape": [50], "datatype": "INT64", "data": model.predict(ROWS[:50]).tolist()}
        for name, version in (("model", "1"), ("plant", "r1")):
            for given in (rows, [cell for row in rows for cell in row]):
                asked = {"name": "x", "shape": [50, 30], "datatype": datatype, "data": given}
                reply = infer(service, name, asked, version=version, id="42")
                head = {"model_name": name, "model_version": version, "id": "42"}
                assert (reply.status, reply.json) == (200, {**head, "outputs": [expected]})

    def test_binary_in_json_out_and_the_other_way_round(self, service: Service, model: Any) -> None:
        expected = model.predict(ROWS[:50]).tolist()
        sent, headers = in_binary(ROWS[:50], "FP64")
        reply = service.ask("/v2/models/model/infer", sent, **headers)
        assert reply.json["outputs"][0]["data"] == expected
        asked = {"name": "predict", "parameters": {"binary_data": True}}
        reply = infer(service, "model", tensor(ROWS[:50].tolist()), outputs=[asked])
        assert reply.headers["content-type"] == "application/octet-stream"
        length = int(reply.headers["inference-header-content-length"])
        [output] = json.loads(reply.body[:length])["outputs"]
        assert output["parameters"] == {"binary_data_size": 400}
        assert numpy.frombuffer(reply.body[length:], "<i8").tolist() == expected

    def test_what_an_output_says_counts_more_than_what_the_request_says(self, service: Service) -> None:
        asked = {"name": "predict", "parameters": {"binary_data": False}}
        wish = {"binary_data_output": True}
        reply = infer(service, "model", tensor(ROWS[:1].tolist()), outputs=[asked], parameters=wish)
        assert reply.headers["content-type"] == "application/json"
        reply = infer(service, "model", tensor(ROWS[:1].tolist()), parameters=wish)
        assert reply.headers["content-type"] == "application/octet-stream"

    def test_an_id_is_made_where_there_is_none(self, service: Service) -> None:
        found = {infer(service, "model", tensor(ROWS[:1].tolist())).json["id"] for _ in range(2)}
        assert len(found) == 2

    def test_bytes_come_and_go_as_texts(self, service: Service) -> None:
        reply = infer(service, "on", tensor(["ä", "b"], "BYTES"))
        assert reply.json["outputs"] == [{"name": "predict", "shape": [2], "datatype": "BYTES", "data": ["ä", "b"]}]
        parts = [text.encode() for text in ("ä", "b")]
        data = b"".join(struct.pack("<I", len(part)) + part for part in parts)
        sent, headers = in_binary(numpy.frombuffer(data, "u1"), "UINT8")
        sent = sent.replace(b'"UINT8"', b'"BYTES"').replace(b"[11]", b"[2] ")
        assert service.ask("/v2/models/on/infer", sent, **headers).json["outputs"] == reply.json["outputs"]

    def test_bytes_in_base64_are_bytes_to_a_function(self, service: Service) -> None:
        given = {"parameters": {"content_type": "base64"}}
        reply = infer(service, "on", tensor(["/w=="], "BYTES", **given))
        assert reply.json["outputs"] == [
            {"name": "predict", "shape": [1], "datatype": "BYTES", "data": ["/w=="], **given}
        ]

    def test_several_inputs_are_objects_and_objects_are_texts_of_json(self, service: Service) -> None:
        reply = infer(service, "on", tensor([[1, 2], [3, 4]], "INT32"), tensor(["a", "b"], "BYTES", "t"))
        [output] = reply.json["outputs"]
        assert output["parameters"] == {"content_type": "application/json"}
        assert [json.loads(text) for text in output["data"]] == [{"x": [1, 2], "t": "a"}, {"x": [3, 4], "t": "b"}]

    def test_a_function_gets_lists_and_a_dropped_one_is_null(self, service: Service) -> None:
        reply = infer(service, "on", tensor(["drop", "b"], "BYTES"))
        assert reply.json["outputs"][0]["data"] == ["null", '"b"']

    def test_no_rows_no_answers(self, service: Service) -> None:
        reply = infer(service, "model", {"name": "x", "shape": [0, 30], "datatype": "FP32", "data": []})
        assert reply.json["outputs"][0]["data"] == []

    @pytest.mark.parametrize(
        ("inputs", "more", "text"),
        [
            ([], {}, "one at least"),
            ([tensor([[1.0]])], {}, "data[0]: expected (30,), got (1,)"),
            ([tensor([1.0, "x"])], {}, "input 'x': FP64 data has a text in it"),
            ([tensor([1.0], shape=[2])], {}, "input 'x': data is of shape [1], shape says [2]"),
            ([tensor([1.0], "BF16")], {}, "input 'x': datatype is 'BF16'"),
            ([tensor([[1.0]])], {"outputs": [{"name": "y"}]}, "there is no output 'y', only 'predict'"),
            ([tensor([1.0]), tensor([1.0, 2.0], name="y")], {}, "inputs of different lengths: x 1, y 2"),
        ],
    )
    def test_what_does_not_fit_is_named(self, service: Service, inputs: Any, more: Any, text: str) -> None:
        reply = infer(service, "model", *inputs, **more)
        assert (reply.status, reply.json.keys()) == (400, {"error"})
        assert text in reply.json["error"]

    def test_other_content_and_too_much_of_it_are_refused(self, service: Service) -> None:
        refused = service.ask("/v2/models/model/infer", b"x", content_type="text/plain")
        expected = "Content-Type is 'text/plain'; send application/json or application/octet-stream"
        assert (refused.status, refused.json["error"]) == (415, expected)
        assert service.ask("/v2/models/model/infer", b" " * ((4 << 20) + 1)).status == 413

    def test_a_connection_goes_on_after_a_refusal_whose_body_nobody_read(self, service: Service) -> None:
        line = http.client.HTTPConnection(service.url.removeprefix("http://"), timeout=10)
        for _ in range(2):
            line.request("POST", "/v2/models/nobody/infer", b" " * (2 << 20), {"content-type": "application/json"})
            answer = line.getresponse()
            assert (answer.status, b"error" in answer.read()) == (404, True)

    def test_rows_of_any_type_answer_as_they_do_in_json(self, service: Service) -> None:
        for datatype, dtype in (("FP32", "f4"), ("FP16", "f2"), ("UINT8", "u1"), ("INT32", "i4")):
            rows = (ROWS[:20] % 256).astype(dtype)
            sent, headers = in_binary(rows, datatype)
            found = service.ask("/v2/models/model/infer", sent, **headers).json["outputs"][0]["data"]
            assert found == service.predict(rows.tolist()).json["predictions"]


def test_the_version_is_the_start_of_the_models_digest(tmp_path: Path, model: Any) -> None:
    step = model_step(tmp_path, model, "iris")
    sha256 = hashlib.sha256((tmp_path / step.path).read_bytes()).hexdigest()
    write_bundle(tmp_path, replace(step, sha256=sha256))
    with running(tmp_path, MLPACKER_RELEASE="") as service:
        assert service.ask("/v2/models/iris").json["versions"] == [sha256[:12]]
        assert service.ask("/v2/models/plant").json["versions"] == ["1"]
        asked = tensor(ROWS[:1].tolist())
        assert infer(service, "iris", asked, version=sha256[:12]).json["model_version"] == sha256[:12]
        assert infer(service, "iris", asked, version="2").status == 404


def test_is_not_ready_until_it_is_loaded(tmp_path: Path) -> None:
    text = "import pathlib, time\nwhile not pathlib.Path('go').exists():\n    time.sleep(0.01)\nhandler = print"
    service = start(write_bundle(tmp_path, code_step(tmp_path, "slow", text)))
    try:
        wait_for(lambda: answers(service), 60, "it listens")
        for place in ("/v2/health/ready", "/v2/models/slow/ready", "/v2/models/plant/ready"):
            reply = service.ask(place)
            assert (reply.status, reply.json["error"], reply.json["ready"]) == (503, "not ready: loading", False)
        assert infer(service, "slow", tensor([1.0])).status == 503
        states = {each["state"] for each in service.ask("/v2/repository/index", b"{}").json}
        assert states == {"LOADING"}
        assert service.ask("/v2/repository/index", b'{"ready": true}').json == []
        assert service.ask("/ping").status == 503
    finally:
        (tmp_path / "go").touch()
        end(service)


def answers(service: Service) -> bool:
    try:
        return service.ask("/v2/health/live").status == 200
    except OSError:
        return False


def test_a_raising_function_fails_its_request_only(tmp_path: Path) -> None:
    write_bundle(tmp_path, code_step(tmp_path, "half", "def handler(value):\n    return 1 / value"))
    with running(tmp_path) as service:
        reply = infer(service, "half", tensor([1.0, 0.0]))
        assert reply.status == 500
        assert reply.json["error"].startswith("data[1]: step 'half' failed: ZeroDivisionError")
        assert infer(service, "half", tensor([2.0])).json["outputs"][0]["data"] == [0.5]


def test_tritons_own_client_works_as_it_is(tmp_path: Path) -> None:
    write_bundle(tmp_path, code_step(tmp_path, "sums", "def handler(value):\n    return sum(value)"))
    with running(tmp_path) as service:
        said = triton(service, "sums")
    facts = ("live", "ready", "model", "nobody", "id", "aio")
    assert [said[each] for each in facts] == [True, True, True, False, "7", [[6.0, 15.0], [6.0, 15.0]]]
    assert {tuple(said[f"{kind} {way}"]) for kind in DATATYPES for way in ("binary", "json")} == {(6, 15)}
    assert "binary_tensor_data" in said["extensions"]
    assert [each["name"] for each in said["index"]] == ["sums", "plant"]
    assert "`mlpacker deploy`" in said["load"]
    assert said["bad"].startswith("data[0]: step 'sums' failed: TypeError")


def test_a_binary_tensor_of_a_mebibyte_is_faster_than_the_same_one_in_json(tmp_path: Path) -> None:
    sums = LinearRegression(fit_intercept=False)
    sums.coef_, sums.intercept_, sums.n_features_in_ = numpy.ones(1024), 0.0, 1024
    write_bundle(tmp_path, model_step(tmp_path, sums, "sums"))
    rows = numpy.random.default_rng(7).random((256, 1024), dtype="f4")
    given = tensor(rows.tolist(), "FP32")
    asked = {"binary": in_binary(rows, "FP32"), "JSON": (json.dumps({"inputs": [given]}).encode(), {})}
    with running(tmp_path) as service:
        took: dict[str, list[float]] = {way: [] for way in asked}
        for way in [*asked] * 8:  # in turn; the first of each warms up
            body, headers = asked[way]
            started = time.perf_counter()
            assert service.ask("/v2/models/sums/infer", body, **headers).status == 200
            took[way].append(1000 * (time.perf_counter() - started))
    binary, in_json = (statistics.median(took[way][1:]) for way in ("binary", "JSON"))
    print(f"1 MiB of FP32: {in_json:.1f} ms in JSON, {binary:.1f} ms in binary, ratio {in_json / binary:.1f}")
    assert in_json / binary >= 3


DATATYPES = ("FP16", "FP32", "FP64", "INT8", "UINT64")


def triton(service: Service, model: str) -> Any:
    """What `tests/clients/triton.py` says, run by uv in an environment of its own."""
    command = [find_uv_bin(), "run", "--quiet", "--no-project", "--python", sys.executable, "--with", TRITONCLIENT]
    address = service.url.removeprefix("http://")
    done = subprocess.run([*command, "python", str(CLIENT), address, model], capture_output=True, text=True)
    if done.returncode and "Traceback" not in done.stderr:
        missing("tritonclient", f"an index from which uv installs {TRITONCLIENT}; it said: {done.stderr}")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
