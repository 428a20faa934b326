"""From a PADL file to answers and back to nothing, by the command line, with real environments and a real model."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

from tests.integration.here import Here
from tests.support import ROOT, free_port, wait_for

pytestmark = [pytest.mark.native, pytest.mark.timeout(600)]
EXAMPLES = ROOT / "pipelines" / "examples"
MODEL = """
version: "1.1"
id: iris
containerized: false
package-mode: api
deploy-mode: local
pipeline:
  iris:
    type: model
    framework: scikit-learn
    props: {path: ./iris.skops, serializer: skops}
    test: {input: [5.1, 3.5, 1.4, 0.2], output: 0}
"""
CODE = """
version: "1.1"
id: iris
containerized: false
package-mode: api
deploy-mode: local
pipeline:
  iris:
    type: code
    language: python
    props: {path: ./code}
"""
STREAM = """
version: "1.1"
id: stream
containerized: false
package-mode: stream
deploy-mode: local
pipeline:
  double:
    type: code
    language: python
    props: {path: ./code}
    queues: {input: readings, output: doubled}
queues:
  readings: {connector: mqtt, props: {server: 127.0.0.1, port: PORT, topic: readings}}
  doubled: {connector: mqtt, props: {server: 127.0.0.1, port: PORT, topic: doubled}}
