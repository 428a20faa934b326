"""Two processes of one unit beside one, on a model that keeps a core busy."""

from __future__ import annotations

import json
import time
import uuid
from contextlib import ExitStack
from pathlib import Path

from confluent_kafka import Consumer, TopicPartition

from tests.benchmarks.common import train
from tests.benchmarks.streams.common import Found, medians, running
from tests.benchmarks.streams.kafka import Work, filled, fresh, ours

COUNT = 20_000


def measure(folder: Path, broker: str, rounds: int) -> Found:
    """Messages per second of one process and of two."""
    _, row = train(folder)
    work = Work(broker, forest(folder), json.dumps(row).encode(), folder, partitions=2)
    source = filled(work, COUNT)
    counts = {"one_replica": 1, "two_replicas": 2}
    rates = medians({name: lambda many=many: run(work, source, many) for name, many in counts.items()}, rounds)
    return Found(rates, {"two_replicas_vs_one": rates["two_replicas"] / rates["one_replica"]})


def run(work: Work, source: str, many: int) -> float:
    """From when every process has given an answer to nearly the end, where only one may be left with work."""
    sink = fresh(work, "out", 2)
    command = ours(work, source)(sink)
    with ExitStack() as stack:
        for number in range(many):
            variables = {"MLPACKER_REPLICA": str(number), "MLPACKER_REPLICAS": str(many)}
            stack.enter_context(running(command, work.folder, **variables))
        return _rate(work.broker, sink)


def _rate(broker: str, sink: str) -> float:
    asker = Consumer({"bootstrap.servers": broker, "group.id": uuid.uuid4().hex})
    begun: tuple[float, int] | None = None
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        ends = [asker.get_watermark_offsets(TopicPartition(sink, part), timeout=10)[1] for part in (0, 1)]
        if begun is None and sum(ends) > COUNT // 5:
            begun = time.monotonic(), sum(ends)
        if begun and sum(ends) >= COUNT * 4 // 5:
            asker.close()
            return (sum(ends) - begun[1]) / (time.monotonic() - begun[0])
        time.sleep(0.01)
    raise TimeoutError(f"{sink}: {ends}")


def forest(folder: Path) -> Path:
    """5000 trees on the breast-cancer rows, by one thread."""
    import joblib
    from sklearn.datasets import load_breast_cancer
    from sklearn.ensemble import RandomForestClassifier

    path = folder / "forest5000.joblib"
    if not path.exists():
        features, labels = load_breast_cancer(return_X_y=True)
        joblib.dump(RandomForestClassifier(5000, random_state=0).fit(features, labels), path)
    return path
