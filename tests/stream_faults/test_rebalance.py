"""Replicas of one Kafka unit that come and go under load, in order and by kill -9 (R5)."""

from __future__ import annotations

import random
import signal
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.lab.brokers import Broker
from tests.runtime.test_replicas import Replicas
from tests.stream_faults.extent import full
from tests.stream_faults.flow import Flow, on, pause, unit
from tests.stream_faults.ledger import Ledger
from tests.stream_faults.outside import feed, reading, traffic

pytestmark = [pytest.mark.broker, pytest.mark.timeout(900)]

TURNS = full(10, 3)
KILLS = full(5, 1)
BATCH = 50
RATE = 300
SESSION_SECONDS = 3
LEAVES = (signal.SIGTERM, signal.SIGUSR1)


@pytest.mark.parametrize("how", ["at least once", "exactly once"][: full(2, 1)])
def test_replicas_that_join_leave_and_die_lose_nothing(how: str, tmp_path: Path, kafka: Broker) -> None:
    source, sink, dice = on(kafka, "in", 6), on(kafka, "out"), random.Random(5)
    once = {"delivery": "exactly_once"} if "exactly" in how else {}
    folder, ledger = unit(tmp_path, source, sink, max_batch=BATCH, **once), Ledger()
    with ExitStack() as stack:
        stack.enter_context(reading(sink, lambda value, _headers: ledger.deliver(value)))
        replicas = Replicas(folder, stack)
        for number in range(3):
            replicas.start(number, 3)
        writer = feed(source, ledger)
        stack.callback(writer.close)
        flow = Flow(f"kafka → kafka, 3 replicas, {how}", ledger, writer, replicas.workers[0])
        with traffic(writer, RATE):
            for turn in range(TURNS):
                number = dice.randrange(3)
                pause(0.3, 1.5, dice)
                replicas.stop(number, LEAVES[turn % 2])
                pause(0.3, 1.5, dice)
                replicas.start(number, 3)
        graceful = flow.conclude(f"a replica leaves in order and comes back, {TURNS} times", "the others take over")
        assert graceful.doubled == 0
        with traffic(writer, RATE):
            slowest = max(_killed(replicas, ledger, dice) for _ in range(KILLS))
        verdict = flow.conclude(f"a replica is killed, {KILLS} times", f"longest pause of all messages {slowest:.1f} s")
        assert verdict.doubled - graceful.doubled <= (0 if once else KILLS * BATCH)
        assert slowest <= SESSION_SECONDS + 5


def _killed(replicas: Replicas, ledger: Ledger, dice: random.Random) -> float:
    """Seconds until everything that was sent up to the kill, and a moment after it, is there."""
    number = dice.randrange(3)
    worker = replicas.workers.pop(number)
    worker.signal(signal.SIGKILL)
    started = time.monotonic()
    time.sleep(0.5)
    mark = ledger.sent
    while any(one < mark for one in ledger.missing()):
        assert time.monotonic() - started < 60, worker.log[-2000:]
        time.sleep(0.05)
    took = time.monotonic() - started
    replicas.start(number, 3)
    return took
