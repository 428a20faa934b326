"""A Kafka that answers with errors, and late: each of those that pass by is waited out, and counted (R4)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from confluent_kafka import Consumer, TopicPartition

from packer_lib.runtime.connectors.kafka import Kafka
from packer_lib.runtime.contract import ALONE, ConnectionFailed, Message, Source
from packer_lib.runtime.manifest import QueueSpec
from tests.contract.connectors import fresh, take
from tests.runtime.workers import Worker, running
from tests.stream_faults.extent import FULL, full
from tests.stream_faults.flow import IN, SESSION, SLOW, Flow, unit
from tests.stream_faults.ledger import Ledger
from tests.stream_faults.mock_cluster import Mock, mock
from tests.stream_faults.outside import feed, reading, settle
from tests.support import wait_for

pytestmark = [pytest.mark.broker, pytest.mark.timeout(600)]

MESSAGES = full(5000, 600)
BATCH = 50
ERRORS = {  # name in Kafka's protocol → its code, and the requests that it is an answer to
    "NOT_LEADER_OR_FOLLOWER": (6, ("Produce", "Fetch")),
    "REQUEST_TIMED_OUT": (7, ("Produce",)),
    "COORDINATOR_NOT_AVAILABLE": (15, ("OffsetCommit", "JoinGroup")),
    "NOT_COORDINATOR": (16, ("OffsetCommit", "JoinGroup", "Heartbeat")),
    "UNKNOWN_MEMBER_ID": (25, ("OffsetCommit", "JoinGroup", "Heartbeat")),
    "REBALANCE_IN_PROGRESS": (27, ("OffsetCommit", "Heartbeat")),
}
ILLEGAL_GENERATION = 22
LATE_MS = 2000
FORBIDDEN = 29  # TOPIC_AUTHORIZATION_FAILED
CASES = [(api, error, code) for error, (code, apis) in ERRORS.items() for api in apis]
SHORT = {("OffsetCommit", "NOT_COORDINATOR")}


def queue(cluster: Mock, name: str, **options: object) -> QueueSpec:
    found = QueueSpec(name, "kafka", "127.0.0.1", cluster.port, fresh(), options or SESSION)
    cluster.tell("topic", found.topic, 1)
    return found


@pytest.mark.parametrize(("api", "error", "code"), [case for case in CASES if full(True, case[:2] in SHORT)])
def test_an_error_that_passes_by_costs_no_message(api: str, error: str, code: int, tmp_path: Path) -> None:
    """The reader comes afterwards, so that nobody else is given the errors."""
    with mock() as cluster:
        source, sink = queue(cluster, "in"), queue(cluster, "out")
        ledger = Ledger()
        writer = feed(source, ledger)
        for _ in range(MESSAGES):
            writer.send()
        settle(ledger)
        writer.close()
        if api == "JoinGroup":
            cluster.tell("errors", api, code, 3)
        with running(unit(tmp_path, source, sink, SLOW, max_batch=BATCH)) as worker:
            worker.wait_ready()
            wait_for(lambda: worker.metric(IN) > 0, 60, f"it begins: {worker.log}")
            for _ in range(3):
                cluster.tell("errors", api, code, 3)
                _goes_on(worker, worker.metric(IN))
            wait_for(lambda: worker.metric('mlpacker_lag{queue="in"}') == 0, 90, f"all is done: {worker.log}")
            with reading(sink, lambda value, _headers: ledger.deliver(value)):
                flow = Flow("kafka → kafka", ledger, writer, worker)
                counted = _counted(worker.ask("/metrics")[1])
                verdict = flow.conclude(f"{error} to {api}", f"counted: {counted or 'client repeats it'}")
            assert worker.process is not None
            assert worker.process.poll() is None
            assert verdict.doubled <= 500, "each of nine costs the batch in hand, and no more"


def _goes_on(worker: Worker, taken: float) -> None:
    wait_for(lambda: worker.metric(IN) > taken or taken >= MESSAGES, 60, f"it goes on: {worker.log}")


def _counted(metrics: str) -> str:
    found = [line for line in metrics.splitlines() if line.startswith("mlpacker_broker_errors_total{")]
    return ", ".join(line.partition("error=")[2].partition(",")[0].strip('"}') for line in found)


@pytest.fixture
def given() -> Iterator[Given]:
    """Twenty messages, in the hands of a source."""
    with mock() as cluster:
        read, name = queue(cluster, "in"), f"mlpacker.test.{fresh()}"
        _fill(read, 20)
        source = Kafka.source(read, name)
        source.connect()
        yield Given(cluster, read, name, source, take(source, 20))
        source.close()


class Given(NamedTuple):
    cluster: Mock
    queue: QueueSpec
    group: str
    source: Source
    messages: list[Message]


def test_who_leaves_while_its_group_finds_itself_leaves_nothing_undone(given: Given) -> None:
    """What was acknowledged in a rebalance, which forbids commits, does not come again after a stop."""
    given.cluster.tell("errors", "OffsetCommit", ERRORS["REBALANCE_IN_PROGRESS"][0], 3)
    given.source.ack(given.messages[:12])
    given.source.close()
    given.source.connect()
    assert [message.value for message in take(given.source, 8)] == [message.value for message in given.messages[12:]]


def test_what_a_rebalance_left_uncommitted_is_committed_without_another_message(given: Given) -> None:
    """Whoever is killed a while after the last message leaves nothing to do again."""
    given.cluster.tell("errors", "OffsetCommit", ERRORS["REBALANCE_IN_PROGRESS"][0], 3)
    given.source.ack(given.messages)
    wait_for(lambda: not given.source.consume(10, 0.2) and _committed(given.queue, given.group) == 20, 20, "committed")


def test_who_leaves_and_cannot_say_what_is_done_leaves_in_order(given: Given) -> None:
    given.cluster.tell("errors", "OffsetCommit", FORBIDDEN, 100)
    given.source.ack(given.messages)
    given.source.close()
    given.cluster.tell("clear", "OffsetCommit")
    given.source.connect()
    assert len(take(given.source, 20)) == 20


def test_nothing_more_is_begun_while_the_broker_does_not_say_whether_it_knows_what_is_done(given: Given) -> None:
    """All of it would come again if it never heard of it."""
    _fill(given.queue, 20)
    time.sleep(2)  # the client has fetched them
    given.cluster.tell("rtt", 1000)
    given.source.ack(given.messages)
    assert given.source.consume(10, 0.3) == []
    given.cluster.tell("rtt", 0)
    assert len(take(given.source, 20)) == 20


def test_what_was_held_back_when_its_group_forgot_the_member_comes_when_it_is_known_again(given: Given) -> None:
    """Nothing more is taken while the broker does not know the member, and all of it afterwards."""
    for request in ("OffsetCommit", "Heartbeat"):
        given.cluster.tell("errors", request, ERRORS["UNKNOWN_MEMBER_ID"][0], 2)
    given.source.ack(given.messages)
    assert given.source.consume(10, 0.3) == []
    assert [message.value for message in take(given.source, 20)] == [message.value for message in given.messages]


def test_who_leaves_with_a_transaction_that_the_broker_refused_leaves_in_order() -> None:
    with mock() as cluster:
        read, written, name = queue(cluster, "in"), queue(cluster, "out"), f"mlpacker.test.{fresh()}"
        _fill(read, 20)
        sources, sinks = Kafka.once([read], [written], name, ALONE)
        source, sink = sources["in"], sinks["out"]
        sink.connect()
        source.connect()
        messages = take(source, 20)
        sink.produce(messages)
        sink.flush(10)
        source.ack(messages)
        cluster.tell("errors", "TxnOffsetCommit", ILLEGAL_GENERATION, 1)
        with pytest.raises(ConnectionFailed, match="generation"):
            source.consume(10, 0)
        source.close()
        sink.close()
        source.connect()
        assert len(take(source, 20)) == 20
        source.close()


def _fill(queue: QueueSpec, count: int) -> None:
    ledger = Ledger()
    writer = feed(queue, ledger)
    for _ in range(count):
        writer.send()
    settle(ledger)
    writer.close()


def _committed(queue: QueueSpec, group: str) -> int:
    reader = Consumer({"bootstrap.servers": f"{queue.server}:{queue.port}", "group.id": group})
    try:
        return reader.committed([TopicPartition(queue.topic, 0)], timeout=5)[0].offset
    finally:
        reader.close()


def test_an_error_that_stays_is_said_and_costs_no_message_when_it_goes(tmp_path: Path) -> None:
    """A topic that may not be written: nothing is gained by ending for it, and whoever watches is told why."""
    with mock() as cluster:
        source, sink, ledger = queue(cluster, "in"), queue(cluster, "out"), Ledger()
        writer = feed(source, ledger)
        for _ in range(100):
            writer.send()
        settle(ledger)
        writer.close()
        cluster.tell("errors", "Produce", FORBIDDEN, 10_000)
        with running(unit(tmp_path, source, sink)) as worker:
            wait_for(lambda: "authorization" in (worker.ask("/readyz")[1] or {}).get("reason", ""), 60, worker.log)
            assert worker.ask("/livez")[0] == 200
            cluster.tell("clear", "Produce")
            with reading(sink, lambda value, _headers: ledger.deliver(value)):
                flow = Flow("kafka → kafka", ledger, writer, worker)
                flow.conclude("TOPIC_AUTHORIZATION_FAILED to Produce, for a while", "unready, with the reason; goes on")
            assert "TOPIC_AUTHORIZATION_FAILED" in _counted(worker.ask("/metrics")[1])


@pytest.mark.skipif(not FULL, reason="a minute or more; make stream-faults does it")
def test_a_broker_that_answers_late_costs_time_only(tmp_path: Path) -> None:
    with mock() as cluster:
        patient = {"config": {"session.timeout.ms": 30_000}}
        source, sink = queue(cluster, "in", **patient), queue(cluster, "out", **patient)
        ledger = Ledger()
        with (
            reading(sink, lambda value, _headers: ledger.deliver(value)),
            running(unit(tmp_path, source, sink)) as worker,
        ):
            worker.wait_ready()
            writer = feed(source, ledger)
            cluster.tell("rtt", LATE_MS)
            flow = Flow("kafka → kafka", ledger, writer, worker)
            flow.send(200)
            verdict = flow.conclude(f"every answer takes {LATE_MS} ms", "slow, and all of it", 200)
            assert verdict.doubled == 0
            writer.close()
