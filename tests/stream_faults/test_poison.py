"""Messages that cannot be read, that fail, that kill their process (R12), and a place for them that is away (R13)."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from packer_lib.runtime.manifest import QueueSpec
from tests.lab import brokers
from tests.lab.brokers import Broker
from tests.stream_faults.extent import full
from tests.stream_faults.flow import Flow, between, flowing, on, unit
from tests.stream_faults.ledger import Ledger
from tests.stream_faults.outside import reading, traffic
from tests.support import require, wait_for

pytestmark = [pytest.mark.broker, pytest.mark.timeout(600)]

MESSAGES = {"kafka": full(20_000, 2000), "mqtt": 3000}  # mosquitto writes all it holds at every change
DEADLY = 1234
FATE = {"on_error": "dead_letter", "dead_letter": "dead", "max_batch": 100}
HANDLER = f"""\
import os
def handler(value):
    if value["id"] == {DEADLY}:
        os._exit(9)
    if value["id"] % 100 == 50:
        raise ValueError("an unlucky number")
    return value
"""


def kind(number: int) -> str:
    """What becomes of a message: 1 % cannot be read, 1 % fail, one kills its process."""
    return {DEADLY: "crash"}.get(number, {0: "decode", 50: "handle"}.get(number % 100, "good"))


def text(number: int, value: bytes) -> bytes:
    return b"no json " + value if kind(number) == "decode" else value


class Letters:
    """The stage of each dead letter, by the id of its message."""

    def __init__(self) -> None:
        self.stages: dict[int, str] = {}
        self.headers: dict[int, dict[str, bytes]] = {}

    def take(self, value: bytes, headers: dict[str, bytes]) -> None:
        number = json.loads(value[value.index(b"{") :])["id"]
        self.stages[number] = headers.get("mlpacker-error-stage", b"").decode()
        self.headers[number] = headers


@contextmanager
def letters(queue: QueueSpec, ledger: Ledger) -> Iterator[Letters]:
    found = Letters()

    def take(value: bytes, headers: dict[str, bytes]) -> None:
        found.take(value, headers)
        ledger.deliver(value, ordered=False)

    with reading(queue, take):
        yield found


@pytest.mark.parametrize("ends", ["kafka-kafka", "mqtt-kafka"][: full(2, 1)])
def test_poison_is_put_aside_with_its_reason_and_the_rest_goes_on(
    ends: str, tmp_path: Path, mosquitto: Broker, kafka: Broker
) -> None:
    source, sink = between(mosquitto, kafka, ends)
    dead, count = on(kafka, "dead"), MESSAGES[source.connector]
    folder = unit(tmp_path, source, sink, HANDLER, dead, **FATE)
    with flowing(folder, source, sink, text) as flow, letters(dead, flow.ledger) as found:
        flow.send(count)
        deaths = _revived(flow, 3)
        verdict = flow.conclude("1 % unreadable, 1 % fail, one kills its process 3 times", "in the dead-letter queue")
        expected = {number: kind(number) for number in range(count) if kind(number) != "good"}
        assert found.stages == expected
        assert deaths == 3
        assert verdict.doubled <= 3 * 1000
        for headers in found.headers.values():
            assert {
                f"mlpacker-error-{name}" for name in ("stage", "step", "reason", "source", "attempt")
            } <= headers.keys()


def _revived(flow: Flow, most: int) -> int:
    """Starts it again as often as it dies, as supervisor would, until all is there; how often that was."""
    deaths, begun = 0, time.monotonic()
    while flow.ledger.unconfirmed() or flow.ledger.missing():
        assert time.monotonic() - max(begun, flow.ledger.moved) < 60, flow.worker.where()
        assert flow.worker.process is not None
        if flow.worker.process.poll() is not None:
            deaths += 1
            assert deaths <= most, flow.worker.log[-3000:]
            flow.revive()
        time.sleep(0.05)
    return deaths


def test_without_a_place_for_poison_nothing_moves_and_nothing_is_lost(tmp_path: Path, kafka: Broker) -> None:
    require("mosquitto", "apt-get install mosquitto")
    with brokers.mosquitto() as other:
        source, sink, dead = on(kafka, "in"), on(kafka, "out"), on(other, "dead")
        folder = unit(tmp_path, source, sink, HANDLER.replace("os._exit(9)", "pass"), dead, **FATE)
        with flowing(folder, source, sink, text) as flow, letters(dead, flow.ledger) as found:
            with traffic(flow.feed, 200):
                wait_for(lambda: flow.ledger.came > 200, 60)
                other.stop(signal.SIGKILL)
                wait_for(lambda: flow.worker.ask("/readyz")[0] == 503, 60, f"unready: {flow.worker.log[-2000:]}")
                acknowledged = flow.worker.metric("mlpacker_dead_letters_total")
                time.sleep(full(20, 3))
                assert flow.worker.ask("/readyz")[0] == 503
                assert flow.worker.metric("mlpacker_dead_letters_total") == acknowledged
                other.start()
                flow.worker.wait_ready()
            verdict = flow.conclude("the dead-letter queue's broker is away", "unready, then all of it")
            expected = {number for number in range(verdict.sent) if kind(number) != "good"}
            assert found.stages.keys() == expected - {DEADLY}
