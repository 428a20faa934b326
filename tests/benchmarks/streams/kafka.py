"""Kafka → Kafka with a model, ours beside the peers, on one real broker.

Every system reads one topic filled beforehand and writes one of its own. The figure is the time between the first and
the last record there, asked of the broker, so that nobody's own clock or start-up counts.
"""

from __future__ import annotations

import json
import statistics
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from tests.benchmarks.common import PEERS, own_environment, train
from tests.benchmarks.streams.common import Found, medians, our_bundle, queue, running
from tests.support import wait_for

COUNT = 600_000  # records of the topic that all read; slower systems are given the first of them


@dataclass(frozen=True, slots=True)
class Work:
    """The broker's `host:port`, the model file, one message's payload, and where to put things."""

    broker: str
    model: Path
    payload: bytes
    folder: Path
    step: Mapping[str, Any] = field(default_factory=dict)  # what is said of it in PADL
    partitions: int = 1


def measure(folder: Path, broker: str, rounds: int) -> Found:
    """Throughput of all systems and the latency of two."""
    model, row = train(folder)
    work = Work(broker, model, json.dumps(row).encode(), folder)
    source = filled(work, COUNT)
    rates = medians(systems(work, source), rounds)
    ours = rates["ours"]
    peers = {"poll_one": "poll_one", "pass_through": "pass_through", "quix": "quix_predict", "quix_pass": "quix_pass"}
    peers["faststream_batch"] = "faststream_batch"
    ratios = {f"kafka_vs_{name}": ours / rates[peer] for name, peer in peers.items()}
    ratios["exactly_once_vs_at_least_once"] = rates["ours_exactly_once"] / ours
    latency = latencies(work, rounds)
    ratios["latency_p99_vs_poll_one"] = latency["ours_p99"] / latency["poll_one_p99"]
    return Found(rates, ratios, latency)


