"""Streaming units in several processes, put there by `mlpacker deploy` and counted message by message."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from packer_lib.runtime.contract import Message
from packer_lib.runtime.manifest import QueueSpec
from tests.integration.here import Here
from tests.lab.brokers import Broker
from tests.runtime.test_replicas import spread
from tests.runtime.test_streams import on, reading, writing
from tests.support import wait_for

pytestmark = [pytest.mark.native, pytest.mark.broker, pytest.mark.timeout(600)]
STREAM = """
version: "1.1"
id: shared
containerized: {containerized}
package-mode: stream
deploy-mode: local
pipeline:
  pass:
    type: code
    language: python
    props: {{path: ./code}}
    replicas: {replicas}
    batch: {{max_size: 20}}{more}
    queues: {{input: in, output: out}}
queues:
  in: {{connector: {source.connector}, props: {{server: {source.server}, port: {source.port}, topic: {source.topic}}}}}
  out: {{connector: {sink.connector}, props: {{server: {sink.server}, port: {sink.port}, topic: {sink.topic}}}}}
"""
HANDLER = "import time\ndef handler(value):\n    time.sleep(0.001)\n    return value\n"


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Here]:
    made = Here(tmp_path, tmp_path / "home")
    made.write("code/main.py", HANDLER)
    yield made
    print(made.mlpacker("logs", "shared").stdout[-6000:])  # for whoever looks why it failed
    made.mlpacker("undeploy", "shared")


@dataclass
class Flow:
    """Numbers that are put into `source` at a steady rate while the block runs, and all that comes out of `sink`."""

    source: QueueSpec
    sink: QueueSpec
    rate: float = 150.0
    sent: int = 0
    got: list[int] = field(default_factory=list)

    def __enter__(self) -> Flow:
        self._stop, self._end = threading.Event(), threading.Event()
        self._threads = [threading.Thread(target=self._read), threading.Thread(target=self._write)]
        self._listens = threading.Event()
        self._threads[0].start()
        assert self._listens.wait(30)
        self._threads[1].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._end.set()
        for thread in self._threads:
            thread.join(60)

    def stop(self) -> None:
        """No more is put in, and all of it has come out; what comes twice has had its time."""
        self._stop.set()
        self._threads[1].join(60)
        wait_for(lambda: len(set(self.got)) == self.sent, 40, f"all of {self.sent}: {len(set(self.got))} came")
        time.sleep(2)

    def _write(self) -> None:
        with writing(self.source) as sink:
            begun = time.monotonic()
            while not self._stop.wait(0.02):
                due = int((time.monotonic() - begun) * self.rate)
                sink.produce([Message(b'{"n": %d}' % number, b"%d" % number) for number in range(self.sent, due)])
                sink.flush(30)
                self.sent = due

    def _read(self) -> None:
        with reading(self.sink) as source:
            self._listens.set()
            while not self._end.is_set():
                batch = source.consume(1000, 0.2)
                source.ack(batch)
                self.got.extend(json.loads(message.value)["n"] for message in batch)


def write(place: Here, source: QueueSpec, sink: QueueSpec, replicas: int, more: str = "", boxed: bool = False) -> str:
    values = {"source": source, "sink": sink, "replicas": replicas, "more": more, "containerized": str(boxed).lower()}
    return place.write("shared.yaml", STREAM.format(**values))


def unit(place: Here) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(place.mlpacker("status", "shared", "--json").stdout)["units"][0]
    return found


@pytest.mark.parametrize("kind", ["kafka", "kafka once", "mqtt"])
def test_more_and_fewer_replicas_under_load_lose_and_double_nothing(
    kind: str, place: Here, mosquitto: Broker, kafka: Broker
) -> None:
    source = on(mosquitto, "in") if kind == "mqtt" else spread(kafka, "in", 4)
    sink = on(kafka, "out")
    more = "\n    delivery: exactly_once" if "once" in kind else ""
    told, seen = [], []

    def deploy(replicas: int) -> None:
        begun = time.monotonic()
        done = place.mlpacker("deploy", write(place, source, sink, replicas, more), "--json")
        assert done.returncode == 0, done.stderr
        told.extend(one["action"] for one in json.loads(done.stdout)["units"])
        seen.append(unit(place))
        print(f"{kind}, {replicas} replicas: {time.monotonic() - begun:.1f} s")

    deploy(1)
    with Flow(source, sink) as flow:
        for replicas in (2, 3, 1):
            deploy(replicas)
        flow.stop()
    counts = Counter(flow.got)
    print(f"{kind}: {flow.sent} sent, lost {flow.sent - len(counts)}, doubled {len(flow.got) - len(counts)}")
    assert counts == Counter(range(flow.sent))
    assert told == ["create", "scale", "scale", "scale"]
    assert [one["replicas"] for one in seen] == [{"wanted": n, "running": n} for n in (1, 2, 3, 1)]
    assert [one["state"] for one in seen] == ["running"] * 4
    assert len({one["release"] for one in seen}) == 1
    pids = [one["pid"] for one in seen]
    assert pids[1] == pids[2], "two that become three go on"
    assert place.mlpacker("undeploy", "shared").returncode == 0
    state = place.state()
    assert (state["files"], state["processes"]) == ([], {})
    assert list((place.home / "state").iterdir()) == []
