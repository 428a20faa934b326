"""Kafka → Kafka with a model, ours beside the peers, on one real broker; `python -m tests.benchmarks stream`.

Every system reads one topic filled beforehand and writes another. The figure is the time between the first and the
last record of the output topic, asked of the broker, so that nobody's own clock or start-up counts.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from packer_lib import artefacts, bundle, settings
from packer_lib.padl import read_text
from packer_lib.plan import plan
from tests.benchmarks.common import PEERS, own_environment, train
from tests.lab import brokers
from tests.support import free_port

PADL = """
version: "1.1"
id: bench
containerized: false
package-mode: stream
deploy-mode: local
pipeline:
  model:
    type: model
    framework: scikit-learn
    props: {path: ./model.joblib, serializer: joblib, input_format: json}
    queues: {input: source, output: sink}
queues:
  source: {connector: kafka, props: {server: HOST, port: PORT, topic: SOURCE}}
  sink: {connector: kafka, props: {server: HOST, port: PORT, topic: SINK}}
"""


@dataclass(frozen=True, slots=True)
class Work:
    """Where to run: the broker's `host:port`, the model file and one message's payload."""

    broker: str
    model: Path
    payload: bytes
    folder: Path


def main(folder: Path, count: int = 100_000) -> dict[str, object]:
    """Messages per second of each system and ours over theirs. `folder` keeps the model and the peers' environments."""
    model, row = train(folder)
    with brokers.kafka() as broker:
        work = Work(broker.address, model, json.dumps({"data": row}).encode(), folder)
        rates = {name: measure(work, command, messages) for name, command, messages in systems(work, count)}
    peers = {name: rates["ours"] / rate for name, rate in rates.items() if name not in {"ours", "quix_pass"}}
    return {
        "title": "Kafka to Kafka with a model",
        "what": "30 floats as JSON, the breast-cancer model of scikit-learn, one process, one partition, a real broker "
        "beside it on the same machine. `pass through` and `quix pass` hand bytes or JSON on and predict nothing.",
        "unit": "messages per second",
        "ratios": {name: round(ratio, 2) for name, ratio in peers.items()},
        "rates": {name: round(rate) for name, rate in rates.items()},
    }


def systems(work: Work, count: int) -> Iterator[tuple[str, list[str], int]]:
    """Name, command (SOURCE and SINK to be filled in) and number of messages of every system."""
    loops = [sys.executable, str(PEERS / "kafka_loops.py"), work.broker, "SOURCE", "SINK", str(work.model)]
    yield "pass_through", [*loops, "pass"], count
    yield "poll_one", [*loops, "one"], count // 20
    yield "ours", [sys.executable, "BUNDLE"], count
    quix = own_environment(work.folder, "quix", "quixstreams", "scikit-learn==1.9.1", "joblib")
    quix_command = [quix, str(PEERS / "quix.py"), work.broker, "SOURCE", "SINK", str(work.model)]
    yield "quix_predict", [*quix_command, "predict"], count // 20
    yield "quix_pass", [*quix_command, "pass"], count // 2
    fast = own_environment(work.folder, "faststream", "faststream[confluent]", "scikit-learn==1.9.1", "joblib", "numpy")
    fast_command = [fast, str(PEERS / "faststream_batch.py"), work.broker, "SOURCE", "SINK", str(work.model)]
    yield "faststream_batch", fast_command, count // 5


def measure(work: Work, command: list[str], count: int) -> float:
    """Messages per second of `command`, which reads SOURCE (filled with `count` messages) and writes SINK."""
    names = {"SOURCE": f"in-{uuid.uuid4().hex[:8]}", "SINK": f"out-{uuid.uuid4().hex[:8]}"}
    create(work.broker, names.values())
    fill(work, names["SOURCE"], count)
    ready = [names.get(word, word) for word in command]
    if "BUNDLE" in ready:
        ready[ready.index("BUNDLE")] = str(our_bundle(work, names) / "main.py")
    with running(ready, work.folder / "peer.log"):
        return rate(work.broker, names["SINK"], count)


def our_bundle(work: Work, names: dict[str, str]) -> Path:
    """The bundle that `mlpacker bundle` writes for the benchmark's PADL."""
    host, _, port = work.broker.partition(":")
    text = PADL.replace("HOST", host).replace("PORT", port)
    for placeholder, topic in names.items():
        text = text.replace(placeholder, topic)
    ours = plan(read_text(text, str(work.model.parent / "bench.padl.yaml")))
    unit = ours.units[0]
    output = work.folder / "bundles" / names["SINK"]
    return bundle.write(ours, unit, artefacts.fetch(ours, unit, settings.read()), output).path


def create(broker: str, topics: Iterable[str]) -> None:
    admin = AdminClient({"bootstrap.servers": broker})  # kept: its futures end with it
    for future in admin.create_topics([NewTopic(topic, 1, 1) for topic in topics]).values():
        future.result(30)


def fill(work: Work, topic: str, count: int) -> None:
    producer = Producer({"bootstrap.servers": work.broker, "linger.ms": 5, "queue.buffering.max.messages": 1_000_000})
    for index in range(count):
        producer.produce(topic, work.payload, key=str(index))
        if index % 10_000 == 0:
            producer.poll(0)
    producer.flush()


@contextmanager
def running(command: list[str], log: Path) -> Iterator[None]:
    """`command` in a process of its own until the block ends; its output in `log`."""
    environment = {**os.environ, "MLPACKER_PORT": str(free_port())}
    with log.open("ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def rate(broker: str, sink: str, count: int, limit: float = 180.0) -> float:
    """Records per second written to `sink`, between its first and its last record; waits for `count` of them."""
    asker = Consumer({"bootstrap.servers": broker, "group.id": uuid.uuid4().hex})
    first, first_count, deadline = 0.0, 0, time.monotonic() + limit
    while time.monotonic() < deadline:
        _, written = asker.get_watermark_offsets(TopicPartition(sink, 0), timeout=10)
        if written and not first:
            first, first_count = time.monotonic(), written
        if written >= count:
            asker.close()
            return (written - first_count) / max(time.monotonic() - first, 1e-9)
        time.sleep(0.01)
    raise TimeoutError(f"{sink}: {written} of {count} records after {limit} s")
