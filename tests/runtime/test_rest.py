"""REST units as they run: their own process, asked over HTTP, compared with the model called directly."""

from __future__ import annotations

import json
import math
import pickle
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from packer_lib.runtime.manifest import StepSpec
from tests.runtime.handmade import (
    PACKAGE,
    SERVERS,
    Reply,
    Service,
    code_step,
    end,
    model_step,
    running,
    start,
    write_bundle,
)
from tests.support import wait_for

ROWS, LABELS = load_breast_cancer(return_X_y=True)
ROW: list[float] = ROWS[0].tolist()

OURS = ("/predict", "/livez", "/readyz", "/metrics", "/info")


@pytest.fixture(scope="module")
def model() -> Any:
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)).fit(ROWS, LABELS)


@pytest.fixture(scope="module", params=SERVERS)
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, model: Any) -> Iterator[Service]:
    """The breast-cancer model behind REST, run by either server; bodies up to 1 MiB."""
    folder = tmp_path_factory.mktemp("model")
    write_bundle(folder, model_step(folder, model))
    with running(folder, request.param, MLPACKER_MAX_BODY_MIB="1") as started:
        yield started


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """Starts `python service.py` for code steps given by their text; not waited for, ended afterwards."""
    begun: list[Service] = []

    def begin(*texts: str, server: str = "python", **props: Any) -> Service:
        begun.append(start(write_chain(tmp_path, *texts, **props), server))
        return begun[-1]

    yield begin
    for each in begun:
        end(each)


def write_chain(folder: Path, *texts: str, **props: Any) -> Path:
    """A bundle whose steps `step0`, `step1` … are these texts; `props` are the first one's."""
    bundle = folder / "bundle"
    bundle.mkdir()
    names = [f"step{number}" for number in range(len(texts))]
    steps = [code_step(bundle, name, text) for name, text in zip(names, texts, strict=True)]
    for before, after in zip(range(len(steps)), range(1, len(steps)), strict=False):
        steps[before] = replace(steps[before], outputs=(names[after],))
        steps[after] = replace(steps[after], inputs=(names[before],))
    steps[0] = replace(steps[0], **props)
    return write_bundle(bundle, *steps)


def ask_step(service: Service, name: str, values: list[Any]) -> Reply:
    return service.ask(f"/predict?step={name}", json.dumps({"data": values}).encode())


def until_ready(service: Service) -> Service:
    wait_for(service.ready, 60, "/readyz answers 200")
    return service


def metric(service: Service, name: str) -> float:
    """The value of the metric written exactly so, labels included."""
    found = re.search(rf"^{re.escape(name)} (\S+)$", service.ask("/metrics").body.decode(), re.MULTILINE)
    assert found, name
    return float(found[1])


