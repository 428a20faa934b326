"""Stream units as processes on real brokers: nothing is lost, whoever dies, and what cannot be done is told."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from sklearn.linear_model import LinearRegression

from packer_lib.runtime.connectors.kafka import Kafka
from packer_lib.runtime.connectors.mqtt import Mqtt
from packer_lib.runtime.contract import Message, Sink, Source
from packer_lib.runtime.manifest import QueueSpec, StepSpec
from tests.contract.connectors import fresh, take
from tests.lab import brokers
from tests.lab.brokers import Broker
from tests.runtime.handmade import code_step, model_step
from tests.runtime.workers import running, write_unit
from tests.support import require, wait_for

pytestmark = pytest.mark.broker

SLOW = "import time\ndef handler(value):\n    time.sleep(0.002)\n    return value\n"
PICKY = """\
def handler(value):
    if value["n"] % 10 == 3:
        raise ValueError("an unlucky number")
    return value
"""


def on(broker: Broker, name: str) -> QueueSpec:
    connector = "mqtt" if broker.name == "mosquitto" else "kafka"
    return QueueSpec(name, connector, broker.host, broker.port, fresh())


def brief(queue: QueueSpec) -> QueueSpec:
    """A group of it gives up a dead member after six seconds, which is the least that a broker takes."""
    return replace(queue, options={"config": {"session.timeout.ms": 6000}}) if queue.connector == "kafka" else queue


@contextmanager
def reading(queue: QueueSpec, name: str = "") -> Iterator[Source]:
    """A reader of a queue that units write, there before they do; under the same `name` it goes on where it was."""
    source = (Mqtt if queue.connector == "mqtt" else Kafka).source(queue, f"mlpacker.test.{name or fresh()}")
    source.connect()
    try:
        yield source
    finally:
        source.close()


@contextmanager
def writing(queue: QueueSpec) -> Iterator[Sink]:
    sink = (Mqtt if queue.connector == "mqtt" else Kafka).sink(queue, f"mlpacker.test.{fresh()}")
    sink.connect()
    try:
        yield sink
    finally:
        sink.close()


def put(queue: QueueSpec, numbers: Iterable[int]) -> None:
    """Messages {"n": number} with the number as key; confirmed by the broker."""
    with writing(queue) as sink:
        sink.produce([Message(b'{"n": %d}' % number, b"%d" % number) for number in numbers])
        sink.flush(30)


def read_until(source: Source, enough: set[int], seconds: float = 60) -> list[int]:
    """Numbers as they come, until all of `enough` were there."""
    got: list[int] = []

    def all_there() -> bool:
        batch = source.consume(1000, 0.2)
        source.ack(batch)
        got.extend(json.loads(message.value)["n"] for message in batch)
        return enough <= set(got)

    wait_for(all_there, seconds, f"{len(enough)} messages")
    return got


def passing(folder: Path, source: QueueSpec, sink: QueueSpec, text: str = SLOW, **props: object) -> Path:
    step = code_step(folder, "only", text, inputs=(source.id,), outputs=(sink.id,), **{"max_batch": 50, **props})
    return write_unit(folder, step, queues=(source, sink), pipeline=fresh())


def test_three_steps_between_mqtt_and_kafka_give_the_models_own_answers(
    tmp_path: Path, mosquitto: Broker, kafka: Broker
) -> None:
    model = LinearRegression().fit([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], [2.0, 3.0, 5.0])
    source, sink = on(mosquitto, "q1"), on(kafka, "q2")
    steps: tuple[StepSpec, ...] = (
        code_step(
            tmp_path,
            "preparation",
            "def handler(value):\n    return {'data': [value['n'], 1.0], 'n': value['n']}\n",
            inputs=("q1",),
            outputs=("model",),
        ),
        model_step(tmp_path, model, inputs=("preparation",), outputs=("filter",)),
        code_step(
            tmp_path,
            "filter",
            "def handler(value):\n    return value if value['prediction'] > 100 else None\n",
            inputs=("model",),
            outputs=("q2",),
        ),
    )
    with (
        running(write_unit(tmp_path, *steps, queues=(source, sink), pipeline=fresh())) as worker,
        reading(sink) as reader,
    ):
        worker.wait_ready()
        put(source, range(200))
        expected = {number for number in range(200) if 2 * number + 3 > 100}
        received = [json.loads(message.value) for message in take(reader, len(expected), acknowledge=True)]
        assert {answer["n"] for answer in received} == expected
        for answer in received:
            assert answer["prediction"] == pytest.approx(2 * answer["n"] + 3)
        wait_for(lambda: worker.metric('mlpacker_messages_in_total{queue="q1"}') == 200)
        assert worker.metric('mlpacker_messages_out_total{queue="q2"}') == len(expected)
        assert worker.metric('mlpacker_predict_seconds_count{step="model"}') > 0
        assert worker.signal(signal.SIGTERM) == 0


def test_a_poisonous_message_stops_the_unit_with_its_place_step_stage_and_reason(tmp_path: Path, kafka: Broker) -> None:
    source, sink = on(kafka, "in"), on(kafka, "out")
    put(source, range(10))
    folder = passing(tmp_path, source, sink, PICKY)
    with reading(sink) as reader:
        for _ in range(2):  # it is still there after a restart, and what came before it does not come again
            with running(folder) as worker:
                assert worker.wait() == 1
                assert worker.log.splitlines()[-1].endswith(
                    f"/only: stopped: in {source.topic}[0]@3: step 'only', handle: "
                    "ValueError: an unlucky number (main.py:3); the message is not acknowledged"
                )
        assert read_until(reader, {0, 1, 2}) == [0, 1, 2]
        assert reader.consume(10, 1) == []


def test_a_poisonous_message_is_skipped_and_counted(tmp_path: Path, kafka: Broker) -> None:
    source, sink = on(kafka, "in"), on(kafka, "out")
    put(source, range(100))
    with running(passing(tmp_path, source, sink, PICKY, on_error="skip")) as worker, reading(sink) as reader:
        got = read_until(reader, {number for number in range(100) if number % 10 != 3})
        assert len(got) == 90
        wait_for(lambda: worker.metric("mlpacker_messages_skipped_total") == 10)
        assert worker.metric('mlpacker_messages_failed_total{stage="handle",step="only"}') == 10
        assert worker.signal(signal.SIGTERM) == 0


def test_a_poisonous_message_goes_to_the_dead_letter_queue_with_its_reason(
    tmp_path: Path, mosquitto: Broker, kafka: Broker
) -> None:
    source, sink, dead = on(mosquitto, "in"), on(kafka, "out"), on(kafka, "dead")
    step = code_step(
        *(tmp_path, "only", PICKY), inputs=("in",), outputs=("out",), on_error="dead_letter", dead_letter="dead"
    )
    folder = write_unit(tmp_path, step, queues=(source, sink, dead), pipeline=fresh())
    with running(folder) as worker, reading(sink) as reader, reading(dead) as letters:
        worker.wait_ready()
        put(source, range(40))
        with writing(source) as client:
            client.produce([Message(b"no json", b"key")])
            client.flush(10)
        assert len(read_until(reader, {number for number in range(40) if number % 10 != 3})) == 36
        received = {letter.value: letter for letter in take(letters, 5)}
        letter = received[b"no json"]
        assert letter.key == b"key"
        assert letter.headers["mlpacker-error-stage"] == b"decode"
        assert letter.headers["mlpacker-error-step"] == b"only"
        assert letter.headers["mlpacker-error-reason"].startswith(b"not json: ")
        assert letter.headers["mlpacker-error-source"].startswith(f"in {source.topic} #".encode())
        assert received[b'{"n": 13}'].headers["mlpacker-error-stage"] == b"handle"
        wait_for(lambda: worker.metric("mlpacker_dead_letters_total") == 5)
        assert worker.signal(signal.SIGTERM) == 0


def test_a_unit_started_before_its_broker_becomes_ready_when_that_comes_up(tmp_path: Path, kafka: Broker) -> None:
    require("mosquitto", "apt-get install mosquitto")
    with brokers.mosquitto() as broker:
        broker.stop()
        source, sink = on(broker, "in"), on(kafka, "out")
        with running(passing(tmp_path, source, sink)) as worker, reading(sink) as reader:
            wait_for(lambda: "is it running?" in worker.log)
            assert worker.ask("/readyz")[0] == 503
            broker.start()
            worker.wait_ready()
            put(source, range(10))
            assert sorted(read_until(reader, set(range(10)))) == list(range(10))
            assert worker.metric('mlpacker_reconnects_total{queue="in"}') >= 1
            assert worker.signal(signal.SIGTERM) == 0
