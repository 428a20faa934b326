"""What a Kafka source holds for later when its partitions go to another, in whatever moment that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from confluent_kafka import TopicPartition

from packer_lib.runtime.connectors.kafka import KafkaSource
from packer_lib.runtime.contract import ALONE
from packer_lib.runtime.manifest import QueueSpec

QUEUE = QueueSpec("q", "kafka", "127.0.0.1", 1, "t")


@dataclass(frozen=True)
class Item:
    number: int

    def partition(self) -> int:
        return self.number


class Turning:
    """A client that gives `items`, and takes `gone` away while it is asked."""

    def __init__(self, source: KafkaSource, items: Sequence[int], gone: Sequence[int]) -> None:
        self.source, self.items, self.gone = source, items, gone

    def consume(self, _most: int, _timeout: float) -> list[Item]:
        self.source._lost(Any, [TopicPartition("t", partition) for partition in self.gone])  # type: ignore[arg-type]
        return [Item(number) for number in self.items]


@pytest.mark.parametrize(
    ("most", "items", "gone", "kept"),
    [
        (1, [1], [0], [1]),
        (1, [0], [0], [0]),  # it has come back by then
        (10, [0, 1, 0], [0], [1]),
        (10, [], [0], []),
    ],
)
def test_nothing_of_a_partition_that_went_is_held_for_later(
    most: int, items: list[int], gone: list[int], kept: list[int]
) -> None:
    source = KafkaSource(QUEUE, "mlpacker.turning", ALONE)
    source._owned = {0, 1}
    source._early = [Item(0), Item(0)]
    source._poll(Turning(source, items, gone), most, 0)  # type: ignore[arg-type]
    assert [item.partition() for item in source._early] == kept