class TestAModelBehindEitherServer:
    def test_gives_the_models_own_answers(self, service: Service, model: Any) -> None:
        reply = service.predict(ROWS[:100].tolist())
        assert reply.status == 200
        assert reply.json == {"predictions": model.predict(ROWS[:100]).tolist()}

    def test_gives_sixteen_clients_at_once_each_its_own_answers(self, service: Service, model: Any) -> None:
        def client(number: int) -> bool:
            rows = ROWS[number * 30 : number * 30 + 30]
            expected = model.predict(rows).tolist()
            answers = [service.predict([row]).json["predictions"][0] for row in rows.tolist()]
            return bool(answers == expected and service.predict(rows.tolist()).json["predictions"] == expected)

        with ThreadPoolExecutor(16) as clients:
            assert all(clients.map(client, range(16)))

    def test_a_bad_instance_fails_its_own_request_only(self, service: Service) -> None:
        def client(number: int) -> int:
            return service.predict([ROW, ROW[:29]] if number % 2 else [ROW]).status

        with ThreadPoolExecutor(8) as clients:
            assert list(clients.map(client, range(64))) == [200, 400] * 32

    def test_no_instances_no_predictions(self, service: Service) -> None:
        assert service.predict([]).json == {"predictions": []}

    @pytest.mark.parametrize(
        ("body", "text"),
        [
            (b"", "the body is not JSON"),
            (b"{", "the body is not JSON"),
            (b"\xff\xfe", "the body is not JSON"),
            (b'{"data": [NaN]}', "the body is not JSON"),
            (b"[" * 100_000, "the body is not JSON"),
            (b"[1]", 'expected {"data": [instance, …]}, got a list'),
            (b"null", 'expected {"data": [instance, …]}, got null'),
            (b'{"instances": []}', 'expected {"data": [instance, …]}, the object has no "data"'),
            (b'{"data": 5}', 'expected {"data": [instance, …]}, "data" is a number'),
            (b'{"data": {"0": []}}', 'expected {"data": [instance, …]}, "data" is an object'),
            (b'{"data": [5]}', "data[0]: expected (30,), got ()"),
            (json.dumps({"data": [ROW, ROW[:29]]}).encode(), "data[1]: expected (30,), got (29,)"),
            (json.dumps({"data": [[1], ROW, [2]]}).encode(), "data[0]: expected (30,), got (1,) (and 1 more)"),
            (json.dumps({"data": [[*ROW[:29], "x"]]}).encode(), "data[0]: could not convert string to float: 'x'"),
            (json.dumps({"data": [[*ROW[:29], None]]}).encode(), "data[0]: Input X contains NaN."),
            (b'{"data": [null]}', 'data[0]: expected a number, a list, or an object with "data"; got null'),
            (b'{"data": [{"rows": 1}]}', "data[0]: expected a number, a list, or an object with"),
        ],
    )
    def test_bad_input_is_named(self, service: Service, body: bytes, text: str) -> None:
        reply = service.ask("/predict", body)
        assert reply.status == 400
        assert reply.json.keys() == {"error"}
        assert reply.json["error"].startswith(text)

    @pytest.mark.parametrize("route", [*OURS, "/", "/docs.json", "/schema.json", "/nowhere"])
    @pytest.mark.parametrize(
        "kind", ["application/vnd.bentoml+pickle", "multipart/form-data; boundary=x", "text/plain"]
    )
    def test_undeclared_content_is_refused_on_every_route(
        self, service: Service, route: str, kind: str, tmp_path: Path
    ) -> None:
        canary = tmp_path / "canary"
        reply = service.ask(route, pickle.dumps(Canary(canary)), content_type=kind)
        assert reply.status == 415
        assert "send application/json" in reply.json["error"]
        assert not canary.exists()

    def test_a_body_without_type_or_with_an_encoding_is_refused(self, service: Service) -> None:
        assert raw(service, "POST /predict HTTP/1.1", "Content-Length: 2", body="{}").startswith("HTTP/1.1 415")
        assert service.ask("/predict", b"{}", content_encoding="gzip").status == 415

    def test_json_may_say_its_charset(self, service: Service) -> None:
        assert service.ask("/predict", b'{"data": []}', content_type="Application/JSON; charset=utf-8").status == 200

    def test_a_body_over_the_limit_is_refused_whether_it_says_so_or_not(self, service: Service) -> None:
        declared = service.ask("/predict", b" " * ((1 << 20) + 1))
        assert (declared.status, "larger than 1048576 bytes" in declared.json["error"]) == (413, True)
        chunk = f"{1 << 19:x}\r\n{' ' * (1 << 19)}\r\n"
        lines = ("Content-Type: application/json", "Transfer-Encoding: chunked")
        assert raw(service, "POST /predict HTTP/1.1", *lines, body=f"{chunk * 3}0\r\n\r\n").startswith("HTTP/1.1 413")

    def test_methods_and_routes_that_are_not_there(self, service: Service) -> None:
        reply = service.ask("/predict")
        assert (reply.status, reply.json["error"]) == (405, "/predict takes POST, got GET")
        assert service.ask("/info", b"{}").status == 405
        nowhere = service.ask("/nowhere")
        assert nowhere.status == 404
        assert "POST /predict" in nowhere.json["error"]

    def test_says_that_it_lives_is_ready_and_what_it_is(self, service: Service) -> None:
        assert service.ask("/livez").json == {"live": True}
        assert service.ask("/readyz").json == {"ready": True}
        assert service.ask("/livez", method="HEAD").body == b""
        info = service.ask("/info").json
        assert info["started"]
        assert {key: info[key] for key in ("pipeline", "unit", "mode", "release")} == {
            "pipeline": "plant",
            "unit": "model",
            "mode": "api",
            "release": "r1",
        }
        assert info["steps"] == [{"name": "model", "kind": "model", "framework": "scikit-learn"}]

    def test_counts_what_it_does(self, service: Service) -> None:
        names = ('mlpacker_messages_in_total{queue="http"}', 'mlpacker_messages_out_total{queue="http"}')
        names += ('mlpacker_predict_seconds_count{step="model"}', "mlpacker_end_to_end_seconds_count")
        failed = 'mlpacker_messages_failed_total{stage="input",step="model"}'
        service.predict([ROW[:1]])
        before = [metric(service, name) for name in (*names, failed)]
        service.predict([ROW, ROW])
        service.predict([ROW, ROW[:1]])
        after = [metric(service, name) for name in (*names, failed)]
        taken, answered, batches, requests, failures = (new - old for new, old in zip(after, before, strict=True))
        assert (taken, answered, requests, failures) == (4, 2, 2, 1)
        assert batches == 2
        assert metric(service, "mlpacker_in_flight") == 0

    def test_is_described_for_machines_and_people(self, service: Service) -> None:
        description = service.ask("/docs.json").json
        assert description["info"]["title"] == "model"
        assert "data" in json.dumps(description["paths"]["/predict"]["post"]["requestBody"])
        page = service.ask("/")
        assert (page.status, b"swagger" in page.body) == (200, True)
        assert "script-src" not in page.headers["content-security-policy"]
        assert page.headers["content-security-policy"].startswith("default-src 'self'")


