"""Kafka: at-least-once in, idempotent producer out; confluent-kafka's plain clients, used by one thread.

Options of a queue: `config` (librdkafka's own dotted names, for both ends), `username` and `pass_env` (SASL PLAIN),
`tls`, `create_topic` (default true: a missing topic is made with the broker's defaults).
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from threading import Condition, RLock
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from ..contract import ALONE, ConnectionFailed, DeliveryFailed, Message, MessageRefused, Replica, Sink, Source
from ..manifest import QueueSpec
from .kafka_client import Health, config_of, place, prepare, require_answer
from .kafka_group import Keeper, behind

PATIENCE_SECONDS = 5.0
LEAVE_SECONDS = 5.0
MAX_POLL_MS = 300_000  # librdkafka's own default
COMMIT_LATER = {
    KafkaError.REBALANCE_IN_PROGRESS,
    KafkaError.ILLEGAL_GENERATION,
    KafkaError.UNKNOWN_MEMBER_ID,
    KafkaError.FENCED_INSTANCE_ID,
    KafkaError._NO_OFFSET,
}


class Kafka:
    @staticmethod
    def source(queue: QueueSpec, name: str, replica: Replica = ALONE) -> Source:
        return KafkaSource(queue, name, replica)

    @staticmethod
    def sink(queue: QueueSpec, name: str, replica: Replica = ALONE) -> Sink:
        return KafkaSink(queue, name, replica)

    @staticmethod
    def once(
        read: Sequence[QueueSpec], written: Sequence[QueueSpec], name: str, replica: Replica
    ) -> tuple[Mapping[str, Source], Mapping[str, Sink]]:
        """All ends of a unit in one transaction, see kafka_once.py."""
        from .kafka_once import once

        return once(read, written, name, replica)


class KafkaSource(Source):
    """Consumer group `name`. Offsets are committed by `ack`, at the latest before their partition goes to another.

    While a batch takes long, a thread polls in our stead with everything paused, or the broker would take us for dead
    after `max.poll.interval.ms` and give what we have in hand to another. It begins at a third of that time, so that
    whoever joins the group usually waits for the end of a batch and no message is in two hands.
    """

    def __init__(self, queue: QueueSpec, name: str, replica: Replica) -> None:
        self._queue, self._name, self._replica = queue, name, replica
        self._consumer: Consumer | None = None
        self._health = Health(queue.id)
        self._ends: dict[int, int] = {}  # partition → first offset that is not done, not committed yet
        self._owned: set[int] = set()
        self._shrunk = self._postponed = False
        self._uncommitted = ""
        self._places: dict[int, int] = {}  # partition → where it goes on, for `lag`
        self._early: list[Any] = []  # came while nobody asked for messages
        self._lag, self._measured = 0, 0.0
        self._in_hand = 0
        self._changed = Condition()  # of `_in_hand`
        self._turn = RLock()  # whose turn it is to poll
        self._keeper = Keeper(1, self._keep)

    def connect(self) -> None:
        self._health, self._ends, self._owned, self._places = Health(self._queue.id), {}, set(), {}
        self._early, self._in_hand, self._lag, self._uncommitted = [], 0, 0, ""
        self._shrunk = self._postponed = False
        config = config_of(
            self._queue,
            self._name + self._replica.suffix,
            {
                "group.id": self._name,
                "auto.offset.reset": "earliest",
                "partition.assignment.strategy": "cooperative-sticky",
                "fetch.wait.max.ms": 100,
                "queued.max.messages.kbytes": 16_384,  # what waits here while a sink is slow
                "fetch.queue.backoff.ms": 5,  # how soon more is fetched once there is room again
                "session.timeout.ms": 10_000,  # how long the partitions of a killed unit wait for the next one
                "heartbeat.interval.ms": 3_000,
            },
        )
        config |= {
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "enable.partition.eof": True,
            **self._health.callbacks,
            "on_commit": self._committed,
        }
        prepare(self._queue, config)
        self._consumer = Consumer(config)
        self._consumer.subscribe(
            [self._queue.topic], on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._lost
        )
        self._keeper = Keeper(float(config.get("max.poll.interval.ms", MAX_POLL_MS)) / 3000, self._keep)
        self._keeper.start()

    def consume(self, max_items: int, timeout: float) -> list[Message]:
        if self._consumer is None:
            raise ConnectionFailed(f"{place(self._queue)}: not connected")
        with self._turn:
            self._keeper.beat()
            try:
                messages = self._take(self._consumer, max_items, timeout)
            except KafkaException as error:
                raise ConnectionFailed(f"{place(self._queue)}: {error.args[0].str()}") from None
            if self._uncommitted:
                raise ConnectionFailed(f"{place(self._queue)}: offsets not committed: {self._uncommitted}")
            if self._shrunk:  # while we took them; now they are another's
                messages, self._shrunk = [item for item in messages if item.token[0] in self._owned], False
            self._in_hand += len(messages)
            if self._postponed and not messages:
                self._commit_soon(self._consumer)
            self._measure(self._consumer)
            self._keeper.beat()
            if not messages and self._health.error:
                require_answer(self._consumer, self._queue, self._health)
        return messages

    def _take(self, consumer: Consumer, max_items: int, timeout: float) -> list[Message]:
        """What there is, else what comes within `timeout`; that a partition is at its end is no message."""
        if self._keeper.paused:
            consumer.resume(self._parts())
            self._keeper.paused = False
        found, self._early = self._early[:max_items], self._early[max_items:]
        found = found or consumer.consume(max_items, 0)
        messages = self._messages(found)
        deadline = time.monotonic() + timeout
        while not messages and (left := deadline - time.monotonic()) > 0:
            if not (found := consumer.consume(1, left)):
                break
            if max_items > 1:
                found += consumer.consume(max_items - 1, 0)
            messages = self._messages(found)
        return messages

    def _messages(self, found: Sequence[Any]) -> list[Message]:
        messages = [message for item in found if (message := self._message(item)) is not None]
        if self._owned - self._places.keys():
            for message in messages:
                self._places.setdefault(*message.token)
        return messages

    def _keep(self) -> None:
        """In the keeper's thread: shows that we are there. A partition that comes meanwhile may bring a message."""
        with self._turn:
            consumer = self._consumer
            if consumer is None or not self._keeper.due:
                return
            with suppress(KafkaException):  # whoever consumes next hears of it
                consumer.pause(self._parts())
                self._keeper.paused = True
                self._early += consumer.consume(100, 0)
            self._keeper.beat()

    def _parts(self) -> list[TopicPartition]:
        """What is assigned to us, as we were told: the client itself may take seconds to say so in a rebalance."""
        return [TopicPartition(self._queue.topic, partition) for partition in sorted(self._owned)]

    def _message(self, item: Any) -> Message | None:
        if item.error():
            if item.error().code() == KafkaError._PARTITION_EOF:  # behind what is no message: ends of transactions
                self._reached(item.partition(), item.offset())
                return None
            self._health.count(item.error().name())
            raise ConnectionFailed(f"{place(self._queue)}, topic {self._queue.topic!r}: {item.error().str()}")
        partition, offset, headers = item.partition(), item.offset(), item.headers()
        return Message(
            item.value() or b"",
            item.key(),
            {name: value or b"" for name, value in headers} if headers else {},
            f"{self._queue.topic}[{partition}]@{offset}",
            (partition, offset),
        )

    def ack(self, messages: Sequence[Message]) -> None:
        for message in messages:
            partition, offset = message.token
            self._ends[partition] = offset + 1
        for partition in self._ends.keys() - self._owned:
            del self._ends[partition]  # another has it now, and these messages again
        for partition, end in self._ends.items():
            self._reached(partition, end)
        self._hand_over(len(messages))
        with self._turn:
            if self._consumer is not None:
                self._commit_soon(self._consumer)

    def _commit_soon(self, consumer: Consumer) -> None:
        """Nobody waits for the answer, and what is done can be a moment ahead of what the broker knows."""
        self._postponed = False
        if not self._ends:
            return
        try:
            consumer.commit(offsets=self._offsets(self._ends), asynchronous=True)
        except KafkaException as error:
            self._uncommitted = error.args[0].str()

    def _committed(self, error: KafkaError | None, parts: Sequence[TopicPartition]) -> None:
        """The answer to a commit that nobody waited for; heard while somebody polls."""
        failed = error or next((part.error for part in parts if part.error), None)
        if failed is None:
            for part in parts:
                if self._ends.get(part.partition) == part.offset:
                    del self._ends[part.partition]
            return
        self._health.count(failed.name())
        self._postponed = failed.code() in COMMIT_LATER
        if not self._postponed:
            self._uncommitted = failed.str()

    def _reached(self, partition: int, offset: int) -> None:
        self._places[partition] = max(offset, self._places.get(partition, 0))

    def kept(self, messages: list[Message]) -> list[Message]:
        still = [message for message in messages if message.token[0] in self._owned]
        self._hand_over(len(messages) - len(still))
        return still

    def _hand_over(self, count: int) -> None:
        with self._changed:
            self._in_hand -= count
            self._changed.notify_all()

    def _commit(self, consumer: Consumer, ends: Mapping[int, int]) -> None:
        """Commits `ends` and forgets them. A rebalance forbids that: then later, at the latest before leaving."""
        if not ends:
            return
        try:
            parts = consumer.commit(offsets=self._offsets(ends), asynchronous=False)
            failed = [part.error for part in parts if part.error]
        except KafkaException as error:
            failed = [error.args[0]]
        if not failed:
            self._ends = {partition: end for partition, end in self._ends.items() if partition not in ends}
            self._postponed = False
            return
        self._health.count(failed[0].name())
        self._postponed = failed[0].code() in COMMIT_LATER
        if not self._postponed:
            raise ConnectionFailed(f"{place(self._queue)}: offsets not committed: {failed[0].str()}")

    def _offsets(self, ends: Mapping[int, int]) -> list[TopicPartition]:
        return [TopicPartition(self._queue.topic, partition, offset) for partition, offset in ends.items()]

    def _assigned(self, _consumer: Consumer, partitions: Sequence[TopicPartition]) -> None:
        self._owned |= {part.partition for part in partitions}

    def _revoked(self, consumer: Consumer, partitions: Sequence[TopicPartition]) -> None:
        """Called while somebody polls: with a batch in hand that is the keeper, which gives it as long again."""
        if self._keeper.is_current:
            with self._changed:
                self._changed.wait_for(lambda: not self._in_hand or self._keeper.stopped, self._keeper.seconds)
        self._settle(consumer, {part.partition for part in partitions})
        self._lost(consumer, partitions)

    def _settle(self, consumer: Consumer, gone: Collection[int]) -> None:
        """What is done of partitions that go to another is told before they do."""
        self._commit(consumer, {partition: end for partition, end in self._ends.items() if partition in gone})

    def _lost(self, _consumer: Consumer, partitions: Sequence[TopicPartition]) -> None:
        gone = {part.partition for part in partitions}
        self._owned -= gone
        self._shrunk = True
        self._early = [item for item in self._early if item.partition() not in gone]
        for partition in gone:
            self._ends.pop(partition, None)
            self._places.pop(partition, None)

    def _measure(self, consumer: Consumer) -> None:
        """Once a second, by whoever's turn it is: a call to the client waits until no other thread is in one."""
        now = time.monotonic()
        if now - self._measured >= 1:
            self._lag, self._measured = behind(consumer, self._queue.topic, self._places), now

    def lag(self) -> int:
        """What the partitions of this process hold beyond what is done, as of the last answer of the broker."""
        return self._lag

    def close(self) -> None:
        self._keeper.stop(self._changed)
        consumer, self._consumer, self._lag = self._consumer, None, 0
        if consumer is not None:
            with suppress(KafkaException, ConnectionFailed):
                self._commit_at_last(consumer)
            consumer.close()

    def _commit_at_last(self, consumer: Consumer) -> None:
        """Who leaves while its group finds itself waits for the end of that, or what is done would come again."""
        deadline = time.monotonic() + LEAVE_SECONDS
        while self._ends and not (self._uncommitted or self._health.error) and time.monotonic() < deadline:
            consumer.pause(self._parts())
            consumer.consume(1, 0.1)  # what comes all the same is not acknowledged; answers to commits are heard
            if self._postponed:
                self._commit(consumer, self._ends)


