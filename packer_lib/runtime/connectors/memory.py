"""The reference connector: topics inside this process. Tests and other connectors are measured against what it does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import Condition

from ..contract import ALONE, Message, Replica, Sink, Source
from ..manifest import QueueSpec


@dataclass(slots=True)
class Topic:
    """A log that only grows, and per consumer name how far it is acknowledged."""

    log: list[Message] = field(default_factory=list)
    acked: dict[str, int] = field(default_factory=dict)
    changed: Condition = field(default_factory=Condition)


TOPICS: dict[tuple[str, int, str], Topic] = {}


def topic(queue: QueueSpec) -> Topic:
    """The topic behind `queue`, made on first use; one per server, port and topic name."""
    return TOPICS.setdefault((queue.server, queue.port, queue.topic), Topic())


class Memory:
    """Every connector is told who it works for, also where that says nothing to it."""

    @staticmethod
    def source(queue: QueueSpec, name: str, replica: Replica = ALONE) -> Source:  # noqa: ARG004
        return MemorySource(topic(queue), name)

    @staticmethod
    def sink(queue: QueueSpec, name: str, replica: Replica = ALONE) -> Sink:  # noqa: ARG004
        return MemorySink(topic(queue))


class MemorySource(Source):
    """Reads from the last acknowledged place of its name; key and headers survive, order is that of production."""

    def __init__(self, topic: Topic, name: str) -> None:
        self._topic, self._name, self._next = topic, name, 0

    def connect(self) -> None:
        self._next = self._topic.acked.get(self._name, 0)

    def consume(self, max_items: int, timeout: float) -> list[Message]:
        with self._topic.changed:
            self._topic.changed.wait_for(lambda: len(self._topic.log) > self._next, timeout)
            found = self._topic.log[self._next : self._next + max_items]
        messages = [
            Message(item.value, item.key, dict(item.headers), f"memory@{self._next + index}", self._next + index)
            for index, item in enumerate(found)
        ]
        self._next += len(messages)
        return messages

    def ack(self, messages: Sequence[Message]) -> None:
        if messages:
            self._topic.acked[self._name] = messages[-1].token + 1

    def lag(self) -> int:
        return len(self._topic.log) - self._next

    def close(self) -> None:
        """Nothing is held open: what was not acknowledged is read again after `connect`."""


class MemorySink(Sink):
    def __init__(self, topic: Topic) -> None:
        self._topic = topic

    def connect(self) -> None:
        """There is nothing to reach."""

    def produce(self, messages: Sequence[Message]) -> None:
        with self._topic.changed:
            self._topic.log.extend(Message(item.value, item.key, dict(item.headers)) for item in messages)
            self._topic.changed.notify_all()

    def flush(self, timeout: float) -> None:
        """`produce` was the delivery."""

    def close(self) -> None:
        """Nothing is held open."""