class Canary:
    """A pickle that makes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


def test_only_the_model_loader_can_unpickle() -> None:
    runtime = PACKAGE / "runtime"
    word = re.compile(r"^\s*(?:import|from) (?:pickle|joblib|marshal|shelve|dill|cloudpickle)\b", re.MULTILINE)
    found = {str(path.relative_to(runtime)) for path in runtime.rglob("*.py") if word.search(path.read_text())}
    # pickles.py walks through a pickle with an unpickler that finds nothing: see tests/hostile/test_no_unpickling.py
    assert found == {"frameworks/scikit_learn.py", "model_files/pickles.py"}


def raw(service: Service, *lines: str, body: str) -> str:
    """What the service answers to these very lines."""
    host, port = service.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 10) as connection:
        connection.sendall("\r\n".join([*lines, f"Host: {host}", "", body]).encode())
        return connection.recv(65536).decode()


ODD = """
def handler(value):
    if value == "drop":
        return None
    if value == "many":
        return (n for n in range(3))
    if value == "set":
        return {1, 2}
    if value == "nan":
        return float("nan")
    return {"halved": value / 2}
"""
ON = "def handler(value):\n    return value"


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(write_chain(tmp_path_factory.mktemp("chain"), ODD, ON)) as service:
        yield service


class TestChainsOfCode:
    def test_an_answer_per_instance_null_for_a_dropped_one_a_list_for_many(self, chain: Service) -> None:
        reply = chain.predict([4, "drop", "many", "nan"])
        assert reply.json == {"predictions": [{"halved": 2.0}, None, [0, 1, 2], None]}

    def test_a_raising_handler_is_named_without_its_stack(self, chain: Service) -> None:
        reply = chain.predict([4, "x"])
        assert reply.status == 500
        assert reply.json["error"] == (
            "data[1]: step 'step0' failed: TypeError: unsupported operand type(s) for /: 'str' and 'int' (main.py:11)"
        )
        assert "Traceback" in chain.log.read_text()  # for those who run it

    def test_an_answer_that_json_cannot_hold_is_said(self, chain: Service) -> None:
        reply = chain.predict(["set"])
        assert (reply.status, "what JSON cannot hold" in reply.json["error"]) == (500, True)

    def test_goes_on_after_failures(self, chain: Service) -> None:
        chain.predict(["x"])
        assert chain.predict([4]).status == 200


GATED = """
import pathlib, time
seen = 0
def handler(value):
    global seen
    seen += 1
    if value == "wait":
        pathlib.Path("waiting").touch()
        while not pathlib.Path("go").exists():
            time.sleep(0.01)
    return seen