def systems(work: Work, source: str) -> dict[str, Callable[[], float]]:
    """Name → what measures it: messages per second."""
    loops = [sys.executable, str(PEERS / "kafka_loops.py"), work.broker, source, "SINK", str(work.model)]
    quix_python = own_environment(work.folder, "quix", "quixstreams", "scikit-learn==1.9.1", "joblib")
    quix = [quix_python, str(PEERS / "quix.py"), work.broker, source, "SINK", str(work.model)]
    fast = own_environment(work.folder, "faststream", "faststream[confluent]", "scikit-learn==1.9.1", "joblib", "numpy")
    batch = [fast, str(PEERS / "faststream_batch.py"), work.broker, source, "SINK", str(work.model)]
    return {
        "pass_through": lambda: throughput(work, [*loops, "pass"], COUNT // 2),
        "poll_one": lambda: throughput(work, [*loops, "one"], COUNT // 60),
        "ours": lambda: throughput(work, ours(work, source), COUNT),
        "ours_exactly_once": lambda: throughput(work, ours(work, source, delivery="exactly_once"), COUNT),
        "quix_predict": lambda: throughput(work, [*quix, "predict"], COUNT // 60),
        "quix_pass": lambda: throughput(work, [*quix, "pass"], COUNT // 6),
        "faststream_batch": lambda: throughput(work, batch, COUNT // 20),
    }


def ours(work: Work, source: str, **step: Any) -> Callable[[str], list[str]]:
    """The command that runs our unit from `source` to the topic that it is given."""
    host, _, port = work.broker.partition(":")

    def command(sink: str) -> list[str]:
        ends = (queue("kafka", host, int(port), topic) for topic in (source, sink))
        return [sys.executable, str(our_bundle(work.folder, work.model, *ends, **work.step, **step) / "main.py")]

    return command


def throughput(work: Work, command: Sequence[str] | Callable[[str], Sequence[str]], count: int) -> float:
    """Messages per second of `command`, which reads at least `count` and writes the topic that stands for SINK."""
    sink = fresh(work, "out")
    given = command(sink) if callable(command) else [sink if word == "SINK" else word for word in command]
    with running(given, work.folder):
        return rate(work.broker, sink, count)


def fresh(work: Work, name: str, partitions: int = 1) -> str:
    """A new topic."""
    topic = f"{name}-{uuid.uuid4().hex[:8]}"
    admin = AdminClient({"bootstrap.servers": work.broker})  # kept: its future ends with it
    admin.create_topics([NewTopic(topic, partitions, 1)])[topic].result(30)
    return topic


def filled(work: Work, count: int) -> str:
    """A new topic with `count` messages, as many in each of its partitions."""
    topic = fresh(work, "in", work.partitions)
    fill(work, topic, count)
    return topic


def fill(work: Work, topic: str, count: int) -> None:
    producer = Producer({"bootstrap.servers": work.broker, "linger.ms": 5, "queue.buffering.max.messages": 1_000_000})
    for index in range(count):
        producer.produce(topic, work.payload, key=str(index), partition=index % work.partitions)
        if index % 10_000 == 0:
            producer.poll(0)
    producer.flush()


def rate(broker: str, sink: str, count: int, limit: float = 240.0) -> float:
    """Records per second written to `sink`, between its first and its last record; waits for `count` of them."""
    asker = Consumer({"bootstrap.servers": broker, "group.id": uuid.uuid4().hex})
    first, first_count, deadline = 0.0, 0, time.monotonic() + limit
    while time.monotonic() < deadline:
        _, written = asker.get_watermark_offsets(TopicPartition(sink, 0), timeout=10)
        if written and not first:
            first, first_count = time.monotonic(), written
        if written >= count:
            asker.close()
            return float((written - first_count) / max(time.monotonic() - first, 1e-9))
        time.sleep(0.01)
    raise TimeoutError(f"{sink}: {written} of {count} records after {limit} s")


def latencies(work: Work, rounds: int) -> dict[str, float]:
    """Milliseconds from `produce` to the reader, medians of the rounds: of ours at 1000 messages a second, and of a
    loop that takes, answers and commits each message by itself, at 50."""
    found: dict[str, list[float]] = {}
    for number in range(rounds):
        for name, per_second in (("ours", 1000), ("poll_one", 50)):
            source, sink = fresh(work, "in"), fresh(work, "out")
            loop = [sys.executable, str(PEERS / "kafka_loops.py"), work.broker, source, sink, str(work.model), "poll"]
            with running(ours(work, source)(sink) if name == "ours" else loop, work.folder):
                spans = paced(work, source, sink, per_second)
            p99 = statistics.quantiles(spans, n=100)[98] * 1000
            found.setdefault(f"{name}_p50", []).append(statistics.median(spans) * 1000)
            found.setdefault(f"{name}_p99", []).append(p99)
            print(f"[bench] round {number + 1}: {name} at {per_second}/s p99 {p99:.1f} ms", flush=True)
    return {name: statistics.median(values) for name, values in found.items()}


def paced(work: Work, source: str, sink: str, per_second: int, seconds: int = 12) -> list[float]:
    """Seconds that each message took, those of the first two seconds left out."""
    sent: dict[bytes, float] = {}
    spans: list[float] = []
    total = per_second * seconds
    reader = Consumer({"bootstrap.servers": work.broker, "group.id": uuid.uuid4().hex, "auto.offset.reset": "earliest"})
    reader.subscribe([sink])

    def read() -> None:
        seen, deadline = 0, time.monotonic() + 120
        while seen < total and time.monotonic() < deadline:
            message = reader.poll(0.05)
            if message is not None and message.error() is None:
                seen += 1
                spans.append(time.monotonic() - sent[message.key()])
        reader.close()

    thread = threading.Thread(target=read)
    thread.start()
    producer = Producer({"bootstrap.servers": work.broker, "linger.ms": 0})
    sent[b"first"] = time.monotonic()
    producer.produce(source, work.payload, key=b"first")
    producer.flush()
    wait_for(lambda: spans, 60, "a first answer")  # who is measured takes a while to start
    start = time.monotonic()
    for number in range(total - 1):
        due = start + number / per_second
        while (left := due - time.monotonic()) > 0:
            time.sleep(left)
        key = str(number).encode()
        sent[key] = time.monotonic()
        producer.produce(source, work.payload, key=key)
        producer.poll(0)
    producer.flush()
    thread.join()
    return spans[2 * per_second :]