"""


@dataclass(frozen=True)
class Place(Here):
    """With what these tests ask of one pipeline, `iris`."""

    def unit(self) -> dict[str, Any]:
        done = self.mlpacker("status", "iris", "--json")
        assert done.returncode == 0, done.stderr
        unit: dict[str, Any] = json.loads(done.stdout)["units"][0]
        return unit

    def predict(self, *instances: list[float]) -> list[Any]:
        request = Request(
            f"{self.unit()['endpoint']}/predict",
            json.dumps({"data": instances}).encode(),
            {"Content-Type": "application/json"},
        )
        with urlopen(request, timeout=30) as response:
            answers: list[Any] = json.load(response)["predictions"]
        return answers

    def left(self) -> list[Path]:
        """What is there of any pipeline; environments, the store of artefacts and supervisor's own files are shared."""
        kinds = ("bundles", "conf.d", "releases", "state", "locks")
        logs = [path for path in (self.home / "logs").glob("*") if path.name != "supervisord.log"]
        return [path for kind in kinds for path in (self.home / kind).iterdir()] + logs


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One home for all tests of this module: its environments are built once."""
    return tmp_path_factory.mktemp("native") / "home"


@pytest.fixture
def place(tmp_path: Path, home: Path) -> Iterator[Place]:
    shutil.copy(EXAMPLES / "models" / "iris.skops", tmp_path)
    made = Place(tmp_path, home)
    yield made
    for pipeline in ("iris", "stream"):
        made.mlpacker("undeploy", pipeline)


def test_a_model_goes_live_survives_and_leaves_nothing(place: Place) -> None:
    from skops.io import load

    file = place.write("iris.yaml", MODEL)
    begun = time.monotonic()
    first = place.mlpacker("deploy", file)
    print(f"first deploy: {time.monotonic() - begun:.1f} s")
    assert first.returncode == 0, first.stderr

    instances = [[5.1, 3.5, 1.4, 0.2], [6.0, 3.0, 5.0, 2.0], [5.9, 2.8, 4.3, 1.3]]
    assert place.predict(*instances) == load(place.folder / "iris.skops").predict(instances).tolist()

    before = place.unit()
    begun = time.monotonic()
    second = place.mlpacker("deploy", file, "--json")
    took = time.monotonic() - begun
    print(f"second deploy: {took:.2f} s")
    assert [unit["action"] for unit in json.loads(second.stdout)["units"]] == ["nothing"]
    assert place.unit() == before
    assert took < 2.0 * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))

    os.kill(before["pid"], signal.SIGKILL)
    wait_for(lambda: place.unit()["pid"] not in (0, before["pid"]), 30, "the restart")
    wait_for(lambda: place.unit()["state"] == "running", 60, "the model to be loaded again")
    assert place.predict(instances[0]) == [0]

    pid, port = place.unit()["pid"], int(before["endpoint"].rpartition(":")[2])
    undeployed = place.mlpacker("undeploy", "iris")
    assert undeployed.returncode == 0, undeployed.stderr
    assert place.left() == []
    assert not Path(f"/proc/{pid}").exists()
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))
    assert place.mlpacker("status", "iris").returncode == 2


def test_a_broken_second_version_leaves_the_first_answering(place: Place) -> None:
    file = place.write("iris.yaml", MODEL)
    assert place.mlpacker("deploy", file).returncode == 0
    before, kept = place.unit(), sorted(place.left())

    model = (place.folder / "iris.skops").read_bytes()
    (place.folder / "iris.skops").write_bytes(model[: len(model) // 2])
    unloadable = place.mlpacker("deploy", file)
    assert unloadable.returncode == 4, unloadable.stderr
    assert "iris" in unloadable.stderr
    assert "Traceback" not in unloadable.stderr
    (place.folder / "iris.skops").write_bytes(model)

    wrong = place.mlpacker("deploy", place.write("iris.yaml", MODEL.replace("output: 0", "output: 2")))
    assert wrong.returncode == 7, wrong.stderr  # the same unit, asked over HTTP: nothing is built or started for it
    assert "expected 2, got 0" in wrong.stderr

    assert place.unit() == before
    assert place.predict([5.1, 3.5, 1.4, 0.2]) == [0]
    assert sorted(place.left()) == kept


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (
            "raise ValueError('no threshold in the table')\ndef handler(value):\n    return value\n",
            "no threshold in the table",
        ),
        ("def handle(value):\n    return value\n", "handler"),
        ("def handler(value)\n    return value\n", "main.py"),
    ],
    ids=["raises", "missing", "syntax"],
)
def test_a_handler_that_cannot_be_used_is_refused_before_anything_is_switched(
    place: Place, code: str, says: str
) -> None:
    place.write("code/main.py", "def handler(value):\n    return 2 * value\n")
    file = place.write("iris.yaml", CODE)
    first = place.mlpacker("deploy", file)
    assert first.returncode == 0, first.stderr
    before = place.unit()
    place.write("code/main.py", code)
    second = place.mlpacker("deploy", file)
    assert second.returncode in (3, 5), second.stderr
    assert says in second.stderr
    assert place.unit() == before
    assert place.predict(21) == [42]


def test_a_broker_that_is_down_is_named_and_nothing_is_left(place: Place) -> None:
    port = free_port()
    place.write("code/main.py", "def handler(value):\n    return 2 * value\n")
    file = place.write("stream.yaml", STREAM.replace("PORT", str(port)))
    done = place.mlpacker("deploy", file, MLPACKER__DEPLOY__READY_TIMEOUT="6")
    assert done.returncode == 7, done.stderr
    assert f"127.0.0.1:{port}" in done.stderr
    assert "removed, there was none before" in done.stderr
    assert place.left() == []


def test_a_deploy_that_is_told_to_end_puts_everything_back(place: Place) -> None:
    place.write("code/main.py", "def handler(value):\n    return 2 * value\n")
    file = place.write("stream.yaml", STREAM.replace("PORT", str(free_port())))
    with place.start("deploy", file) as deploying:
        assert deploying.stderr is not None
        while "waiting for every unit" not in deploying.stderr.readline():
            assert deploying.poll() is None
        deploying.terminate()
        assert "putting every unit back" in deploying.stderr.read()
    assert deploying.returncode == 128 + signal.SIGTERM
    assert place.left() == []


def test_a_port_that_is_taken_is_refused_with_its_holder(place: Place) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        file = place.write("iris.yaml", MODEL.replace("    test:", f"    port: {port}\n    test:"))
        done = place.mlpacker("deploy", file)
    assert done.returncode == 7, done.stderr
    assert f"port {port} on this machine is taken by process {os.getpid()}" in done.stderr
    assert place.left() == []


def test_a_home_with_a_long_and_odd_path_works(tmp_path: Path) -> None:
    odd = tmp_path / "a home with 100% 'quotes' \"and\" ünïcode" / ("long" * 20)
    odd.mkdir(parents=True)
    place = Place(tmp_path, odd / "home")
    place.write("code/main.py", "def handler(value):\n    return 2 * value\n")
    done = place.mlpacker("deploy", place.write("iris.yaml", CODE))
    try:
        assert done.returncode == 0, done.stderr
        assert place.predict(21) == [42]
    finally:
        place.mlpacker("undeploy", "iris")
    assert place.left() == []
