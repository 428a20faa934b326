"""Replicas of one unit share its work: who joins, leaves or comes back in order loses and doubles nothing."""

from __future__ import annotations

import json
import signal
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from packer_lib.runtime.connectors.kafka import Kafka
from packer_lib.runtime.connectors.mqtt import Mqtt
from packer_lib.runtime.contract import Message, Replica, Source
from packer_lib.runtime.manifest import LEFT, QueueSpec
from tests.contract.connectors import fresh, take
from tests.lab.brokers import Broker
from tests.runtime.test_streams import on, passing, put, reading, writing
from tests.runtime.workers import Worker, running
from tests.support import wait_for

pytestmark = pytest.mark.broker

SHORT = {"config": {"session.timeout.ms": 6000, "max.poll.interval.ms": 6000}}
IN = 'mlpacker_messages_in_total{queue="in"}'


def spread(broker: Broker, name: str, partitions: int, **options: Any) -> QueueSpec:
    queue = QueueSpec(name, "kafka", broker.host, broker.port, fresh(), options)
    admin = AdminClient({"bootstrap.servers": broker.address})
    admin.create_topics([NewTopic(queue.topic, partitions)])[queue.topic].result(10)
    return queue


class Replicas:
    """The processes of the unit in `folder`, by number."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder, self.stack = folder, stack
        self.workers: dict[int, Worker] = {}

    def start(self, number: int, of: int) -> Worker:
        told = {"MLPACKER_REPLICA": str(number), "MLPACKER_REPLICAS": str(of)}
        worker = self.workers[number] = self.stack.enter_context(running(self.folder, **told))
        worker.wait_ready()
        return worker

    def stop(self, number: int, how: signal.Signals = signal.SIGTERM) -> None:
        worker = self.workers.pop(number)
        assert worker.signal(how) == (LEFT if how == signal.SIGUSR1 else 0), worker.log[-3000:]


@pytest.mark.timeout(180)
@pytest.mark.parametrize("kind", ["kafka once", "mqtt"])
def test_joining_and_leaving_in_order_loses_and_doubles_nothing(
    kind: str, tmp_path: Path, mosquitto: Broker, kafka: Broker
) -> None:
    if kind == "mqtt":
        source, sink = on(mosquitto, "in"), on(mosquitto, "out")
    else:
        source, sink = spread(kafka, "in", 4), on(kafka, "out")
    once = {"delivery": "exactly_once"} if "once" in kind else {}
    folder = passing(tmp_path, source, sink, max_batch=20, **once)
    sent, got = 0, []

    with ExitStack() as stack:
        reader = stack.enter_context(reading(sink))
        replicas = Replicas(folder, stack)

        def flow(count: int = 300) -> None:
            nonlocal sent
            put(source, range(sent, sent + count))
            sent += count
            time.sleep(0.3)

        def gather() -> bool:
            batch = reader.consume(1000, 0.2)
            reader.ack(batch)
            got.extend(json.loads(message.value)["n"] for message in batch)
            return len(set(got)) == sent

        replicas.start(0, 3)
        flow()
        replicas.start(1, 3)
        flow()
        replicas.start(2, 3)
        flow()
        replicas.stop(1)  # and it comes back, as in a release
        flow()
        replicas.start(1, 3)
        flow()
        replicas.stop(2, signal.SIGUSR1)  # and it does not
        flow()
        wait_for(gather, 60, f"{len(set(got))} of {sent} messages")
        time.sleep(1)
        gather()
        shares = {number: worker.metric(IN) for number, worker in replicas.workers.items()}
        for number in (0, 1):
            replicas.stop(number)
    counts = Counter(got)
    print(f"{kind}: {sent} sent, lost {sent - len(counts)}, doubled {len(got) - len(counts)}; taken at last {shares}")
    assert counts == Counter(range(sent))
    assert all(shares.values()), "each has its share"


def taken(source: Source) -> list[int]:
    """The numbers of all that comes until nothing comes for a second; acknowledged."""
    got: list[int] = []
    while batch := source.consume(1000, 1):
        source.ack(batch)
        got += [int(message.key or b"") for message in batch]
    return got


def test_the_first_replica_goes_on_in_the_session_of_the_unit_that_was_alone(mosquitto: Broker) -> None:
    queue, name = on(mosquitto, "in"), f"mlpacker.{fresh()}.unit"
    alone = Mqtt.source(queue, name)
    alone.connect()
    alone.close()
    put(queue, range(3))  # while it is away
    first, second = (Mqtt.source(queue, name, Replica(number, 2)) for number in range(2))
    first.connect()
    second.connect()
    kept = take(first, 3)
    first.ack(kept)
    put(queue, range(3, 103))
    got = [message for source in (first, second, first, second) for message in taken(source)]
    assert sorted(got) == list(range(3, 103))
    first.close()
    second.close()


def test_back_to_one_process_no_message_comes_by_both_subscriptions(mosquitto: Broker) -> None:
    queue, name = on(mosquitto, "in"), f"mlpacker.{fresh()}.unit"
    first = Mqtt.source(queue, name, Replica(0, 2))
    first.connect()
    first.close()
    alone = Mqtt.source(queue, name)
    alone.connect()
    time.sleep(0.2)
    put(queue, range(10))
    got = take(alone, 10)
    assert alone.consume(10, 1) == []
    alone.ack(got)
    alone.close()


def test_a_replica_that_retires_gets_nothing_more_and_leaves_nothing_behind(mosquitto: Broker) -> None:
    queue, name = on(mosquitto, "in"), f"mlpacker.{fresh()}.unit"
    first, second = (Mqtt.source(queue, name, Replica(number, 2)) for number in range(2))
    first.connect()
    second.connect()
    put(queue, range(100))
    wait_for(lambda: first.lag() + second.lag() == 100)
    assert second.retire()
    mine = take(second, second.lag())
    assert len(mine) > 10
    second.ack(mine)
    put(queue, range(100, 200))
    assert second.consume(10, 1) == []
    second.close()
    rest = take(first, 200 - len(mine))
    assert {message.key for message in [*mine, *rest]} == {b"%d" % number for number in range(200)}
    first.ack(rest)
    first.close()


LONG = """\
import time
def handler(value):
    if value["n"] == 5:
        time.sleep(18)
    return value
