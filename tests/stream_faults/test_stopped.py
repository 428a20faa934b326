"""SIGTERM in the middle of a batch, again and again (R14): in order, nothing lost, nothing twice."""

from __future__ import annotations

import random
import signal
import time
from http.client import HTTPException
from pathlib import Path

import pytest

from tests.lab.brokers import Broker
from tests.stream_faults.extent import full
from tests.stream_faults.flow import IN, SLOW, Flow, between, flowing, pause, unit
from tests.stream_faults.outside import traffic
from tests.support import wait_for

pytestmark = [pytest.mark.broker, pytest.mark.timeout(900)]

TIMES = full(50, 4)
GRACE = 30  # seconds that supervisor and docker give
RATE = 400  # under what it takes to handle them


@pytest.mark.parametrize("ends", ["mqtt-mqtt", "kafka-kafka"])
def test_stopped_in_a_batch_it_finishes_it_and_says_first_that_it_is_not_ready(
    ends: str, tmp_path: Path, mosquitto: Broker, kafka: Broker
) -> None:
    source, sink = between(mosquitto, kafka, ends)
    dice, slowest, seen = random.Random(14), 0.0, 0
    with flowing(unit(tmp_path, source, sink, SLOW, max_batch=200), source, sink) as flow:
        with traffic(flow.feed, RATE if ends.startswith("kafka") else RATE / 4):
            for _ in range(TIMES):
                wait_for(lambda: flow.worker.metric(IN) > 0, 40, "it takes messages")
                pause(0, 0.3, dice)
                seconds, unready = _stop(flow)
                slowest, seen = max(slowest, seconds), seen + unready
                flow.revive()
                flow.worker.wait_ready()
        verdict = flow.conclude(
            f"SIGTERM in a batch {TIMES} times", f"exit 0 within {slowest:.1f} s, /readyz 503 first"
        )
    assert verdict.doubled == 0
    assert slowest < GRACE
    assert seen > 0, "nobody could see that it was not ready"


def _stop(flow: Flow) -> tuple[float, bool]:
    """How long its end took, and whether it said before that it is not ready; it never says again that it is."""
    process, started = flow.worker.process, time.monotonic()
    assert process is not None
    process.send_signal(signal.SIGTERM)
    answers = []
    while process.poll() is None:
        try:
            answers.append(flow.worker.ask("/readyz")[0])
        except (OSError, HTTPException):  # in the middle of an answer
            answers.append(0)
        assert time.monotonic() - started < GRACE, flow.worker.where()
    assert process.returncode == 0, flow.worker.log[-3000:]
    said = [answer for answer in answers if answer]
    unready = said[said.index(503) :] if 503 in said else []  # it hears the signal between two calls of a client
    assert 200 not in unready
    return time.monotonic() - started, bool(unready)
