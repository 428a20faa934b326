"""Kafka to Kafka, exactly once: what comes of a batch and how far its source was read are one transaction (KIP-447).

One producer for all topics of the unit, whose `transactional.id` is that of the unit's replica: who comes back under
it ends what its predecessor left open. Readers that take committed messages only, which is librdkafka's default, see
all of a batch or nothing. Needs brokers of 2.5 or later.

To commit costs the same for one message as for ten thousand: a transaction takes in the batches of `COMMIT_EVERY`
seconds while more is waiting, and is committed at once when nothing is. Nothing of this is seen by the engine; a batch
that was acknowledged and not committed comes again, as if it had never been.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from ..contract import ConnectionFailed, DeliveryFailed, Message, MessageRefused, Replica
from ..manifest import QueueSpec
from .kafka import PATIENCE_SECONDS, KafkaSink, KafkaSource
from .kafka_client import MAX_BYTES, Health, config_of, place, prepare, unreachable

log = logging.getLogger("mlpacker.kafka")

COMMIT_EVERY = 0.1
CAUTIOUS_SECONDS = 600.0
INIT_SECONDS = 10.0
COMMIT_SECONDS = 30.0
ABORT_SECONDS = 5.0
OVERHEAD = 100  # bytes of a batch around its messages


class Transaction:
    """The unit's producer, and at most one transaction of it that is open."""

    def __init__(self, queue: QueueSpec, written: Sequence[QueueSpec], name: str, replica: Replica) -> None:
        self._queue, self._written, self._name = queue, written, f"{name}.{replica.number}"
        self.health = Health(queue.id)
        self.sizes: dict[str, int] = {}  # queue → bytes up to which its topic takes messages
        self._producer: Producer | None = None
        self._begun = 0.0  # when; 0: none is open
        self._whole = True  # nothing was produced since `add`
        self._done: dict[str, tuple[Any, dict[int, int]]] = {}  # topic → read as which member, partition → offset
        self._cautious_until = 0.0

    def open(self) -> Producer:
        """The producer, made and known to the broker at the first call after `close`."""
        if self._producer is None:
            self.health, self._begun, self._whole, self._done = Health(self._queue.id), 0.0, True, {}
            config = config_of(self._queue, self._name, {"linger.ms": 5, "partitioner": "murmur2_random"})
            config |= {"transactional.id": self._name, "enable.idempotence": True, "acks": "all"}
            self.sizes = {queue.id: prepare(queue, config) for queue in self._written} or {"": MAX_BYTES}
            config.setdefault("message.max.bytes", max(self.sizes.values()))
            config.setdefault("batch.size", min(self.sizes.values()))
            producer = Producer(config | self.health.callbacks)
            self._producer = producer
            self._until(INIT_SECONDS, lambda left: producer.init_transactions(left))
        return self._producer

    @property
    def producer(self) -> Producer:
        if self._producer is None:
            raise DeliveryFailed(f"{place(self._queue)}: not connected")
        return self._producer

    def begin(self) -> None:
        """Before anything is produced."""
        if not self._begun:
            self._attempt(self.producer.begin_transaction)
            self._begun = time.monotonic()
        self._whole = False

    def add(self, topic: str, ends: Mapping[int, int], member: Any) -> None:
        """All that was produced came of `topic` up to `ends`, partition → offset, read as `member` of its group."""
        if not self._begun:
            self.begin()
        self._whole = True
        self._done[topic] = member, {**self._done.get(topic, (None, {}))[1], **ends}
        now = time.monotonic()
        if now - self._begun >= COMMIT_EVERY or now < self._cautious_until:
            self.commit()

    def commit(self, seconds: float = COMMIT_SECONDS) -> None:
        """What was added since the last one. Fine when that is nothing."""
        if not self._done:
            return
        producer = self.producer
        for topic, (member, ends) in self._done.items():
            offsets = [TopicPartition(topic, partition, offset) for partition, offset in ends.items()]
            self._until(seconds, lambda left: producer.send_offsets_to_transaction(offsets, member, left))  # noqa: B023
        self._until(seconds, lambda left: producer.commit_transaction(left))
        self._begun, self._done = 0.0, {}

    def _until(self, seconds: float, call: Callable[[float], Any]) -> None:
        """`call` with the seconds that are left, again as long as the broker may still do it."""
        deadline = time.monotonic() + seconds
        while True:
            left = deadline - time.monotonic()
            try:
                call(max(left, 0.1))
                return
            except KafkaException as error:
                self.health.count(error.args[0].name())
                if left <= 0 or not error.args[0].retriable():
                    raise self._failure(error) from None

    def _attempt(self, call: Callable[[], Any]) -> None:
        try:
            call()
        except KafkaException as error:
            raise self._failure(error) from None

    def _failure(self, error: KafkaException) -> ConnectionFailed:
        reason = error.args[0].str()
        if self.health.error and error.args[0].retriable():
            return unreachable(self._queue, self.health.error)
        return ConnectionFailed(f"{place(self._queue)}, transaction of {self._name}: {reason}; it is taken back")

    def close(self) -> None:
        """Whole batches are committed if that can be done now; what is not committed never happened.

        It may have been too long open, behind a batch that took its time: then that is not left to happen again."""
        if self._producer is not None and self._whole:
            with suppress(ConnectionFailed):
                self.commit(ABORT_SECONDS)
        producer, self._producer = self._producer, None
        if producer is None:
            return
        begun, self._begun, self._done = self._begun, 0.0, {}
        if begun:
            self._cautious_until = time.monotonic() + CAUTIOUS_SECONDS
        with suppress(KafkaException):  # else whoever comes next under this name does it, or the broker by time
            if begun:
                producer.purge()
                producer.abort_transaction(ABORT_SECONDS)
            producer.flush(0)


