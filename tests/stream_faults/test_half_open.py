"""A broker's network swallows what is sent on connections that stay open: no reset, no end, no answer."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from packer_lib.runtime.manifest import QueueSpec
from tests.lab import brokers
from tests.lab.brokers import Broker
from tests.runtime.workers import running
from tests.stream_faults.extent import full
from tests.stream_faults.flow import Flow, on, unit
from tests.stream_faults.ledger import Ledger
from tests.stream_faults.outside import feed, reading, traffic
from tests.stream_faults.proxy import Proxy, proxied
from tests.support import free_port, missing, wait_for

pytestmark = [pytest.mark.broker, pytest.mark.timeout(600)]

RATE = 100
MOST = {"mqtt": 45, "kafka": 45}  # seconds until it is noticed: 2 keepalives, 2 times an answer, and to connect
KEEPALIVE = full({}, {"config": {"keepalive": 4}})
SOCKET = full({}, {"config": {"socket.timeout.ms": 5000, "session.timeout.ms": 6000}})


@pytest.fixture(scope="module")
def doors() -> Iterator[tuple[Broker, Proxy]]:
    """A Kafka that sends everybody who comes by the proxy back to the proxy."""
    if not brokers.kafka_fetched():
        missing("Kafka", "python -m tests.lab.brokers fetch (needs Java 17 and Maven)")
    port = free_port()
    with brokers.kafka(seen_at=port) as broker, proxied(broker.other, port) as proxy:
        yield broker, proxy


@contextmanager
def through(folder: Path, read: tuple[QueueSpec, int], written: tuple[QueueSpec, int]) -> Iterator[Flow]:
    """A unit that reaches its queues by other ports than the writer and the reader."""
    ledger = Ledger()
    queues = [replace(queue, port=port or queue.port) for queue, port in (read, written)]
    with reading(written[0], lambda value, _headers: ledger.deliver(value)), running(unit(folder, *queues)) as worker:
        worker.wait_ready()
        writer = feed(read[0], ledger)
        yield Flow(f"{read[0].connector} → {written[0].connector}", ledger, writer, worker)
        writer.close()


@pytest.mark.parametrize("side", ["source", "sink", "both"][full(0, 2) :])
def test_kafka_whose_connections_are_dead_and_do_not_say_so(
    side: str, tmp_path: Path, doors: tuple[Broker, Proxy]
) -> None:
    broker, proxy = doors
    source, sink = (replace(on(broker, name), options=SOCKET) for name in ("in", "out"))
    ports = {"source": (proxy.port, 0), "sink": (0, proxy.port), "both": (proxy.port, proxy.port)}[side]
    with through(tmp_path, (source, ports[0]), (sink, ports[1])) as flow:
        _swallowed(flow, proxy, side)


@pytest.mark.parametrize("side", ["source", "sink", "both"][full(0, 2) :])
def test_mosquitto_whose_connections_are_dead_and_do_not_say_so(side: str, tmp_path: Path, mosquitto: Broker) -> None:
    source, sink = (replace(on(mosquitto, name), options=KEEPALIVE) for name in ("in", "out"))
    with proxied(mosquitto.port) as proxy:
        ports = {"source": (proxy.port, 0), "sink": (0, proxy.port), "both": (proxy.port, proxy.port)}[side]
        with through(tmp_path, (source, ports[0]), (sink, ports[1])) as flow:
            _swallowed(flow, proxy, side)


def _swallowed(flow: Flow, proxy: Proxy, side: str) -> None:
    with traffic(flow.feed, RATE):
        wait_for(lambda: flow.ledger.came > 100, 30)
        assert proxy.swallow()
        mark, started = flow.ledger.sent + RATE, time.monotonic()
        most = MOST[flow.ends.partition(" ")[0]]
        while not flow.ledger.arrived(mark):
            assert time.monotonic() - started < 2 * most, flow.worker.where()
            time.sleep(0.05)
        took = time.monotonic() - started
    flow.conclude(f"connections of {side} half-open", f"messages again after {took:.0f} s")
    assert took < most, flow.worker.where()
    proxy.swallow()
    time.sleep(1)
    began = time.monotonic()
    assert flow.worker.signal(signal.SIGTERM) == 0
    assert time.monotonic() - began < 30
