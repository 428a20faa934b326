"""Two processes of one unit beside one, on a step that keeps a core busy: half a millisecond of Python a message."""

from __future__ import annotations

import json
import time
import uuid
from contextlib import ExitStack
from pathlib import Path

from confluent_kafka import Consumer, TopicPartition

from tests.benchmarks.common import train
from tests.benchmarks.streams.common import Found, is_ready, medians, running
from tests.benchmarks.streams.kafka import Work, fill, fresh, ours
from tests.support import wait_for

COUNT = 20_000
CODE = {"type": "code", "language": "python", "batch": {"max_size": 200}}


def measure(folder: Path, broker: str, rounds: int) -> Found:
    """Messages per second of one process and of two."""
    _, row = train(folder)
    work = Work(broker, busy(folder), json.dumps(row).encode(), folder, CODE, partitions=2)
    counts = {"one_replica": 1, "two_replicas": 2}
    rates = medians({name: lambda many=many: run(work, many) for name, many in counts.items()}, rounds)
    return Found(rates, {"two_replicas_vs_one": rates["two_replicas"] / rates["one_replica"]})


def run(work: Work, many: int) -> float:
    """The messages come when all processes are there; the last quarter is left out, where one may be done before."""
    source, sink = fresh(work, "in", 2), fresh(work, "out", 2)
    command = ours(work, source)(sink)
    with ExitStack() as stack:
        for number in range(many):
            variables = {"MLPACKER_REPLICA": str(number), "MLPACKER_REPLICAS": str(many)}
            port = stack.enter_context(running(command, work.folder, **variables))
            wait_for(lambda port=port: is_ready(port), 60, "ready")  # type: ignore[misc]
        time.sleep(5)  # for the group to find itself
        fill(work, source, COUNT)
        return _rate(work.broker, sink)


def _rate(broker: str, sink: str) -> float:
    asker = Consumer({"bootstrap.servers": broker, "group.id": uuid.uuid4().hex})
    begun: tuple[float, int] | None = None
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        ends = [asker.get_watermark_offsets(TopicPartition(sink, part), timeout=10)[1] for part in (0, 1)]
        if begun is None and sum(ends) > COUNT // 10:
            begun = time.monotonic(), sum(ends)
        if begun and sum(ends) >= COUNT * 3 // 4:
            asker.close()
            return (sum(ends) - begun[1]) / (time.monotonic() - begun[0])
        time.sleep(0.1)  # who asks takes from the cores that both need
    raise TimeoutError(f"{sink}: {ends}")


def busy(folder: Path) -> Path:
    """A code step."""
    entry = folder / "busy" / "main.py"
    entry.parent.mkdir(exist_ok=True)
    entry.write_text(
        "def handler(row):\n    return sum(value * number for number in range(400) for value in row[:20])\n"
    )
    return entry.parent
