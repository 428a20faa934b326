"""A sink that takes nothing holds back the source; what waits in between is bounded, and it goes on at once (R11)."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from packer_lib.runtime.engine import FLUSH_SECONDS
from tests.lab import brokers
from tests.lab.brokers import Broker
from tests.runtime.workers import Worker
from tests.stream_faults.extent import FULL, full
from tests.stream_faults.flow import OUT, flowing, on, unit
from tests.support import require, wait_for

pytestmark = [pytest.mark.broker, pytest.mark.timeout(600)]

BLOCKED_SECONDS = full(60, 12)  # a flush waits for 30
MIB = 1 << 20
BOUND = 16 * MIB + 20 * MIB  # what the Kafka client takes in advance, and the rest
MESSAGES = 5000
PADDING = b'{"pad": "%s", ' % (b"x" * 4000)


def resident(worker: Worker) -> int:
    """Bytes in memory."""
    assert worker.process is not None
    return int(Path(f"/proc/{worker.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def peak(worker: Worker) -> int:
    """The most bytes that it had in memory since `forget_peak`."""
    assert worker.process is not None
    lines = Path(f"/proc/{worker.process.pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) * 1024


def forget_peak(worker: Worker) -> None:
    assert worker.process is not None
    Path(f"/proc/{worker.process.pid}/clear_refs").write_text("5")  # proc(5)


@contextmanager
def frozen(broker: Broker) -> Iterator[None]:
    """It holds its connections open and does nothing."""
    assert broker.process is not None
    os.killpg(broker.process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.killpg(broker.process.pid, signal.SIGCONT)


def test_a_blocked_sink_adds_no_more_than_the_bound_and_goes_on_at_once(tmp_path: Path, kafka: Broker) -> None:
    require("mosquitto", "apt-get install mosquitto")
    with brokers.mosquitto() as broker:
        source, sink = on(kafka, "in"), on(broker, "out")
        slim = "def handler(value):\n    del value['pad']\n    return value\n"
        folder = unit(tmp_path, source, sink, slim, max_batch=200)
        with flowing(folder, source, sink, lambda _number, value: PADDING + value[1:]) as flow:
            flow.send(100)
            wait_for(lambda: flow.ledger.came == 100)
            with frozen(broker):
                forget_peak(flow.worker)
                before, until = resident(flow.worker), time.monotonic() + BLOCKED_SECONDS
                flow.send(MESSAGES)
                time.sleep(max(0.0, until - time.monotonic()))
                held, moved = flow.worker.metric("mlpacker_in_flight"), flow.worker.metric(OUT)
            started = time.monotonic()
            wait_for(lambda: flow.worker.metric(OUT) > moved, 30)
            resumed = time.monotonic() - started
            grown = peak(flow.worker) - before
            verdict = flow.conclude(
                f"the sink takes nothing for {BLOCKED_SECONDS} s, {MESSAGES * 4 // 1000} MB wait",
                f"memory +{grown / MIB:.0f} MiB at most, {held:.0f} in flight; on after {resumed:.1f} s",
            )
            assert held <= 200
            assert grown < BOUND
            assert resumed < full(15, 5), "backoff at most"
            assert verdict.doubled <= 200 * 4


@pytest.mark.skipif(not FULL, reason="a minute; tests/contract/test_mqtt.py closes a connection to a frozen broker")
def test_a_unit_whose_sink_takes_nothing_still_ends_when_it_is_told_to(tmp_path: Path, kafka: Broker) -> None:
    """More is under way to it than a kernel holds, so that not even a goodbye can be sent: a flush's time, no more."""
    require("mosquitto", "apt-get install mosquitto")
    with brokers.mosquitto() as broker:
        source, sink = on(kafka, "in"), replace(on(broker, "out"), options={"config": {"keepalive": 300}})
        huge = b'{"pad": "%s", ' % (b"x" * 900_000)
        folder = unit(tmp_path, source, sink, max_batch=100, max_wait_ms=4000)
        with flowing(folder, source, sink, lambda _number, value: huge + value[1:]) as flow:
            flow.send(10)
            wait_for(lambda: flow.ledger.came == 10, 60)
            with frozen(broker):
                flow.send(60)
                wait_for(lambda: flow.worker.metric("mlpacker_in_flight") > 15, 60, flow.worker.log)
                time.sleep(1)
                started = time.monotonic()
                assert flow.worker.signal(signal.SIGTERM) >= 0
                took = time.monotonic() - started
            flow.revive()
            flow.conclude("SIGTERM while the sink takes nothing", f"ends within {took:.0f} s; the next one does it")
            assert took < FLUSH_SECONDS + 5
