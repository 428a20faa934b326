"""Kafka to Kafka exactly once: killed at any moment, nothing is lost and nothing comes twice."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from packer_lib.runtime.connectors import kafka_once
from packer_lib.runtime.connectors.kafka import Kafka
from packer_lib.runtime.contract import ALONE, ConnectionFailed, DeliveryFailed, Message, MessageRefused, Replica
from tests.contract.connectors import fresh, take
from tests.lab.brokers import Broker
from tests.runtime.test_engine import Unit
from tests.runtime.test_engine import step as memory_step
from tests.runtime.test_streams import on, put, reading
from tests.support import wait_for

pytestmark = pytest.mark.broker

KILLS = 5


class Ends:
    """A source and sinks of one unit, as the engine uses them."""

    def __init__(self, kafka: Broker, *written: str, replica: Replica = ALONE) -> None:
        self.read, self.written = on(kafka, "in"), [on(kafka, name) for name in written]
        self.name, self.replica = f"mlpacker.once.{fresh()}", replica
        self.open()

    def open(self) -> None:
        sources, self.sinks = Kafka.once([self.read], self.written, self.name, self.replica)
        self.source = sources["in"]
        self.connect()

    def connect(self) -> None:
        for sink in self.sinks.values():
            sink.connect()
        self.source.connect()

    def ack(self, messages: list[Message]) -> None:
        """As the engine does it that then finds nothing waiting."""
        self.source.ack(messages)
        assert self.source.consume(10, 0) == []

    def close(self) -> None:
        self.source.close()
        for sink in self.sinks.values():
            sink.close()


def test_nothing_is_to_be_read_before_the_batch_is_acknowledged(kafka: Broker) -> None:
    ends = Ends(kafka, "out", "dead")
    put(ends.read, range(3))
    with reading(ends.written[0]) as out, reading(ends.written[1]) as dead:
        messages = take(ends.source, 3)
        ends.sinks["out"].produce(messages[:2])
        ends.sinks["dead"].produce(messages[2:])
        for sink in ends.sinks.values():
            sink.flush(10)
        assert out.consume(10, 2) == []
        ends.ack(messages)
        assert len(take(out, 2)) == 2
        assert len(take(dead, 1)) == 1
    ends.close()


def test_what_was_not_acknowledged_never_happened_and_comes_again(kafka: Broker) -> None:
    ends = Ends(kafka, "out")
    put(ends.read, range(3))
    with reading(ends.written[0]) as out:
        ends.sinks["out"].produce(take(ends.source, 3))
        ends.sinks["out"].flush(10)
        ends.close()
        ends.open()
        messages = take(ends.source, 3)
        ends.sinks["out"].produce(messages)
        ends.ack(messages)
        assert [message.key for message in take(out, 3)] == [b"0", b"1", b"2"]
        assert out.consume(10, 1) == []
    ends.close()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only that nothing is waiting ends a transaction."""
    monkeypatch.setattr(kafka_once, "COMMIT_EVERY", 1000.0)


def answered(ends: Ends, count: int) -> None:
    messages = take(ends.source, count)
    ends.sinks["out"].produce(messages)
    ends.source.ack(messages)


@pytest.mark.usefixtures("patient")
def test_batches_are_one_transaction_while_more_is_waiting(kafka: Broker) -> None:
    ends = Ends(kafka, "out")
    put(ends.read, range(6))
    with reading(ends.written[0]) as out:
        answered(ends, 3)
        answered(ends, 3)
        assert out.consume(10, 2) == []
        assert ends.source.consume(10, 0) == []
        assert len(take(out, 6)) == 6
    ends.close()


@pytest.mark.usefixtures("patient")
def test_what_is_acknowledged_is_committed_before_its_partition_goes_and_when_the_unit_stops(kafka: Broker) -> None:
    ends = Ends(kafka, "out")
    put(ends.read, range(4))
    with reading(ends.written[0]) as out:
        answered(ends, 2)
        ends.close()
        assert [message.key for message in take(out, 2)] == [b"0", b"1"]
        ends.open()
        answered(ends, 1)
        ends.source._settle(ends.source._consumer, {0})  # as in a rebalance
        assert [message.key for message in take(out, 1)] == [b"2"]
    ends.close()


