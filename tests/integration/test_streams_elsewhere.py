"""What is done to a running stream, in the other forms: containers here, processes and containers by SSH."""

from __future__ import annotations

import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from packer_lib.runtime.manifest import QueueSpec
from tests.contract.connectors import fresh
from tests.images.cases import DOCKER
from tests.integration.here import Here
from tests.integration.streaming import CODE, HANDLER, LONG, MODEL, Flow, document, unit
from tests.lab import lab
from tests.runtime.swapping import APART, digest, line
from tests.support import wait_for

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]
MACHINE = "edge_node"
ID = "shared-elsewhere"
FORMS = {"boxed": (True, False)} | ({"far": (False, True), "boxed and far": (True, True)} if LONG else {})


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Here]:
    made = Here(tmp_path, tmp_path / "home")
    made.write("code/main.py", HANDLER)
    yield made
    print(made.mlpacker("logs", ID, **lab.settings_env()).stdout[-6000:])  # for whoever looks why it failed
    made.mlpacker("undeploy", ID, **lab.settings_env())


def topic(name: str, partitions: int) -> QueueSpec:
    queue = QueueSpec(name, "kafka", "kafka_1", 9092, fresh())
    admin = AdminClient({"bootstrap.servers": "kafka_1:9092"})
    admin.create_topics([NewTopic(queue.topic, partitions)])[queue.topic].result(10)
    return queue


@dataclass(frozen=True)
class Form:
    """Whether the unit is in a container, and whether it is on another machine."""

    place: Here
    boxed: bool
    remote: bool

    @property
    def home(self) -> str:
        return "/home/vagrant/.mlpacker" if self.remote else str(self.place.home)

    def mlpacker(self, *words: str) -> str:
        """What it says on its way; it ends well."""
        done = self.place.mlpacker(*words, **lab.settings_env())
        assert done.returncode == 0, done.stderr
        return done.stderr

    def deploy(self, step: Mapping[str, Any], *queues: QueueSpec) -> dict[str, Any]:
        infra = lab.padl_infra(m=MACHINE) if self.remote else None
        file = self.place.write("shared.json", document(ID, step, queues, boxed=self.boxed, infra=infra))
        begun = time.monotonic()
        self.mlpacker("deploy", file)
        wait_for(lambda: unit(self.place, ID)["state"] == "running", 60, "all of them", every=0.5)
        print(f"deployed in {time.monotonic() - begun:.1f} s")
        return unit(self.place, ID)

    def ask(self, *argv: str) -> str:
        """What a command prints on the machine where the unit is."""
        if self.remote:
            return lab.machine(MACHINE).exec(*argv)
        return subprocess.run(argv, capture_output=True, text=True, check=False).stdout

    def undeploy(self) -> None:
        """Nothing stays."""
        self.mlpacker("undeploy", ID)
        assert self.ask("find", f"{self.home}/state", "-mindepth", "1") == ""
        if self.boxed:
            label = f"label=io.mlpacker.pipeline={ID}"
            assert self.ask(DOCKER, "container", "ls", "--all", "--filter", label, "--quiet") == ""


@pytest.fixture(params=FORMS.values(), ids=FORMS.keys())
def form(place: Here, request: pytest.FixtureRequest) -> Form:
    return Form(place, *request.param)


def exactly_once_each(flow: Flow, got: Sequence[int]) -> None:
    counts = Counter(got)
    print(f"{flow.sent} sent, lost {flow.sent - len(counts)}, doubled {len(got) - len(counts)}")
    assert counts == Counter(range(flow.sent))


def test_more_and_fewer_replicas_under_load_lose_and_double_nothing(form: Form) -> None:
    queues = topic("in", 4), topic("out", 1)
    first = form.deploy(CODE, *queues)
    with Flow(*queues) as flow:
        seen = [form.deploy({**CODE, "replicas": replicas}, *queues) for replicas in (2, 3, 1)]
        kept = form.ask("ls", "-ln", f"{form.home}/state/{ID}/step/{first['release']}")
        flow.stop()
    exactly_once_each(flow, flow.got)
    assert [one["replicas"] for one in seen] == [{"wanted": n, "running": n} for n in (2, 3, 1)]
    assert {one["release"] for one in seen} == {first["release"]}
    owners = {line.split()[8]: line.split()[2] for line in kept.splitlines()[1:]}
    assert {"in-hand-0", "in-hand-1", "in-hand-2", "models"} <= owners.keys(), kept
    assert not form.boxed or owners["in-hand-2"] == "10001"
    form.undeploy()


def test_a_new_model_under_load_loses_and_doubles_nothing(form: Form) -> None:
    """Two replicas take it, without a restart."""
    queues = topic("in", 4), topic("out", 1)
    for number, name in enumerate(("model.joblib", "new.joblib")):
        joblib.dump(line(number), form.place.folder / name)
    before = form.deploy({**MODEL, "replicas": 2}, *queues)
    with Flow(*queues, b"[%d]".__mod__, int) as flow:
        time.sleep(1)
        assert "2 of 2 processes answer with it" in form.mlpacker("swap", ID, "step", "new.joblib")
        after = unit(form.place, ID)
        time.sleep(1)
        flow.stop()
    exactly_once_each(flow, [number % APART for number in flow.got])
    by_model = Counter(number // APART for number in flow.got)
    assert by_model.keys() == {0, 1}
    assert (after["release"], after["replicas"]) == (before["release"], {"wanted": 2, "running": 2})
    assert [one["sha256"] for one in after["models"]] == [digest(form.place.folder / "new.joblib")]
    last = [number // APART for number in flow.got[-100:]]
    assert set(last) == {1}
    form.undeploy()
