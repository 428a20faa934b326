"""A broker is killed with signal 9 under load and started again on its data (R3, R8), or nobody reads it (R9)."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.lab import brokers
from tests.lab.brokers import Broker
from tests.stream_faults.extent import FULL, full
from tests.stream_faults.flow import UNWRITTEN_SECONDS, Flow, between, flowing, pause, unit
from tests.stream_faults.outside import traffic
from tests.support import missing, require, wait_for

pytestmark = [pytest.mark.broker, pytest.mark.timeout(900)]

KILLS = full(10, 2)
RATE = {"kafka-kafka": full(500, 200)}  # messages a second
MQTT_RATE = 100  # mosquitto writes all it holds at every change
DOWN = 0.7  # seconds
BACKLOG = {"kafka-kafka": 20_000, "mqtt-mqtt": full(3000, 1000)}
PAIRS = {
    "kafka": full(["kafka-kafka", "mqtt-kafka", "kafka-mqtt"], ["kafka-kafka"]),
    "mosquitto": full(["mqtt-mqtt", "mqtt-kafka", "kafka-mqtt"], ["mqtt-mqtt"]),
}


@pytest.fixture(scope="module")
def own() -> Iterator[dict[str, Broker]]:
    """Brokers that no other test has."""
    require("mosquitto", "apt-get install mosquitto")
    if not brokers.kafka_fetched():
        missing("Kafka", "python -m tests.lab.brokers fetch (needs Java 17 and Maven)")
    with ExitStack() as stack:
        yield {name: stack.enter_context(getattr(brokers, name)()) for name in PAIRS}


@pytest.mark.parametrize(("victim", "ends"), [(victim, ends) for victim, pairs in PAIRS.items() for ends in pairs])
def test_a_broker_that_dies_and_comes_back_costs_no_message(
    victim: str, ends: str, tmp_path: Path, own: dict[str, Broker]
) -> None:
    source, sink = between(own["mosquitto"], own["kafka"], ends)
    dice, broker = random.Random(3), own[victim]
    with flowing(unit(tmp_path, source, sink), source, sink) as flow:
        process, slowest = flow.worker.process, 0.0
        kills: list[float] = []
        with traffic(flow.feed, RATE.get(ends, MQTT_RATE)):
            for _ in range(KILLS):
                wait_for(lambda: not flow.ledger.missing() or flow.ledger.came > 100, 60)
                pause(0.5, full(3.0, 1.0), dice)
                kills.append(time.monotonic())
                broker.stop(signal.SIGKILL)
                pause(DOWN, DOWN, dice)
                broker.start()
                slowest = max(slowest, _caught_up(flow))
        assert process is not None
        assert process.poll() is None, f"the worker ended by itself: {flow.worker.log[-3000:]}"
        flow.conclude(
            f"{victim} killed {KILLS} times",
            f"same worker process; messages again ≤ {slowest:.1f} s",
            kills=kills if victim == "mosquitto" else (),
        )


def _caught_up(flow: Flow) -> float:
    """Seconds until messages that were sent from now on come out."""
    started, mark = time.monotonic(), flow.ledger.sent
    while not flow.ledger.arrived(mark):
        assert time.monotonic() - started < 60, f"no message comes again: {flow.worker.where()}"
        time.sleep(0.05)
    return time.monotonic() - started


@pytest.mark.parametrize("ends", ["mqtt-mqtt", "kafka-kafka"][: 2 if FULL else 1])
def test_what_comes_while_the_worker_is_away_waits_for_it(ends: str, tmp_path: Path, own: dict[str, Broker]) -> None:
    source, sink = between(own["mosquitto"], own["kafka"], ends)
    with flowing(unit(tmp_path, source, sink), source, sink) as flow:
        assert flow.worker.signal(signal.SIGTERM) == 0
        flow.send(BACKLOG[ends])
        flow.settled()
        time.sleep(UNWRITTEN_SECONDS if ends.startswith("mqtt") else 0)
        own["mosquitto" if ends.startswith("mqtt") else "kafka"].stop(signal.SIGKILL)
        own["mosquitto" if ends.startswith("mqtt") else "kafka"].start()
        flow.revive()
        verdict = flow.conclude(
            f"{BACKLOG[ends]} arrive while the worker is off, then the broker is killed", "all of them"
        )
        assert verdict.doubled == 0
