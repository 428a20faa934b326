"""The paper's listing 1, MQTT to Kafka in three units, while all of it is killed in random order (R15)."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from packer_lib.runtime.manifest import QueueSpec
from tests.lab import brokers
from tests.lab.brokers import Broker
from tests.runtime.workers import Worker, running
from tests.stream_faults.extent import full
from tests.stream_faults.flow import PASS, Flow, on, pause, unit
from tests.stream_faults.ledger import Ledger
from tests.stream_faults.outside import feed, reading, traffic
from tests.support import missing, require

pytestmark = [pytest.mark.broker, pytest.mark.timeout(1500)]

SECONDS = full(600, 25)
RATE = full(20, 100)  # mosquitto writes all it holds at every change, and much waits while all is down
CHAOS = full((0.5, 5.0), (0.3, 2.0))  # seconds between one death and the next
STEPS = {"preparation": ("mosquitto", "mosquitto"), "model": ("mosquitto", "kafka"), "filter": ("kafka", "kafka")}


@dataclass
class Bridge:
    """The units in the order of the stream, and the brokers between them."""

    workers: list[Worker]
    brokers: dict[str, Broker]
    ended: int = 0  # workers that ended by themselves
    kills: list[float] = field(default_factory=list)  # of mosquitto

    def victims(self) -> list[Callable[[], None]]:
        of_workers = [lambda worker=worker: self._kill(worker) for worker in self.workers]
        return [*of_workers, *(lambda broker=broker: self._bounce(broker) for broker in self.brokers.values())]

    def _bounce(self, broker: Broker) -> None:
        if broker.name == "mosquitto":
            self.kills.append(time.monotonic())
        broker.stop(signal.SIGKILL)
        time.sleep(0.7)
        broker.start()

    def _kill(self, worker: Worker) -> None:
        assert worker.process is not None
        self.ended += worker.process.poll() is not None
        worker.signal(signal.SIGKILL)
        worker.start()

    def watch(self) -> None:
        """As supervisor: who has ended by itself is started again, and counted."""
        for worker in self.workers:
            if worker.process is not None and worker.process.poll() is not None:
                self.ended += 1
                worker.start()


@pytest.fixture
def bridge(tmp_path: Path) -> Iterator[tuple[Bridge, QueueSpec, QueueSpec]]:
    require("mosquitto", "apt-get install mosquitto")
    if not brokers.kafka_fetched():
        missing("Kafka", "python -m tests.lab.brokers fetch (needs Java 17 and Maven)")
    with ExitStack() as stack:
        own = {name: stack.enter_context(getattr(brokers, name)()) for name in ("mosquitto", "kafka")}
        kinds = ("mosquitto", "mosquitto", "kafka", "kafka")
        queues = [on(own[kind], f"q{number}") for number, kind in enumerate(kinds, 1)]
        made = Bridge([], own)
        for number, step in enumerate(STEPS):
            (folder := tmp_path / step).mkdir()
            source, sink = replace(queues[number], id="in"), replace(queues[number + 1], id="out")
            made.workers.append(stack.enter_context(running(unit(folder, source, sink, PASS))))
        for worker in made.workers:
            worker.wait_ready()
        yield made, queues[0], queues[-1]


def test_killing_everything_in_random_order_loses_nothing(bridge: tuple[Bridge, QueueSpec, QueueSpec]) -> None:
    made, first, last = bridge
    ledger, dice, deaths = Ledger(), random.Random(15), 0
    with reading(last, lambda value, _headers: ledger.deliver(value)), told(made):
        writer = feed(first, ledger)
        until = time.monotonic() + SECONDS
        with traffic(writer, RATE):
            while time.monotonic() < until:
                pause(*CHAOS, dice)
                made.watch()
                dice.choice(made.victims())()
                deaths += 1
        verdict = Flow("mqtt → mqtt → kafka → kafka", ledger, writer, made.workers[0]).conclude(
            f"three units and both brokers killed in random order, {SECONDS} s",
            f"{deaths} kills; twice: see doubled; p99 {_p99(ledger):.1f} s; {made.ended} ended by themselves",
            kills=made.kills,
        )
        writer.close()
    print(f"doubled {verdict.doubled / max(1, verdict.confirmed):.2%}, p99 {verdict.p99:.2f} s, {deaths} kills")
    assert made.ended == 0, "\n".join(worker.log[-2000:] for worker in made.workers)
    assert deaths >= full(60, 5)


@contextmanager
def told(bridge: Bridge) -> Iterator[None]:
    """When it fails: what each unit counts, and the end of its log."""
    try:
        yield
    except BaseException:
        for worker in bridge.workers:
            counts = [line for line in str(worker.ask("/metrics")[1]).splitlines() if line.startswith("mlpacker_")]
            print(worker.folder.name, worker.ask("/readyz"), *counts, worker.where(), sep="\n")
        for broker in bridge.brokers.values():
            print(broker.name, (broker.folder / "log.txt").read_text(errors="replace")[-6000:], sep="\n")
        raise


def _p99(ledger: Ledger) -> float:
    return ledger.verdict().p99