"""


class TestASlowStep:
    def test_holds_up_no_probe_and_what_waited_is_the_next_batch(
        self, serve: Callable[..., Service], tmp_path: Path
    ) -> None:
        service = until_ready(serve(GATED))
        with ThreadPoolExecutor(9) as clients:
            slow = clients.submit(service.predict, ["wait"])
            wait_for((tmp_path / "bundle" / "waiting").exists, what="the slow request is in the handler")
            others = [clients.submit(service.predict, [number]) for number in range(8)]
            wait_for(lambda: metric(service, "mlpacker_in_flight") == 9, what="all requests are in")
            assert service.ask("/livez").status == 200
            (tmp_path / "bundle" / "go").touch()
            assert slow.result().json == {"predictions": [1]}
            assert sorted(other.result().json["predictions"][0] for other in others) == list(range(2, 10))
        assert metric(service, "mlpacker_batch_size_count") == 2
        assert metric(service, "mlpacker_batch_size_sum") == 9

    def test_is_finished_before_a_unit_that_was_told_to_stop_ends(
        self, serve: Callable[..., Service], tmp_path: Path
    ) -> None:
        service = until_ready(serve(GATED))
        with ThreadPoolExecutor(4) as clients:
            asked = [clients.submit(service.predict, ["wait"]) for _ in range(4)]
            wait_for((tmp_path / "bundle" / "waiting").exists, what="a request is in the handler")
            wait_for(lambda: metric(service, "mlpacker_in_flight") == 4, what="all requests are in")
            service.process.send_signal(signal.SIGTERM)
            wait_for(lambda: refuses(service), what="it takes no new connection")
            (tmp_path / "bundle" / "go").touch()
            assert [each.result().status for each in asked] == [200] * 4
        assert service.process.wait(30) == 0
        assert "stopped in order" in service.log.read_text()


def refuses(service: Service) -> bool:
    try:
        service.ask("/livez")
    except OSError:
        return True
    return False


LOADS_WHEN_TOLD = """
import pathlib, time
while not pathlib.Path("go").exists():
    time.sleep(0.01)
