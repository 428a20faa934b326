"""A worker is killed with signal 9 in midstream, again and again (R2, R7, R16)."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from packer_lib.runtime.manifest import QueueSpec
from tests.lab.brokers import Broker
from tests.stream_faults.extent import full
from tests.stream_faults.flow import IN, SLOW, between, flowing, pause, unit
from tests.support import wait_for

pytestmark = [pytest.mark.broker, pytest.mark.timeout(900)]

KILLS = full(10, 2)
MESSAGES = {"kafka": full(20_000, 1500), "mqtt": full(3000, 1500)}  # mosquitto writes all it holds at every change
BATCH = full(500, 100)
RECEIVE_MAXIMUM = 1000
IN_HAND = {"kafka": BATCH, "mqtt": RECEIVE_MAXIMUM}  # what a process can have taken and not acknowledged


@pytest.mark.parametrize("ends", ["mqtt-mqtt", "mqtt-kafka", "kafka-mqtt", "kafka-kafka"])
def test_killed_in_midstream_it_loses_nothing_and_doubles_what_was_in_hand(
    ends: str, tmp_path: Path, mosquitto: Broker, kafka: Broker
) -> None:
    source, sink = between(mosquitto, kafka, ends)
    doubled = _killed(unit(tmp_path, source, sink, SLOW, max_batch=BATCH), source, sink, "")
    assert doubled <= KILLS * IN_HAND[source.connector]


def test_exactly_once_doubles_nothing_either(tmp_path: Path, mosquitto: Broker, kafka: Broker) -> None:
    source, sink = between(mosquitto, kafka, "kafka-kafka")
    folder = unit(tmp_path, source, sink, SLOW, max_batch=BATCH, delivery="exactly_once")
    assert _killed(folder, source, sink, ", exactly once") == 0


def _killed(folder: Path, source: QueueSpec, sink: QueueSpec, how: str) -> int:
    dice = random.Random(7)
    with flowing(folder, source, sink) as flow:
        flow.send(MESSAGES[source.connector])
        for _ in range(KILLS):
            wait_for(lambda: flow.worker.metric(IN) > 0, 40, "it takes messages")
            pause(0, full(2.0, 0.7), dice)
            assert flow.ledger.missing() or flow.ledger.unconfirmed(), "too late to show anything"
            flow.kill()
            flow.revive()
        verdict = flow.conclude(f"worker killed {KILLS} times{how}", f"started again; at most {BATCH} in a batch")
    return verdict.doubled
