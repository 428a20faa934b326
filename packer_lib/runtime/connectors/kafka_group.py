"""What a member of a consumer group does beside taking messages: stay in it, say what is done, know what is left."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from threading import Condition, Event, Thread, get_ident

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from ..contract import ConnectionFailed
from ..manifest import QueueSpec
from .kafka_client import ANSWER_MS, Health, place

AGAIN_SECONDS = 1.0
ANSWER_SECONDS = 0.2  # a broker that is there takes a few milliseconds
LOST_SECONDS = 2 * ANSWER_MS / 1000
LATER = {KafkaError.REBALANCE_IN_PROGRESS, KafkaError._NO_OFFSET}  # the partitions are still ours
GONE = {KafkaError.ILLEGAL_GENERATION, KafkaError.UNKNOWN_MEMBER_ID, KafkaError.FENCED_INSTANCE_ID}  # or soon will be


class Keeper:
    """Calls `keep` in a thread of its own whenever there was no `beat` for `seconds`."""

    def __init__(self, seconds: float, keep: Callable[[], None]) -> None:
        self.seconds, self._keep = seconds, keep
        self.paused = False
        self._last = time.monotonic()
        self._stop = Event()
        self._thread = Thread(target=self._run, name="kafka keeper", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def beat(self) -> None:
        self._last = time.monotonic()

    @property
    def due(self) -> bool:
        return time.monotonic() - self._last > self.seconds and not self._stop.is_set()

    @property
    def stopped(self) -> bool:
        return self._stop.is_set()

    @property
    def is_current(self) -> bool:
        """Whether this is called in the keeper's own thread."""
        return self._thread.ident == get_ident()

    def stop(self, changed: Condition) -> None:
        """Returns when the thread has ended; `changed` is what it may wait for."""
        self._stop.set()
        with changed:
            changed.notify_all()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self.seconds / 4):
            if self.due:
                self._keep()


class Commits:
    """What is done and the broker may not know yet: `ends`, partition → the first offset that is not done.

    A rebalance forbids to say it: that is `postponed` then, and to be said again. What else fails is for `require`.
    While the broker is `asked` nothing more is to be begun, for all of it would come again if there is no answer.
    """

    def __init__(self, queue: QueueSpec, health: Health) -> None:
        self.ends: dict[int, int] = {}
        self.postponed = False
        self.failed = ""
        self._queue, self._health = queue, health
        self._since, self._said = 0.0, 0.0  # no answer came since then (0: none is to come), and when it was last said

    @property
    def asked(self) -> bool:
        return bool(self.ends) and not self.postponed and not self.failed

    def again(self, consumer: Consumer) -> None:
        """Says it once more every second that no answer comes: a rebalance may have swallowed it."""
        if time.monotonic() - self._said > AGAIN_SECONDS:
            self.soon(consumer)

    def soon(self, consumer: Consumer) -> None:
        """Says all of it. Nobody waits for the answer, which is heard while somebody polls."""
        self.postponed = False
        if not self.ends:
            return
        try:
            consumer.commit(offsets=self._offsets(self.ends), asynchronous=True)
        except KafkaException as error:
            self.failed = error.args[0].str()
        else:
            self._said = time.monotonic()
            self._since = self._since or self._said

    def answered(self, error: KafkaError | None, parts: Sequence[TopicPartition]) -> None:
        """For the client's configuration, as `on_commit`. Who is not of the group any more hears of that soon."""
        failed = error or next((part.error for part in parts if part.error), None)
        if failed is None:
            for part in parts:
                if self.ends.get(part.partition) == part.offset:
                    self.forget(part.partition)
            return
        self._health.count(failed.name())
        if failed.code() in LATER:
            self.postponed, self._since = True, 0.0
        elif failed.code() not in GONE:
            self.failed = failed.str()

    def forget(self, partition: int) -> None:
        """The broker knows what is done of it, or another does it again."""
        self.ends.pop(partition, None)
        if not self.ends:
            self._since = 0.0

    def now(self, consumer: Consumer, partitions: Collection[int]) -> None:
        """Says what is done of `partitions` and waits for the answer. Raises nothing, for it is called by the client
        too, which would pass that on from wherever it was called."""
        ends = {partition: end for partition, end in self.ends.items() if partition in partitions}
        if not ends:
            return
        self.postponed = False
        try:
            self.answered(None, consumer.commit(offsets=self._offsets(ends), asynchronous=False))
        except KafkaException as error:
            self.answered(error.args[0], ())

    def require(self) -> None:
        """`ConnectionFailed` when the broker takes what is done no more, or says nothing for long."""
        if self._since and time.monotonic() - self._since > LOST_SECONDS:
            self.failed = self.failed or f"no answer in {LOST_SECONDS:g} s"
        if self.failed:
            raise ConnectionFailed(f"{place(self._queue)}: offsets not committed: {self.failed}")

    def _offsets(self, ends: Mapping[int, int]) -> list[TopicPartition]:
        return [TopicPartition(self._queue.topic, partition, offset) for partition, offset in ends.items()]


def behind(consumer: Consumer, topic: str, places: Mapping[int, int]) -> int:
    """How many messages of `topic` are beyond `places` (partition → offset), by what the client heard last.

    Asks nobody; `position` and `assignment` of a client wait for seconds while its group finds itself.
    """
    total = 0
    for partition, reached in places.items():
        found = consumer.get_watermark_offsets(TopicPartition(topic, partition), cached=True)
        if found and found[1] >= 0:
            total += max(0, found[1] - max(reached, found[0]))
    return total