@pytest.mark.usefixtures("patient")
def test_a_batch_that_outlasts_the_transaction_before_it_is_not_taken_back_for_ever(kafka: Broker) -> None:
    ends = Ends.__new__(Ends)
    ends.read, ends.written = on(kafka, "in"), [on(kafka, "out")]
    ends.read = replace(ends.read, options={"config": {"transaction.timeout.ms": 1000}})
    ends.name, ends.replica = f"mlpacker.once.{fresh()}", ALONE
    ends.open()
    put(ends.read, range(2))
    with reading(ends.written[0]) as out:
        answered(ends, 1)
        slow = take(ends.source, 1)
        wait_for(lambda: _is_taken_back(ends, slow), 40, "the broker's end of the transaction", 5)
        ends.close()
        ends.connect()
        answered(ends, 1)
        assert [message.key for message in take(out, 1)] == [b"0"]  # committed before the slow one is begun again
        answered(ends, 1)
        assert [message.key for message in take(out, 1)] == [b"1"]
    ends.close()


def _is_taken_back(ends: Ends, messages: list[Message]) -> bool:
    try:
        ends.sinks["out"].produce(messages)
        ends.sinks["out"].flush(10)
    except (ConnectionFailed, DeliveryFailed):
        return True
    return False


def test_messages_that_lead_to_nothing_are_done_too(kafka: Broker) -> None:
    ends = Ends(kafka, "out")
    put(ends.read, range(3))
    ends.source.ack(take(ends.source, 3))
    ends.close()
    ends.open()
    assert ends.source.consume(10, 5) == []
    ends.close()


def test_the_end_of_a_transaction_is_nothing_that_waits(kafka: Broker) -> None:
    """It takes a place in the topic, which no reader ever gets."""
    ends = Ends(kafka, "out")
    put(ends.read, range(3))
    messages = take(ends.source, 3)
    ends.sinks["out"].produce(messages)
    ends.source.ack(messages)
    ends.close()
    with reading(ends.written[0]) as out:
        out.ack(take(out, 3))
        time.sleep(1)
        out.consume(1, 1)
        assert out.lag() == 0
    with reading(ends.written[0]) as out:
        wait_for(lambda: len(out.consume(1, 0.2)) == 1, 10)
        assert out.lag() <= 4
        wait_for(lambda: not out.consume(10, 1.2) and out.lag() == 0, 10)


def test_one_who_takes_our_name_ends_what_we_began(kafka: Broker) -> None:
    """A process that was taken for dead and is not: its last batch is the other's."""
    ends = Ends(kafka, "out")
    put(ends.read, range(1))
    with reading(ends.written[0]) as out:
        messages = take(ends.source, 1)
        ends.sinks["out"].produce(messages)
        ends.sinks["out"].flush(10)
        sources, _ = Kafka.once([ends.read], ends.written, ends.name, ends.replica)
        sources["in"].connect()
        with pytest.raises(ConnectionFailed, match=r"transaction of mlpacker\.once\..*\.0: .*; it is taken back"):
            ends.ack(messages)
        assert out.consume(1, 1) == []
        sources["in"].close()
    ends.close()


def test_a_message_that_is_too_large_is_refused_alone_and_the_rest_is_committed(kafka: Broker) -> None:
    from confluent_kafka.admin import AdminClient, NewTopic

    ends = Ends.__new__(Ends)
    ends.read, ends.written = on(kafka, "in"), [on(kafka, "out"), on(kafka, "dead")]
    ends.name, ends.replica = f"mlpacker.once.{fresh()}", ALONE
    admin = AdminClient({"bootstrap.servers": kafka.address})
    new = NewTopic(ends.written[0].topic, config={"max.message.bytes": "2000"})
    admin.create_topics([new])[new.topic].result(10)
    ends.open()
    put(ends.read, range(2))
    messages = take(ends.source, 2)
    large = Message(b"x" * 3000)
    with reading(ends.written[0]) as out, reading(ends.written[1]) as dead:
        with pytest.raises(MessageRefused, match="3000 bytes, kafka topic"):
            ends.sinks["out"].produce([messages[0], large])
        ends.sinks["dead"].produce([large])
        ends.ack(messages)
        assert [message.value for message in take(out, 1)] == [b'{"n": 0}']
        assert len(take(dead, 1)[0].value) == 3000
    ends.close()


def test_a_unit_that_cannot_have_it_says_why(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="delivery exactly_once is for kafka, and queue 'in' is memory"):
        Unit(tmp_path, memory_step(tmp_path, delivery="exactly_once"))
