"""New models for units that run on real brokers, under a steady load: nothing lost, nothing doubled, each answer by the
model that its header names; and processes that are killed on the way.

`MLPACKER_SWAPS=50 pytest -m slow` is the long version.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import joblib
import pytest

from packer_lib.runtime.contract import MODEL, Message, Source
from packer_lib.runtime.manifest import QueueSpec
from tests.contract.connectors import fresh
from tests.lab.brokers import Broker
from tests.runtime.handmade import model_step
from tests.runtime.swapping import APART, Deadly, Deployer, Slow, digest, line
from tests.runtime.test_replicas import Replicas, spread
from tests.runtime.test_streams import brief, on, reading, writing
from tests.runtime.workers import running, write_unit
from tests.support import wait_for

pytestmark = pytest.mark.broker

LIVE = 'mlpacker_swaps_total{result="live",step="model"}'
REFUSED = 'mlpacker_swaps_total{result="refused",step="model"}'


@dataclass
class Load:
    """A thread that sends {"data": [n], "n": n} steadily, and what came of it, in the order in which it came."""

    source: QueueSpec
    reader: Source
    every: float = 0.01
    size: int = 20
    sent: int = 0
    got: list[Message] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def send(self) -> None:
        with writing(self.source) as sink:
            while not self.stop.wait(self.every):
                numbers = range(self.sent, self.sent + self.size)
                sink.produce([Message(b'{"data": [%d], "n": %d}' % (n, n), b"%d" % n) for n in numbers])
                sink.flush(30)
                self.sent += self.size

    def gather(self) -> bool:
        batch = self.reader.consume(1000, 0.2)
        self.reader.ack(batch)
        self.got += batch
        return bool(batch)

    def settle(self) -> list[tuple[int, int, bytes]]:
        """Number, version of the model and header of all that came, once it is all there and nothing comes any more."""
        self.stop.set()
        wait_for(lambda: not self.gather() and len({m.key for m in self.got}) >= self.sent, 60, f"of {self.sent} all")
        return [told(message) for message in self.got]


def told(message: Message) -> tuple[int, int, bytes]:
    value = json.loads(message.value)
    number, answer = value["n"], round(value["prediction"])
    assert answer % APART == number
    return number, answer // APART, message.headers[MODEL]


@contextmanager
def loaded(source: QueueSpec, sink: QueueSpec, **how: float) -> Iterator[Load]:
    with reading(sink) as reader:
        load = Load(source, reader, **how)
        thread = threading.Thread(target=load.send)
        thread.start()
        try:
            yield load
        finally:
            load.stop.set()
            thread.join(30)


def unit_of(folder: Path, source: QueueSpec, sink: QueueSpec, **props: object) -> str:
    """A unit of one model, number 0; its sha256."""
    spec = model_step(folder, line(0), inputs=(source.id,), outputs=(sink.id,), **{"max_batch": 50, **props})
    spec = replace(spec, sha256=digest(folder / spec.path))
    write_unit(folder, spec, queues=(source, sink), pipeline=fresh())
    return spec.sha256


def ends(kind: str, mosquitto: Broker, kafka: Broker) -> tuple[QueueSpec, QueueSpec]:
    if kind == "mqtt":
        return on(mosquitto, "in"), on(mosquitto, "out")
    return spread(kafka, "in", 4), on(kafka, "out")


def swapping(kind: str, folder: Path, source: QueueSpec, sink: QueueSpec, swaps: int) -> None:
    """`swaps` changes under load, every third after one that is refused; then everything is counted."""
    once = {"delivery": "exactly_once"} if "once" in kind else {}
    replicas = 2 if "two" in kind else 1
    marks = {0: unit_of(folder, source, sink, **once)}
    deployer = Deployer(folder / ".mlpacker-state", folder / "new")
    seconds: list[float] = []
    with ExitStack() as stack:
        workers = Replicas(folder, stack)
        for number in range(replicas):
            workers.start(number, replicas)
        with loaded(source, sink) as load:
            wait_for(lambda: load.gather() and load.got, 30, "answers")
            for number in range(1, swaps + 1):
                if number % 3 == 0:
                    refuse(deployer, number)
                staged = deployer.stage(line(number))
                marks[number] = staged["sha256"]
                started = time.monotonic()
                wish = deployer.want(staged)
                for replica in range(replicas):
                    answer = deployer.answer(wish, replica=replica)
                    assert (answer["state"], answer["reason"]) == ("live", "")
                seconds.append(time.monotonic() - started)
                wait_for(
                    lambda n=number: load.gather() and told(load.got[-1])[1] == n, 30, f"answers of model {number}"
                )
            got = load.settle()
        for worker in workers.workers.values():
            assert worker.ask("/info")[1]["models"][0]["sha256"] == marks[swaps]
            assert worker.metric(LIVE) == swaps
            assert replicas > 1 or worker.metric(REFUSED) == swaps // 3
        for number in range(replicas):
            workers.stop(number)
    judge(kind, got, load.sent, marks, places(source) if source.connector == "kafka" else {})
    worst, median = sorted(seconds)[-1], sorted(seconds)[swaps // 2]
    print(f"{kind}: {swaps} swaps, {swaps // 3} refused, median {median:.2f} s, worst {worst:.2f} s")


def refuse(deployer: Deployer, number: int) -> None:
    wrong = [(line(99, features=2), {}), (line(99), {"cut": 90}), (line(99), {"sha256": "ab" * 32})]
    model, how = wrong[number // 3 % 3]
    assert deployer.swap(model, **how)["state"] == "refused"


def places(source: QueueSpec) -> dict[int, str]:
    """In which partition each message was."""
    found: dict[int, str] = {}
    with reading(source) as reader:
        while batch := reader.consume(1000, 3):
            found |= {int(message.key or b""): message.position.partition("@")[0] for message in batch}
    return found


def judge(
    kind: str, got: list[tuple[int, int, bytes]], sent: int, marks: dict[int, str], places: dict[int, str]
) -> None:
    counts = Counter(number for number, _, _ in got)
    print(f"{kind}: {sent} sent, lost {sent - len(counts)}, doubled {len(got) - len(counts)}")
    assert counts == Counter(range(sent))
    for number, version, header in got:
        assert header == f"model={marks[version][:12]}".encode(), f"message {number}"
    for place in set(places.values()) or {""}:
        versions = [version for number, version, _ in got if places.get(number, "") == place]
        assert versions == sorted(versions), f"{place}: a model that was replaced answers nothing any more"
    assert {version for _, version, _ in got} == set(marks), "each of them has answered"


@pytest.mark.timeout(180)
@pytest.mark.parametrize("kind", ["kafka", "mqtt"])
def test_ten_swaps_under_load_lose_and_double_nothing(
    kind: str, tmp_path: Path, mosquitto: Broker, kafka: Broker
) -> None:
    swapping(kind, tmp_path, *ends(kind, mosquitto, kafka), 10)


@pytest.mark.slow
@pytest.mark.skipif("MLPACKER_SWAPS" not in os.environ, reason="long: make swaps")
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", ["kafka", "kafka once", "kafka two", "mqtt"])
def test_many_swaps_under_load_lose_and_double_nothing(
    kind: str, tmp_path: Path, mosquitto: Broker, kafka: Broker
) -> None:
    swapping(kind, tmp_path, *ends(kind, mosquitto, kafka), int(os.environ["MLPACKER_SWAPS"]))


def test_a_unit_killed_in_a_swap_and_after_it_comes_back_with_the_wanted_model(tmp_path: Path, kafka: Broker) -> None:
    source, sink = brief(spread(kafka, "in", 2)), on(kafka, "out")
    own = unit_of(tmp_path, source, sink)
    deployer = Deployer(tmp_path / ".mlpacker-state", tmp_path / "new")
    plain = tmp_path / "plain.joblib"
    joblib.dump(line(1), plain)
    model = deployer.stage(Slow(plain, 2))
    with reading(sink) as reader:
        with running(tmp_path) as first:
            first.wait_ready()
            put_data(source, range(100))
            wish = deployer.want(model)
            wait_for((deployer.state / "trying.0.json").exists, 10, "it loads the new model")
            wait_for(lambda: first.metric('mlpacker_messages_out_total{queue="out"}') == 100, 20, "all answers")
            assert not (deployer.state / "swapped.0.json").exists()
            first.signal(signal.SIGKILL)
        with running(tmp_path) as second:
            assert deployer.answer(wish)["models"] == {"model": model["sha256"]}
            put_data(source, range(100, 200))
            second.wait_ready()
            wait_for(lambda: second.metric('mlpacker_messages_out_total{queue="out"}') == 100, 30, "all answers")
            second.signal(signal.SIGKILL)
        with running(tmp_path) as third:
            put_data(source, range(200, 300))
            got = [told(message) for message in take_all(reader, 300)]
            assert third.ask("/info")[1]["models"][0]["sha256"] == model["sha256"]
            assert third.metric(f'mlpacker_model{{sha256="{own}",step="model",version="{own[:12]}"}}') == 0
            assert third.signal(signal.SIGTERM) == 0
    assert [version for number, version, _ in sorted(got)] == [0] * 100 + [1] * 200


@pytest.mark.slow
def test_a_model_that_kills_its_process_is_given_up_and_the_bundles_own_answers(tmp_path: Path, kafka: Broker) -> None:
    source, sink = brief(spread(kafka, "in", 1)), on(kafka, "out")
    unit_of(tmp_path, source, sink)
    deployer = Deployer(tmp_path / ".mlpacker-state", tmp_path / "new")
    ends: list[int] = []
    with running(tmp_path) as first:
        first.wait_ready()
        wish = deployer.want(deployer.stage(Deadly()))
        ends.append(first.wait())
    for _ in range(2):
        with running(tmp_path) as worker:
            ends.append(worker.wait())
    with reading(sink) as reader, running(tmp_path) as last:
        assert deployer.answer(wish)["reason"] == "the process died each of the 3 times that it was loaded"
        put_data(source, range(10))
        assert {told(message)[1] for message in take_all(reader, 10)} == {0}
        assert last.signal(signal.SIGTERM) == 0
    assert ends == [9, 9, 9]


def put_data(queue: QueueSpec, numbers: range) -> None:
    with writing(queue) as sink:
        sink.produce([Message(b'{"data": [%d], "n": %d}' % (n, n), b"%d" % n) for n in numbers])
        sink.flush(30)


def take_all(reader: Source, count: int) -> list[Message]:
    got: list[Message] = []

    def all_there() -> bool:
        batch = reader.consume(1000, 0.2)
        reader.ack(batch)
        got.extend(batch)
        return len(got) >= count

    wait_for(all_there, 60, f"{count} answers")
    assert not reader.consume(10, 1)
    return got