handler = print
"""


class TestStartAndEnd:
    @pytest.mark.parametrize("server", SERVERS)
    def test_lives_but_is_not_ready_until_it_is_loaded(
        self, serve: Callable[..., Service], tmp_path: Path, server: str
    ) -> None:
        service = serve(LOADS_WHEN_TOLD, server=server)
        wait_for(lambda: not refuses(service), 60, "it listens")
        assert service.ask("/livez").status == 200
        reply = service.ask("/readyz")
        assert (reply.status, reply.json) == (503, {"ready": False, "reason": "loading"})
        asked = service.predict([1])
        assert (asked.status, asked.json) == (503, {"error": "not ready: loading"})
        (tmp_path / "bundle" / "go").touch()
        assert until_ready(service).predict([1]).json == {"predictions": [None]}

    def test_ends_by_itself_when_it_cannot_be_loaded_and_says_why(self, serve: Callable[..., Service]) -> None:
        service = serve("def handle(value): ...")
        assert service.process.wait(60) == 1
        assert "step 'step0': code/step0/main.py has no function 'handler'; there is handle" in service.log.read_text()

    def test_is_never_ready_under_bentoml_when_it_cannot_be_loaded(self, serve: Callable[..., Service]) -> None:
        service = serve("def handle(value): ...", server="bentoml")
        wait_for(lambda: not refuses(service), 60, "it listens")
        wait_for(lambda: service.ask("/readyz").json["reason"] != "loading", what="it has tried to load")
        reply = service.ask("/readyz")
        assert (reply.status, "has no function 'handler'" in reply.json["reason"]) == (503, True)

    def test_stops_at_once_when_told_while_loading(self, serve: Callable[..., Service]) -> None:
        service = serve(LOADS_WHEN_TOLD)
        wait_for(lambda: not refuses(service), 60, "it listens")
        assert service.stop() == 0

    def test_a_taken_port_is_named_with_the_remedy(self, tmp_path: Path) -> None:
        folder = write_chain(tmp_path, ON)
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = str(taken.getsockname()[1])
            service = start(folder, MLPACKER_PORT=port)
            assert service.process.wait(60) == 1
        text = service.log.read_text()
        assert f"cannot listen on 127.0.0.1:{port}: Address already in use (set MLPACKER_PORT to a free port)" in text

    def test_port_0_is_any_free_port_which_the_log_names(self, tmp_path: Path) -> None:
        service = start(write_chain(tmp_path, ON), MLPACKER_PORT="0")
        try:
            found = wait_for(lambda: re.search(r"listening on (http://\S+)/predict", service.log.read_text()), 60)
            assert until_ready(replace(service, url=found[1])).predict([1]).json == {"predictions": [1]}
        finally:
            end(service)

    def test_bentoml_tracks_nobody(self, serve: Callable[..., Service]) -> None:
        text = "import os\ndef handler(value):\n    return os.environ['BENTOML_DO_NOT_TRACK']"
        assert until_ready(serve(text, server="bentoml")).predict([0]).json == {"predictions": ["true"]}


class TestCheck:
    def check(self, folder: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "service.py", "--check"], cwd=folder, capture_output=True, text=True)

    def test_loads_and_answers_the_golden_requests(self, tmp_path: Path) -> None:
        done = self.check(write_chain(tmp_path, ON, test={"input": [1.0], "output": [1]}))
        assert (done.returncode, done.stdout) == (0, "ok: 1 steps loaded, 1 golden requests answered\n")

    def test_says_what_was_expected_and_what_came(self, tmp_path: Path) -> None:
        done = self.check(write_chain(tmp_path, ON, test={"input": [1.0], "output": [2.5]}))
        assert done.returncode == 1
        assert done.stdout == "check failed: step 'step0': golden request: at [0]: expected 2.5, got 1.0\n"

    def test_a_missing_model_fails_it(self, tmp_path: Path, model: Any) -> None:
        step = model_step(tmp_path, model)
        write_bundle(tmp_path, step)
        (tmp_path / step.path).unlink()
        done = self.check(tmp_path)
        assert done.returncode == 1
        assert "step 'model': models/model/model.joblib: no such file" in done.stdout


def test_a_tensorflow_model_answers_sixteen_clients_as_it_does_by_itself(tmp_path: Path) -> None:
    """A Keras 2 autoencoder; the first reconstructed row is what Keras 2 gave. TensorFlow stays on the one thread."""
    source = Path(__file__).parent.parent / "contract" / "data" / "keras2_lstm.h5"
    (tmp_path / "models").mkdir()
    shutil.copyfile(source, tmp_path / "models" / "model.h5")
    window = [[math.sin((3 * row + column) / 9) for column in range(3)] for row in range(30)]
    step = StepSpec("lstm", "model", "models/model.h5", framework="tensorflow", serializer="h5")
    write_bundle(tmp_path, replace(step, test={"input": window}))
    with running(tmp_path) as service, ThreadPoolExecutor(16) as clients:
        replies = list(clients.map(lambda number: service.predict([window] * number), range(1, 33)))
        assert [len(reply.json["predictions"]) for reply in replies] == list(range(1, 33))
        rows = [prediction[0] for reply in replies for prediction in reply.json["predictions"]]
        assert rows == [pytest.approx([-0.00519308, 0.01838754, -0.00089822], abs=1e-6)] * len(rows)
        assert service.predict([window[:29]]).json == {"error": "data[0]: expected (30, 3), got (29, 3)"}
        assert "oneDNN" not in service.log.read_text()


def test_a_model_between_code_steps_answers_as_the_model_does(tmp_path: Path, model: Any) -> None:
    before = code_step(
        tmp_path, "before", "def handler(value):\n    return {'data': value, 'at': 7}", outputs=("model",)
    )
    middle = model_step(tmp_path, model, inputs=("before",), outputs=("after",))
    text = "def handler(value):\n    return [value['at'], value['prediction']]"
    after = code_step(tmp_path, "after", text, inputs=("model",))
    write_bundle(tmp_path, before, middle, after)
    with running(tmp_path) as service:
        expected = [[7, label] for label in model.predict(ROWS[:20]).tolist()]
        assert service.predict(ROWS[:20].tolist()).json == {"predictions": expected}
        assert ask_step(service, "model", ROWS[:20].tolist()).json == {"predictions": model.predict(ROWS[:20]).tolist()}
        assert ask_step(service, "before", [1]).json == {"predictions": [{"data": 1, "at": 7}]}
        assert ask_step(service, "after", [1]).json["error"].startswith("data[0]: step 'after' failed: TypeError")
        unknown = ask_step(service, "nobody", [1])
        assert (unknown.status, unknown.json) == (
            404,
            {"error": "this unit has no step 'nobody', only before, model, after"},
        )
