"""Kafka: at-least-once in, idempotent producer out; confluent-kafka's plain clients, used by one thread.

Options of a queue: `config` (librdkafka's own dotted names, for both ends), `username` and `pass_env` (SASL PLAIN),
`tls`, `create_topic` (default true: a missing topic is made with the broker's defaults).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from threading import Condition, RLock
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from ..contract import ALONE, ConnectionFailed, DeliveryFailed, Message, MessageRefused, Replica, Sink, Source
from ..manifest import QueueSpec
from .kafka_client import Health, config_of, place, prepare, require_answer
from .kafka_group import ANSWER_SECONDS, Commits, Keeper, behind

log = logging.getLogger("mlpacker.kafka")

PATIENCE_SECONDS = 5.0
LEAVE_SECONDS = 5.0
SETTLE_SECONDS = 1.0  # for a broker that is not ready to hear what is done
MOMENT = 0.0005  # an answer takes one or two milliseconds
MAX_POLL_MS = 300_000  # librdkafka's own default


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
        self._commits = Commits(queue, self._health)
        self._owned: set[int] = set()
        self._gone: set[int] = set()  # since the client was asked last
        self._places: dict[int, int] = {}  # partition → where it goes on, for `lag`
        self._early: list[Any] = []  # came while nobody asked for messages
        self._lag, self._measured = 0, 0.0
        self._in_hand = 0
        self._changed = Condition()  # of `_in_hand`
        self._turn = RLock()  # whose turn it is to poll
        self._keeper = Keeper(1, self._keep)

    def connect(self) -> None:
        self._health = Health(self._queue.id)
        self._commits = Commits(self._queue, self._health)
        self._owned, self._places, self._early = set(), {}, []
        self._in_hand, self._lag = 0, 0
        self._gone.clear()
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
            "on_commit": self._commits.answered,
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
            self._commits.require()
            self._in_hand += len(messages)
            if self._commits.postponed and not messages:
                self._commits.soon(self._consumer)
            self._measure(self._consumer)
            self._keeper.beat()
            if not messages and self._health.error:
                require_answer(self._consumer, self._queue, self._health)
        return messages

    def _take(self, consumer: Consumer, max_items: int, timeout: float) -> list[Message]:
        """What there is, else what comes within `timeout`; that a partition is at its end is no message."""
        self._hear(consumer, max_items)
        if self._commits.asked:
            self._commits.again(consumer)
            return []
        if self._keeper.paused:
            consumer.resume(self._parts())
            self._keeper.paused = False
        deadline = time.monotonic() + timeout
        self._fill(consumer, max_items)
        while not (messages := self._early_messages(max_items)) and (left := deadline - time.monotonic()) > 0:
            self._poll(consumer, 1, left)
            if not self._early:
                break
            self._fill(consumer, max_items)
        return messages

    def _early_messages(self, most: int) -> list[Message]:
        found, self._early = self._early[:most], self._early[most:]
        return self._messages(found)

    def _fill(self, consumer: Consumer, most: int) -> None:
        if len(self._early) < most:
            self._poll(consumer, most - len(self._early), 0)

    def _poll(self, consumer: Consumer, most: int, timeout: float) -> None:
        """What comes is put behind `_early`. Of partitions that went meanwhile nothing is kept: several messages, which
        are not waited for, came before that, a single one after it."""
        self._gone.clear()
        found = consumer.consume(most, timeout)
        if self._gone and most > 1:
            found = [item for item in found if item.partition() not in self._gone]
        self._early += found  # which `_lost` may have replaced, so that it is read now

    def _hear(self, consumer: Consumer, most: int) -> None:
        """Waits a while for the broker to say that it knows what is done. What comes instead is for later: about
        `most` messages, and none once the wait is long."""
        deadline = time.monotonic() + ANSWER_SECONDS
        while self._commits.asked and (left := deadline - time.monotonic()) > 0:
            enough = len(self._early) >= most
            if enough and not self._keeper.paused:
                time.sleep(MOMENT)
            self._poll(consumer, 1, left if self._keeper.paused else 0 if enough else MOMENT)
        if self._commits.asked and not self._keeper.paused:
            consumer.pause(self._parts())
            self._keeper.paused = True

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
                self._poll(consumer, 100, 0)
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
        ends = {partition: offset + 1 for partition, offset in (message.token for message in messages)}
        for partition, end in ends.items():
            if partition in self._owned:  # else another has it now, and these messages again
                self._commits.ends[partition] = end
                self._reached(partition, end)
        self._hand_over(len(messages))
        with self._turn:
            if self._consumer is not None:
                self._commits.soon(self._consumer)

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

    def _assigned(self, _consumer: Consumer, partitions: Sequence[TopicPartition]) -> None:
        self._owned |= {part.partition for part in partitions}
        self._keeper.paused = True  # one that we had, and paused, is so still

    def _revoked(self, consumer: Consumer, partitions: Sequence[TopicPartition]) -> None:
        """Called while somebody polls: with a batch in hand that is the keeper, which gives it as long again."""
        if self._keeper.is_current:
            with self._changed:
                self._changed.wait_for(lambda: not self._in_hand or self._keeper.stopped, self._keeper.seconds)
        self._settle(consumer, {part.partition for part in partitions})
        self._lost(consumer, partitions)

    def _settle(self, consumer: Consumer, gone: set[int]) -> None:
        """What is done of partitions that go to another is told before they do."""
        deadline = time.monotonic() + SETTLE_SECONDS
        self._commits.now(consumer, gone)
        while self._commits.ends.keys() & gone and not self._commits.failed and time.monotonic() < deadline:
            time.sleep(0.05)
            self._commits.now(consumer, gone)

    def _lost(self, _consumer: Consumer, partitions: Sequence[TopicPartition]) -> None:
        gone = {part.partition for part in partitions}
        if untold := sorted(gone & self._commits.ends.keys()):
            log.warning("partitions %s went to another, which does the last of them again: not told in time", untold)
        self._owned -= gone
        self._gone |= gone
        self._early = [item for item in self._early if item.partition() not in gone]
        for partition in gone:
            self._commits.forget(partition)
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
            try:
                self._commit_at_last(consumer)
            except (KafkaException, ConnectionFailed):
                self._commits.ends.clear()  # nobody is there to be told, and it is not tried when the partitions go
            consumer.close()

    def _commit_at_last(self, consumer: Consumer) -> None:
        """Who leaves while its group finds itself waits for the end of that, or what is done would come again."""
        deadline = time.monotonic() + LEAVE_SECONDS
        commits = self._commits
        if commits.ends and self._health.error:
            require_answer(consumer, self._queue, self._health)
        commits.now(consumer, self._owned)
        while commits.ends and not commits.failed and time.monotonic() < deadline:
            consumer.pause(self._parts())
            consumer.consume(1, 0.1)  # what comes all the same is not acknowledged
            commits.now(consumer, self._owned)


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