class OnceSink(KafkaSink):
    """What is produced belongs to the transaction; `flush` says that the broker has it, the source's `ack` commits."""

    def __init__(self, queue: QueueSpec, name: str, replica: Replica, transaction: Transaction) -> None:
        super().__init__(queue, name, replica)
        self._transaction = transaction

    def connect(self) -> None:
        self._failed = ""
        self._producer = self._transaction.open()
        self._max_bytes = self._transaction.sizes[self._queue.id]
        self._health = self._transaction.health

    def produce(self, messages: Sequence[Message]) -> None:
        """The topics' sizes differ and the producer's is the largest: what is too large for this one is found here."""
        self._open()
        self._transaction.begin()
        large = next((place for place, message in enumerate(messages) if _size(message) > self._max_bytes), None)
        super().produce(messages[:large])
        if large is not None:
            raise MessageRefused(messages[large], self._too_large(messages[large]))

    def flush(self, timeout: float) -> None:  # noqa: ARG002
        """The commit waits for what was produced; here is only heard what became of the broker."""
        self._open().poll(0)
        if self._failed or self._health.lasts(PATIENCE_SECONDS):
            raise self._failure(self._failed or self._health.error)

    def close(self) -> None:
        self._producer = None
        self._transaction.close()


class OnceSource(KafkaSource):
    """`ack` adds to the unit's transaction. A partition that went to another with a batch in hand takes all back."""

    def __init__(self, queue: QueueSpec, name: str, replica: Replica, transaction: Transaction) -> None:
        super().__init__(queue, name, replica)
        self._transaction = transaction
        self._member: Any = None
        self._taken = ""  # why what is in the transaction cannot be committed

    def connect(self) -> None:
        self._taken = ""
        self._transaction.open()
        super().connect()

    def consume(self, max_items: int, timeout: float) -> list[Message]:
        """As whom we took them is kept: the broker takes no offsets from a member that the group has left behind."""
        messages = super().consume(max_items, 0.0)
        if not messages:
            self._require_ours()
            self._transaction.commit()
            messages = super().consume(max_items, timeout) if timeout else []
        if messages and self._consumer is not None:
            self._member = self._consumer.consumer_group_metadata()
        return messages

    def ack(self, messages: Sequence[Message]) -> None:
        if not messages:
            return
        ends = {partition: offset + 1 for partition, offset in (message.token for message in messages)}
        if ends.keys() - self._owned:
            self._taken = "partitions went to another while their messages were in hand"
        self._require_ours()
        self._transaction.add(self._queue.topic, ends, self._member)
        for partition, end in ends.items():
            self._reached(partition, end)
        self._hand_over(len(messages))

    def _require_ours(self) -> None:
        if self._taken:
            raise ConnectionFailed(f"{place(self._queue)}: {self._taken}")

    def _settle(self, _consumer: Consumer, _gone: set[int]) -> None:
        """Before partitions go: by whoever polls, and there is no batch in hand unless it took too long."""
        try:
            if not self._in_hand:
                self._transaction.commit()
        except ConnectionFailed as error:
            self._taken = str(error)

    def close(self) -> None:
        """The transaction first: what it holds must not be committed by whoever gets the partitions."""
        self._transaction.close()
        super().close()


def _size(message: Message) -> int:
    headers = sum(len(name) + len(value) + 10 for name, value in message.headers.items())
    return len(message.value) + len(message.key or b"") + headers + OVERHEAD


def once(
    read: Sequence[QueueSpec], written: Sequence[QueueSpec], name: str, replica: Replica
) -> tuple[dict[str, OnceSource], dict[str, OnceSink]]:
    """Queue id → source, and → sink, of one transaction. All queues are on one broker, reached as the first says."""
    transaction = Transaction(read[0], written, name, replica)
    sources = {queue.id: OnceSource(queue, name, replica, transaction) for queue in read}
    return sources, {queue.id: OnceSink(queue, name, replica, transaction) for queue in written}