class KafkaSink(Sink):
    """Keys go to partitions as Java's clients send them (murmur2); a failed delivery is heard of in `flush`."""

    def __init__(self, queue: QueueSpec, name: str, replica: Replica) -> None:
        self._queue, self._name = queue, name + replica.suffix
        self._producer: Producer | None = None
        self._failed = ""
        self._health = Health(queue.id)
        self._max_bytes = 0

    def connect(self) -> None:
        self._failed, self._health = "", Health(self._queue.id)
        config = config_of(
            self._queue,
            self._name,
            {
                "enable.idempotence": True,
                "acks": "all",
                "linger.ms": 5,
                "partitioner": "murmur2_random",
            },
        )
        config.setdefault("message.max.bytes", prepare(self._queue, config))
        self._max_bytes = config["message.max.bytes"]
        self._producer = Producer(
            config | self._health.callbacks | {"delivery.report.only.error": True, "on_delivery": self._undelivered}
        )

    def _undelivered(self, error: KafkaError | None, _message: Any) -> None:
        if error is not None:
            self._health.count(error.name())
            self._failed = error.str()

    def produce(self, messages: Sequence[Message]) -> None:
        producer, topic = self._open(), self._queue.topic
        for message in messages:
            while True:
                try:
                    producer.produce(topic, message.value, message.key, headers=message.headers or None)
                    break
                except BufferError:
                    self._make_room(producer)
                except KafkaException as error:
                    if error.args[0].code() == KafkaError.MSG_SIZE_TOO_LARGE:
                        raise MessageRefused(message, self._too_large(message)) from None
                    raise self._failure(error.args[0].str()) from None

    def _too_large(self, message: Message) -> str:
        size, most = len(message.value), self._max_bytes
        return f"{size} bytes, kafka topic {self._queue.topic!r} takes {most} (max.message.bytes)"

    def _make_room(self, producer: Producer) -> None:
        """librdkafka's queue is full: the broker is slower than we are, or gone."""
        producer.poll(0.1)
        if self._failed or self._health.error:
            raise self._failure(self._failed or self._health.error)

    def flush(self, timeout: float) -> None:
        """Gives up early when no broker has been there for `PATIENCE_SECONDS`; says so too when nothing was waiting."""
        producer, deadline = self._open(), time.monotonic() + timeout
        while left := producer.flush(min(0.5, timeout)):
            if self._failed or self._health.lasts(PATIENCE_SECONDS) or time.monotonic() > deadline:
                break
        if left or self._failed:
            reason = self._failed or self._health.error or f"no answer in {timeout:g} s"
            raise self._failure(f"{left} messages not confirmed, {reason}" if left else reason)
        if self._health.error:
            try:
                require_answer(producer, self._queue, self._health)
            except ConnectionFailed as error:
                raise DeliveryFailed(str(error)) from None

    def _open(self) -> Producer:
        if self._producer is None:
            raise DeliveryFailed(f"{place(self._queue)}: not connected")
        return self._producer

    def _failure(self, reason: str) -> DeliveryFailed:
        return DeliveryFailed(f"not delivered to {place(self._queue)}, topic {self._queue.topic!r}: {reason}")

    def close(self) -> None:
        """What is still on its way is given up: whoever produced it was not told that it is safe."""
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.purge()
            producer.flush(0)
