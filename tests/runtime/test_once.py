"""Kafka to Kafka exactly once: killed at any moment, nothing is lost and nothing comes twice."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from packer_lib.runtime.connectors.kafka import Kafka
from packer_lib.runtime.contract import ALONE, ConnectionFailed, Message, MessageRefused, Replica
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
        sources, sinks = Kafka.once([self.read], self.written, self.name, self.replica)
        self.source, self.sinks = sources["in"], sinks
        for sink in sinks.values():
            sink.connect()
        self.source.connect()

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
        ends.source.ack(messages)
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
        ends.source.ack(messages)
        assert [message.key for message in take(out, 3)] == [b"0", b"1", b"2"]
        assert out.consume(10, 1) == []
    ends.close()


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
            ends.source.ack(messages)
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
        ends.source.ack(messages)
        assert [message.value for message in take(out, 1)] == [b'{"n": 0}']
        assert len(take(dead, 1)[0].value) == 3000
    ends.close()


def test_a_unit_that_cannot_have_it_says_why(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="delivery exactly_once is for kafka, and queue 'in' is memory"):
        Unit(tmp_path, memory_step(tmp_path, delivery="exactly_once"))