"""


def test_a_handler_three_times_as_long_as_a_poll_may_take_keeps_its_place_in_the_group(
    tmp_path: Path, kafka: Broker
) -> None:
    source, sink = spread(kafka, "in", 2, **SHORT), on(kafka, "out")
    folder = passing(tmp_path, source, sink, LONG, max_batch=10)
    with reading(sink) as reader, running(folder) as worker:
        worker.wait_ready()
        put(source, range(200))
        started = time.monotonic()
        got = [json.loads(message.value)["n"] for message in take(reader, 200, acknowledge=True)]
        took = time.monotonic() - started
        assert sorted(got) == list(range(200))
        assert reader.consume(10, 2) == []
        assert took > 17
        assert worker.metric('mlpacker_reconnects_total{queue="in"}') == 0
        assert worker.signal(signal.SIGTERM) == 0


def test_who_joins_in_a_long_batch_waits_for_its_end(kafka: Broker) -> None:
    queue, name = spread(kafka, "in", 4, **SHORT), f"mlpacker.{fresh()}.unit"
    first, second = (Kafka.source(queue, name, Replica(number, 2)) for number in range(2))
    first.connect()
    with writing(queue):
        put(queue, range(100))
    mine = take(first, 100)
    second.connect()
    theirs = []
    started = time.monotonic()
    while time.monotonic() - started < 3.5:  # longer than the keeper waits, and shorter than it gives a batch
        theirs += second.consume(100, 0.2)
    first.ack(mine)
    put(queue, range(100, 200))
    more: list[Any] = []

    def all_there() -> bool:
        for source in (first, second):
            batch = source.consume(100, 0.2)
            source.ack(batch)
            more.extend(batch)
        return len(more) >= 100

    wait_for(all_there, 30)
    assert theirs == []
    assert sorted(int(message.key) for message in more) == list(range(100, 200))
    for source in (first, second):
        source.close()


def test_lag_is_what_waits_beyond_what_is_done(kafka: Broker) -> None:
    queue, name = on(kafka, "in"), f"mlpacker.{fresh()}.unit"
    source = Kafka.source(queue, name)
    source.connect()
    put(queue, range(50))
    source.ack(take(source, 20))
    rest: list[Message] = []

    def lag_is(expected: int) -> bool:
        rest.extend(source.consume(1, 0.3))
        return source.lag() == expected

    wait_for(lambda: lag_is(30), 10, "30 are behind")
    source.ack(rest)
    source.ack(take(source, 30 - len(rest)))
    wait_for(lambda: lag_is(0), 10, "none is")
    source.close()
    assert source.lag() == 0
    put(queue, range(7))
    source.connect()
    rest += take(source, 1)
    time.sleep(1)
    rest += source.consume(1, 1)
    assert source.lag() == 7, "as many came while it was away, and none is done"
    source.close()
