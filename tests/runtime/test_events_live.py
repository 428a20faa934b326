"""One event on its way over MQTT 5, a WebSocket and MQTT again, through two units as processes."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from packer_lib.runtime.contract import Message
from packer_lib.runtime.manifest import QueueSpec
from tests.contract.connectors import fresh, take
from tests.lab.brokers import Broker
from tests.runtime.handmade import code_step
from tests.runtime.test_streams import on, reading, writing
from tests.runtime.workers import running, write_unit
from tests.support import free_port, wait_for

pytestmark = pytest.mark.broker

TRACE = {"traceparent": b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "tracestate": b"vendor=1"}
EVENT = {"specversion": b"1.0", "id": b"7", "source": b"/plant/1", "type": b"reading", "subject": b"pump"}
SUM = "def handler(value):\n    return sum(value)\n"
DOUBLE = "def handler(value):\n    return {'double': 2 * value}\n"
NUMBERS = {"type": "array", "items": {"type": "number"}, "minItems": 1}


def test_an_event_keeps_its_attributes_and_its_trace_where_frames_have_no_headers(
    tmp_path: Path, mosquitto: Broker
) -> None:
    readings, answers, dead = (on(mosquitto, name) for name in ("readings", "answers", "dead"))
    readings = QueueSpec("readings", "mqtt", readings.server, readings.port, readings.topic, schema=NUMBERS)
    port, topic = free_port(), fresh()
    hears, says = (
        QueueSpec("middle", "websocket", "127.0.0.1", port, topic, {"role": role, "ack": True})
        for role in ("server", "client")
    )
    for folder in ("first", "second"):
        (tmp_path / folder).mkdir()
    fate = {"on_error": "dead_letter", "dead_letter": "dead"}
    first = code_step(
        tmp_path / "first", "sum", SUM, inputs=("readings",), outputs=("middle",), input_format="csv", **fate
    )
    second = code_step(tmp_path / "second", "double", DOUBLE, inputs=("middle",), outputs=("answers",))
    units = [
        write_unit(tmp_path / "second", second, queues=(hears, answers)),
        write_unit(tmp_path / "first", first, queues=(readings, says, dead)),
    ]
    with running(units[0]) as behind, reading(answers) as reader, reading(dead) as grave:
        behind.wait_ready()
        with running(units[1]) as before:
            before.wait_ready()
            with writing(readings) as sink:
                headers = {**EVENT, **TRACE, "content-type": b"text/csv"}
                sink.produce([Message(b"1,2.5", b"key", headers), Message(b"1,x", None, headers), Message(b"4")])
                sink.flush(10)
            event, plain = take(reader, 2, acknowledge=True)
            (letter,) = take(grave, 1, acknowledge=True)
            wait_for(lambda: before.metric('mlpacker_messages_failed_total{stage="schema",step="sum"}') == 1)
            assert [worker.signal(signal.SIGTERM) for worker in (before, behind)] == [0, 0]
    envelope = json.loads(event.value)
    assert envelope == {
        **{name: value.decode() for name, value in {**EVENT, **TRACE}.items()},
        "id": envelope["id"],
        "source": "/mlpacker/plant/double",
        "datacontenttype": "application/json",
        "data": {"double": 7.0},
    }
    assert event.headers == {**TRACE, "content-type": b"application/cloudevents+json"}
    assert (json.loads(plain.value), plain.headers) == ({"double": 8}, {})
    assert letter.value == b"1,x"
    assert letter.headers["mlpacker-error-reason"] == b'[1]: "x" is not of type "number"'
    assert letter.headers.items() >= TRACE.items()
