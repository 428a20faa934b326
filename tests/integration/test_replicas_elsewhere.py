"""Replicas of a streaming unit in the other forms: containers here, processes and containers on a machine by SSH."""

from __future__ import annotations

import json
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from packer_lib.runtime.manifest import QueueSpec
from tests.contract.connectors import fresh
from tests.images.cases import DOCKER
from tests.integration.here import Here
from tests.integration.test_replicas import HANDLER, LONG, Flow, unit
from tests.lab import lab
from tests.support import wait_for

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]
MACHINE = "edge_node"
ID = "shared-elsewhere"
Ask = Callable[..., str]


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


def document(source: QueueSpec, sink: QueueSpec, replicas: int, boxed: bool, remote: bool) -> dict[str, Any]:
    queues = {
        one.id: {"connector": "kafka", "props": {"server": one.server, "port": one.port, "topic": one.topic}}
        for one in (source, sink)
    }
    step = {"type": "code", "language": "python", "props": {"path": "./code"}, "replicas": replicas}
    step |= {"batch": {"max_size": 20}, "queues": {"input": "in", "output": "out"}}
    return {
        "version": "1.1",
        "id": ID,
        "containerized": boxed,
        "package-mode": "stream",
        "deploy-mode": "remote" if remote else "local",
        "pipeline": {"pass": {**step, **({"infra": "m"} if remote else {})}},
        "queues": queues,
        **({"infra": dict(lab.padl_infra(m=MACHINE))} if remote else {}),
    }


def asking(remote: bool) -> Ask:
    """What a command prints on the machine where the unit is."""

    def here(*argv: str) -> str:
        return subprocess.run(argv, capture_output=True, text=True, check=False).stdout

    return lab.machine(MACHINE).exec if remote else here


FORMS = {"boxed": (True, False)} | ({"far": (False, True), "boxed and far": (True, True)} if LONG else {})


@pytest.mark.parametrize(("boxed", "remote"), FORMS.values(), ids=FORMS.keys())
def test_more_and_fewer_replicas_under_load_lose_and_double_nothing(place: Here, boxed: bool, remote: bool) -> None:
    source, sink, ask = topic("in", 4), topic("out", 1), asking(remote)
    home = "/home/vagrant/.mlpacker" if remote else str(place.home)

    def deploy(replicas: int) -> dict[str, Any]:
        begun = time.monotonic()
        file = place.write("shared.json", json.dumps(document(source, sink, replicas, boxed, remote)))
        done = place.mlpacker("deploy", file, **lab.settings_env())
        assert done.returncode == 0, done.stderr
        wait_for(lambda: of(place)["state"] == "running", 60, "all of them", every=0.5)
        print(f"{replicas} replicas: {time.monotonic() - begun:.1f} s")
        return of(place)

    first = deploy(1)
    with Flow(source, sink) as flow:
        seen = [deploy(replicas) for replicas in (2, 3, 1)]
        state = f"{home}/state/{ID}/pass/{first['release']}"
        kept = ask("ls", "-ln", state)
        flow.stop()
    counts = Counter(flow.got)
    print(f"{flow.sent} sent, lost {flow.sent - len(counts)}, doubled {len(flow.got) - len(counts)}", kept, sep="\n")
    assert counts == Counter(range(flow.sent))
    assert [one["replicas"] for one in seen] == [{"wanted": n, "running": n} for n in (2, 3, 1)]
    assert {one["release"] for one in seen} == {first["release"]}
    owners = {line.split()[8]: line.split()[2] for line in kept.splitlines()[1:]}
    assert {"in-hand-0", "in-hand-1", "in-hand-2", "models"} <= owners.keys()
    assert not boxed or owners["in-hand-2"] == "10001"
    assert place.mlpacker("undeploy", ID, **lab.settings_env()).returncode == 0
    assert ask("find", f"{home}/state", "-mindepth", "1") == ""
    names = (
        ask(DOCKER, "container", "ls", "--all", "--filter", f"label=io.mlpacker.pipeline={ID}", "--quiet")
        if boxed
        else ""
    )
    assert names == ""


def of(place: Here) -> dict[str, Any]:
    return unit(place, ID)
