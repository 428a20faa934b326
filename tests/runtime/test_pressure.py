"""A sink that takes nothing holds back the source, and what waits in between is bounded (R11)."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from packer_lib.runtime.connectors.mqtt import Mqtt
from packer_lib.runtime.contract import Message
from tests.contract.connectors import take
from tests.lab import brokers
from tests.lab.brokers import Broker
from tests.runtime.test_streams import on, passing, put, writing
from tests.runtime.workers import Worker, running
from tests.support import require, wait_for

pytestmark = pytest.mark.broker

BLOCKED_SECONDS = 12  # of the 30 that a flush waits
MIB = 1024 * 1024
BOUND = 16 * MIB + 20 * MIB  # what the Kafka client takes in advance, and the rest


def resident(worker: Worker) -> int:
    """Bytes in memory."""
    assert worker.process is not None
    return int(Path(f"/proc/{worker.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_blocked_sink_adds_no_more_than_the_bound_and_goes_on_at_once(tmp_path: Path, kafka: Broker) -> None:
    require("mosquitto", "apt-get install mosquitto")
    with brokers.mosquitto() as broker:
        source, sink = on(kafka, "in"), on(broker, "out")
        folder = passing(tmp_path, source, sink, "def handler(value):\n    return value['n']\n")
        with running(folder) as worker:
            worker.wait_ready()
            reader = Mqtt.source(sink, "mlpacker.test.pressure")
            reader.connect()
            put(source, range(100))
            wait_for(lambda: worker.metric('mlpacker_messages_out_total{queue="out"}') == 100)
            reader.ack(take(reader, 100))
            assert broker.process is not None
            os.killpg(broker.process.pid, signal.SIGSTOP)
            before = resident(worker)
            with writing(source) as client:
                for start in range(0, 60_000, 2000):
                    padding = b"x" * 1000
                    client.produce(
                        [Message(b'{"n": %d, "p": "%s"}' % (n, padding)) for n in range(start, start + 2000)]
                    )
                    client.flush(30)
            time.sleep(BLOCKED_SECONDS)
            grown = resident(worker) - before
            held = worker.metric("mlpacker_in_flight")
            moved = worker.metric('mlpacker_messages_out_total{queue="out"}')
            os.killpg(broker.process.pid, signal.SIGCONT)
            started = time.monotonic()
            wait_for(lambda: worker.metric('mlpacker_messages_out_total{queue="out"}') > moved + 1000, 20)
            resumed = time.monotonic() - started
            numbers = {int(message.value) for message in take(reader, 5000, acknowledge=True)}
            print(f"blocked: +{grown / MIB:.1f} MiB with 60 MB waiting, {held:g} in flight; on after {resumed:.1f} s")
            reader.close()
            assert held <= 50
            assert grown < BOUND
            assert resumed < 5
            assert numbers == set(range(5000))
