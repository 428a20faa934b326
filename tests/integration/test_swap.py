"""`mlpacker swap`, as a person uses it: a unit deployed here, and new models for it while it runs."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import joblib
import pytest

from packer_lib.runtime.contract import MODEL, Message, Source
from packer_lib.runtime.manifest import QueueSpec
from tests.contract.connectors import take
from tests.integration import streaming
from tests.integration.here import Here, ask
from tests.lab.brokers import Broker
from tests.runtime.swapping import APART, digest, line
from tests.runtime.test_streams import on, reading, writing
from tests.support import wait_for

pytestmark = [pytest.mark.native, pytest.mark.broker, pytest.mark.timeout(600)]


class Place(Here):
    """With a pipeline of one streaming model, and what it answers."""

    def model(self, number: int, name: str = "", **how: int) -> str:
        """A file beside the PADL file; its digest."""
        file = self.folder / (name or f"model{number}.joblib")
        joblib.dump(line(number, **how), file)
        return digest(file)

    def unit(self) -> dict[str, Any]:
        done = self.mlpacker("status", "swapping", "--json")
        assert done.returncode == 0, done.stderr
        unit: dict[str, Any] = json.loads(done.stdout)["units"][0]
        return unit

    def live(self) -> str:
        (model,) = self.unit()["models"]
        assert model["version"] == model["sha256"][:12]
        return str(model["sha256"])

    def action(self, *words: str) -> str:
        done = self.mlpacker(*words, "--json")
        assert done.returncode == 0, done.stderr
        return str(json.loads(done.stdout)["units"][0]["action"])


@pytest.fixture
def queues(mosquitto: Broker) -> tuple[QueueSpec, QueueSpec]:
    return on(mosquitto, "readings"), on(mosquitto, "answers")


@pytest.fixture
def place(tmp_path: Path, queues: tuple[QueueSpec, QueueSpec]) -> Iterator[Place]:
    made = Place(tmp_path, tmp_path / "home")
    made.write("swapping.json", streaming.document("swapping", streaming.MODEL, queues))
    yield made
    made.mlpacker("undeploy", "swapping")
    assert made.state()["processes"] == {}


def version(source: QueueSpec, reader: Source) -> tuple[int, str]:
    """Which model answers a message now, and which one the header says."""
    with writing(source) as sink:
        sink.produce([Message(b"[1]")])
        sink.flush(30)
    (answer,) = take(reader, 1, acknowledge=True)
    return int(json.loads(answer.value)) // APART, answer.headers[MODEL].decode()


def test_a_new_model_is_live_without_a_restart_and_stays_so(place: Place, queues: tuple[QueueSpec, QueueSpec]) -> None:
    own, new, other = place.model(0, "model.joblib"), place.model(1), place.model(2)
    place.model(3, features=2)
    deployed = place.mlpacker("deploy", "swapping.json")
    assert deployed.returncode == 0, deployed.stderr
    before = place.unit()
    with reading(queues[1]) as reader:
        assert version(queues[0], reader) == (0, f"step={own[:12]}")

        done = place.mlpacker("swap", "swapping", "step", "model1.joblib", "--sha256", new)
        assert done.returncode == 0, done.stderr
        assert "1 of 1 process answer with it" in done.stderr
        assert done.stdout.split()[:3] == ["step", "swap", before["release"]]
        assert version(queues[0], reader) == (1, f"step={new[:12]}")
        assert (place.live(), place.unit()["pid"]) == (new, before["pid"])

        refused = place.mlpacker("swap", "swapping", "step", "model3.joblib")
        assert refused.returncode == 7, refused.stderr
        assert "it does not answer a message that came lately: expected (2,), got (1,)" in refused.stderr
        assert version(queues[0], reader)[0] == 1
        assert place.action("swap", "swapping", "step", "model2.joblib") == "swap"
        assert version(queues[0], reader) == (2, f"step={other[:12]}")

        os.kill(place.unit()["pid"], signal.SIGKILL)
        wait_for(lambda: place.unit()["state"] == "running" and place.unit()["pid"] != before["pid"], 60, "its restart")
        assert version(queues[0], reader) == (2, f"step={other[:12]}")

        assert (
            json.loads(place.mlpacker("deploy", "swapping.json", "--dry-run", "--json").stdout)["units"][0]["action"]
            == "swap"
        )
        pid = place.unit()["pid"]
        assert place.action("deploy", "swapping.json") == "swap", "the file's word is the last"
        assert version(queues[0], reader) == (0, f"step={own[:12]}")
        assert (place.live(), place.unit()["pid"]) == (own, pid)
        assert place.action("deploy", "swapping.json") == "nothing"

        place.mlpacker("swap", "swapping", "step", "model1.joblib")
        place.model(5, "model.joblib")
        assert place.action("deploy", "swapping.json") == "swap", "the file differs in nothing but its model"
        assert version(queues[0], reader)[0] == 5
        assert place.action("deploy", "swapping.json") == "nothing"
        assert place.action("rollback", "swapping") == "swap"
        assert version(queues[0], reader)[0] == 1, "as it was when it was live"
        assert (place.live(), place.unit()["pid"]) == (new, pid)
    audit = [json.loads(text)["what"] for text in (place.home / "audit.log").read_text().splitlines()]
    assert audit.count("swap step") == 3


def test_what_cannot_be_swapped_is_said_in_one_line(place: Place) -> None:
    place.model(0, "model.joblib")
    assert place.mlpacker("swap", "swapping", "step", "model.joblib").returncode == 2
    assert place.mlpacker("deploy", "swapping.json").returncode == 0
    before = place.live()
    place.write("text.joblib", "no model at all")
    cases = {
        ("swapping", "stepp", "model.joblib"): (2, "did you mean 'step'?"),
        ("swapping", "step", "nothing.joblib"): (5, "there is no"),
        ("swapping", "step", "/etc/passwd"): (4, "outside the model roots"),
        ("swapping", "step", "text.joblib"): (4, "is no joblib file"),
        ("swapping", "step", "model.joblib", "--sha256", "ab" * 32): (5, "the model's sha256 is"),
    }
    for words, (code, text) in cases.items():
        done = place.mlpacker("swap", *words)
        assert (done.returncode, text in done.stderr) == (code, True), done.stderr
    strict = place.mlpacker("swap", "swapping", "step", "model.joblib", MLPACKER__SECURITY__STRICT="true")
    assert strict.returncode == 4, strict.stderr
    assert place.live() == before


@pytest.fixture
def rest(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path, tmp_path / "home")
    modes = {"containerized": False, "package-mode": "api", "deploy-mode": "local"}
    padl = {"version": "1.1", "id": "swapping", **modes, "pipeline": {"step": streaming.MODEL}}
    made.write("swapping.json", json.dumps(padl))
    yield made
    made.mlpacker("undeploy", "swapping")
    assert made.state()["processes"] == {}


def test_a_rest_unit_takes_a_new_model_without_a_restart_too(rest: Place) -> None:
    own, new = rest.model(0, "model.joblib"), rest.model(1)
    rest.model(3, features=2)
    deployed = rest.mlpacker("deploy", "swapping.json")
    assert deployed.returncode == 0, deployed.stderr
    before = rest.unit()
    assert ask(before["endpoint"], [1])[1] == {"predictions": [1]}

    assert rest.action("swap", "swapping", "step", "model1.joblib") == "swap"
    assert ask(before["endpoint"], [1])[1] == {"predictions": [1 + APART]}
    assert (rest.live(), rest.unit()["pid"]) == (new, before["pid"])

    refused = rest.mlpacker("swap", "swapping", "step", "model3.joblib")
    assert refused.returncode == 7, refused.stderr
    assert ask(before["endpoint"], [1])[1] == {"predictions": [1 + APART]}

    assert rest.action("deploy", "swapping.json") == "swap", "the file's word is the last"
    assert ask(before["endpoint"], [1])[1] == {"predictions": [1]}
    assert (rest.live(), rest.unit()["pid"]) == (own, before["pid"])


def test_a_deploy_whose_file_differs_in_a_model_is_a_swap(rest: Place) -> None:
    """No build, no other process; refused, it is as it was; and a machine that starts again has the new model."""
    rest.model(0, "model.joblib")
    assert rest.action("deploy", "swapping.json") == "create"
    before, bundles = rest.unit(), sorted(path.name for path in (rest.home / "bundles").iterdir())

    new = rest.model(1, "model.joblib")
    assert rest.action("deploy", "swapping.json", "--dry-run") == "swap"
    assert rest.action("deploy", "swapping.json") == "swap"
    assert ask(before["endpoint"], [1])[1] == {"predictions": [1 + APART]}
    after = rest.unit()
    assert (rest.live(), after["pid"], after["release"]) == (new, before["pid"], before["release"])
    assert sorted(path.name for path in (rest.home / "bundles").iterdir()) == bundles
    assert rest.action("deploy", "swapping.json") == "nothing"
    assert rest.action("deploy", "swapping.json", "--dry-run") == "nothing"

    rest.model(3, "model.joblib", features=2)
    refused = rest.mlpacker("deploy", "swapping.json")
    assert refused.returncode == 7, refused.stderr
    assert "refuses the model" in refused.stderr
    assert f"rolled back: step: back on {before['release']}" in refused.stderr
    assert ask(before["endpoint"], [1])[1] == {"predictions": [1 + APART]}
    assert rest.live() == new

    os.kill(before["pid"], signal.SIGKILL)
    wait_for(lambda: rest.unit()["state"] == "running" and rest.unit()["pid"] != before["pid"], 60, "its restart")
    assert ask(before["endpoint"], [1])[1] == {"predictions": [1 + APART]}

    rest.model(2, "model.joblib")
    assert rest.action("deploy", "swapping.json") == "swap"
    assert rest.action("rollback", "swapping") == "swap"
    assert (ask(before["endpoint"], [1])[1], rest.live()) == ({"predictions": [1 + APART]}, new)
    assert rest.action("rollback", "swapping") == "swap"
    assert ask(before["endpoint"], [1])[1] == {"predictions": [1 + 2 * APART]}


def test_a_golden_answer_that_changed_with_the_model_is_asked_for(rest: Place) -> None:
    def padl(output: float) -> None:
        padl = json.loads((rest.folder / "swapping.json").read_text())
        padl["pipeline"]["step"]["test"] = {"input": [1], "output": output}
        rest.write("swapping.json", json.dumps(padl))

    rest.model(0, "model.joblib")
    padl(1)
    assert rest.action("deploy", "swapping.json") == "create"
    endpoint, pid = rest.unit()["endpoint"], rest.unit()["pid"]
    rest.model(1, "model.joblib")
    wrong = rest.mlpacker("deploy", "swapping.json")
    assert wrong.returncode == 7, wrong.stderr
    assert f"the golden request of step failed: at [0]: expected 1, got {1 + APART}" in wrong.stderr
    assert ask(endpoint, [1])[1] == {"predictions": [1]}
    padl(1 + APART)
    assert rest.action("deploy", "swapping.json") == "swap"
    assert ask(endpoint, [1])[1] == {"predictions": [1 + APART]}
    assert rest.unit()["pid"] == pid
