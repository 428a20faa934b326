"""What every connector is held to: inherit `ConnectorSuite` in a `Test…` class and say what the queue is.

The list is the one of Benthos's integration suites (redpanda-data/benthos, public/service/integration): open and close,
order, at-least-once through a reconnect, bounds, metadata; and how a connector says that nobody is there.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, ClassVar

import pytest

from packer_lib.runtime.contract import ConnectionFailed, Message, Sink, Source
from packer_lib.runtime.manifest import QueueSpec
from tests.support import free_port, wait_for

Ends = tuple[QueueSpec, QueueSpec]


class ConnectorSuite:
    """`ends` gives the queue as the source and as the sink sees it, with a topic of its own.

    The flags are what a protocol has no means for, never what is not done yet.
    """

    connector: ClassVar[Any]
    headers_travel = True
    key_travels = True
    comes_again = True  # what was not acknowledged, after a reconnect, from the peer itself
    flush_waits_for_ack = False  # the sender is told when the receiver is done, not before
    reaches: tuple[str, ...] = ("source", "sink")  # the ends that connect to somebody
    sink_first = False  # which end has to be there before the other

    def __init_subclass__(cls) -> None:
        """What a protocol has no means for is not collected, rather than skipped and counted as if it might pass."""
        if not cls.comes_again:
            cls.test_what_was_not_acknowledged_comes_again_and_what_was_does_not = None
            cls.test_what_is_rejected_again_and_again_comes_again_and_nothing_else_does = None
        if not cls.reaches:
            cls.test_nobody_there_is_said_with_host_and_port_within_ten_seconds = None
            cls.test_an_end_that_is_not_connected_says_so = None

    @pytest.fixture
    def ends(self) -> Ends:
        raise NotImplementedError

    def source(self, ends: Ends) -> Source:
        made: Source = self.connector.source(ends[0], f"mlpacker.contract.{ends[0].topic}")
        return made

    def sink(self, ends: Ends) -> Sink:
        made: Sink = self.connector.sink(ends[1], f"mlpacker.contract.{ends[1].topic}")
        return made

    @contextmanager
    def connected(self, ends: Ends) -> Iterator[tuple[Source, Sink]]:
        source, sink = self.source(ends), self.sink(ends)
        try:
            self.connect(source, sink)
            yield source, sink
        finally:
            sink.close()
            source.close()

    def connect(self, source: Source, sink: Sink) -> None:
        for end in (sink, source) if self.sink_first else (source, sink):
            end.connect()
        self.meet(source, sink)

    def meet(self, source: Source, sink: Sink) -> None:
        """Waits until each has noticed the other, where what comes before that is for nobody."""

    def send(self, sink: Sink, *payloads: bytes) -> None:
        """Produces, and flushes where that does not wait for the test itself."""
        sink.produce([Message(payload) for payload in payloads])
        if not self.flush_waits_for_ack:
            sink.flush(10)

    def test_an_end_closes_twice_and_before_it_was_ever_open(self, ends: Ends) -> None:
        source, sink = self.source(ends), self.sink(ends)
        source.close()
        sink.close()
        with self.connected(ends) as (source, sink):
            sink.close()
            source.close()

    def test_a_closed_source_and_sink_can_be_opened_again(self, ends: Ends) -> None:
        with self.connected(ends) as (source, sink):
            for turn in (b"first", b"again"):
                self.send(sink, turn)
                received = take(source, 1)
                source.ack(received)
                assert [item.value for item in received] == [turn]
                sink.close()
                source.close()
                self.connect(source, sink)

    def test_a_thousand_messages_arrive_in_order(self, ends: Ends) -> None:
        keys = (b"a", b"b", b"c")
        sent = [Message(b"%d" % number, keys[number % 3]) for number in range(1000)]
        with self.connected(ends) as (source, sink):
            sink.produce(sent)
            received = take(source, 1000, acknowledge=True)  # a broker stops when too much is not acknowledged
            sink.flush(20)
        for key in keys if self.key_travels else (None,):
            expected = [item.value for item in sent if key in (None, item.key)]
            assert [item.value for item in received if item.key == key] == expected

    def test_what_was_not_acknowledged_comes_again_and_what_was_does_not(self, ends: Ends) -> None:
        with self.connected(ends) as (source, sink):
            self.send(sink, *(b"%d" % number for number in range(20)))
            received = take(source, 20)
            source.ack(received[:12])
            source.close()
            source.connect()
            assert [item.value for item in take(source, 8)] == [b"%d" % number for number in range(12, 20)]
            assert source.consume(10, 0.5) == []

    def test_what_is_rejected_again_and_again_comes_again_and_nothing_else_does(self, ends: Ends) -> None:
        """Every fourth batch, by the one way there is to reject: leaving without having acknowledged it."""
        done: list[bytes] = []
        with self.connected(ends) as (source, sink):
            self.send(sink, *(b"%d" % number for number in range(60)))
            for turn in range(60):
                batch = source.consume(7, 15)
                assert batch, f"only {len(done)} of 60 came"
                if turn % 4 == 2:
                    source.close()
                    source.connect()
                else:
                    source.ack(batch)
                    done += [item.value for item in batch]
                if len(done) >= 60:
                    break
        assert [int(value) for value in done] == list(range(60)), f"in this order: {done}"

    def test_waiting_for_nothing_ends_at_the_timeout_with_nothing(self, ends: Ends) -> None:
        with self.connected(ends) as (source, _):
            source.consume(10, 3)  # joining a group takes its time
            started = time.monotonic()
            assert source.consume(10, 0.4) == []
            assert 0.3 < time.monotonic() - started < 2

    def test_the_first_message_is_not_held_back_until_the_batch_is_full(self, ends: Ends) -> None:
        with self.connected(ends) as (source, sink):
            self.send(sink, b"warm")
            source.ack(take(source, 1))
            started = time.monotonic()
            self.send(sink, b"first")
            assert [item.value for item in source.consume(1000, 10)] == [b"first"]
            assert time.monotonic() - started < 3

    def test_a_batch_is_never_larger_than_asked_for(self, ends: Ends) -> None:
        with self.connected(ends) as (source, sink):
            sink.produce([Message(b"%d" % number) for number in range(50)])
            sizes = []
            while sum(sizes) < 50:
                batch = source.consume(7, 10)
                assert batch, f"only {sum(sizes)} of 50 came"
                source.ack(batch)
                sizes.append(len(batch))
            sink.flush(10)
        assert max(sizes) <= 7

    def test_key_and_headers_survive(self, ends: Ends) -> None:
        headers = {"traceparent": b"00-0af7-01", "größe": "ä ö".encode(), "bytes": b"\xff\x00"}
        with self.connected(ends) as (source, sink):
            sink.produce([Message(b"1", b"key", headers), Message(b"2", b"\xff\x00", {}), Message(b"3")])
            received = take(source, 3)
            source.ack(received)
            sink.flush(10)
        by_value = {item.value: item for item in received}
        if self.key_travels:
            assert [by_value[name].key for name in (b"1", b"2", b"3")] == [b"key", b"\xff\x00", None]
        if self.headers_travel:
            assert [by_value[name].headers for name in (b"1", b"2", b"3")] == [headers, {}, {}]

    def test_a_message_of_a_megabyte_arrives_whole(self, ends: Ends) -> None:
        payload = bytes(range(256)) * 3906  # 999 936 bytes, no text
        with self.connected(ends) as (source, sink):
            sink.produce([Message(payload)])
            received = take(source, 1)
            source.ack(received)
            sink.flush(20)
        assert received[0].value == payload

    def test_every_message_says_where_it_was(self, ends: Ends) -> None:
        with self.connected(ends) as (source, sink):
            self.send(sink, b"1", b"2")
            places = [item.position for item in take(source, 2)]
        assert all(places)
        assert len(set(places)) == 2

    def test_nobody_there_is_said_with_host_and_port_within_ten_seconds(self, ends: Ends) -> None:
        for side in self.reaches:
            port, index = free_port(), ("source", "sink").index(side)
            nowhere = replace(ends[index], port=port)
            started = time.monotonic()
            end: Source | Sink = getattr(self.connector, side)(nowhere, "mlpacker.contract.unit")
            with pytest.raises(ConnectionFailed, match=rf"cannot reach .*127\.0\.0\.1:{port}.*is it running\?"):
                end.connect()
            assert time.monotonic() - started < 10
            end.close()

    def test_an_end_that_is_not_connected_says_so(self, ends: Ends) -> None:
        with pytest.raises(ConnectionFailed, match="not connected"):
            self.source(ends).consume(1, 0)


def fresh() -> str:
    """A topic name that nobody used."""
    return f"t-{uuid.uuid4().hex[:12]}"


def take(source: Source, count: int, *, acknowledge: bool = False) -> list[Message]:
    """Exactly `count` messages."""
    taken: list[Message] = []

    def enough() -> bool:
        batch = source.consume(count - len(taken), 0.2)
        if acknowledge:
            source.ack(batch)
        taken.extend(batch)
        return len(taken) >= count

    wait_for(enough, 30, f"{count} messages")
    return taken
