"""The engine on the memory connector: batches, fates, and what happens when an end fails."""

from __future__ import annotations

import json
import logging
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from packer_lib.runtime import engine as engines
from packer_lib.runtime.batch import Batches
from packer_lib.runtime.chain import Chain
from packer_lib.runtime.connectors.memory import Memory, MemorySink, MemorySource, topic
from packer_lib.runtime.contract import ConnectionFailed, DeliveryFailed, Message, MessageRefused, Sink
from packer_lib.runtime.engine import Engine, Rarely, Stopped
from packer_lib.runtime.logs import OneLine
from packer_lib.runtime.manifest import Manifest, QueueSpec, StepSpec
from packer_lib.runtime.probes import State
from tests.contract.connectors import fresh
from tests.runtime.handmade import code_step
from tests.support import wait_for

PASS = "def handler(value):\n    return value\n"
PICKY = "def handler(value):\n    if value == 'bad':\n        raise ValueError('no such speed')\n    return value\n"


class Unit:
    """One unit on memory queues, each named as its id; `run` moves what is there and stops."""

    def __init__(
        self,
        folder: Path,
        *steps: StepSpec,
        plug: Callable[[QueueSpec], Any] = engines.plug,
        schemas: dict[str, Any] | None = None,
    ) -> None:
        ids = {name for step in steps for name in (*step.inputs, *step.outputs, step.dead_letter)}
        names = {step.name for step in steps} | {""}
        place = fresh()
        self.queues = {
            name: QueueSpec(name, "memory", place, 0, name, schema=(schemas or {}).get(name)) for name in ids - names
        }
        self.manifest = Manifest("plant", steps[0].name, "stream", steps, self.queues)
        self.chain = Chain(self.manifest, folder)
        self.chain.load()
        self.state = State()
        self.engine = Engine(self.manifest, Batches(self.manifest, self.chain), self.state, plug)

    def put(self, queue: str, *values: Any) -> None:
        messages = [value if isinstance(value, Message) else Message(json.dumps(value).encode()) for value in values]
        MemorySink(topic(self.queues[queue])).produce(messages)

    def got(self, queue: str) -> list[Any]:
        return [json.loads(message.value) for message in topic(self.queues[queue]).log]

    def acked(self, queue: str) -> int:
        return topic(self.queues[queue]).acked.get(f"mlpacker.plant.{self.manifest.unit}", 0)

    @contextmanager
    def running(self) -> Iterator[None]:
        """The engine in a thread; stopped, joined and its failure raised at the end."""
        failures: list[BaseException] = []

        def run() -> None:
            try:
                self.engine.run()
            except BaseException as error:
                failures.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            self.state.stop.set()
            thread.join(10)
            assert not thread.is_alive()
            self.chain.close()
        if failures:
            raise failures[0]

    def run(self, queue: str = "in") -> None:
        """Until everything in `queue` is acknowledged or the unit has stopped."""
        with self.running():
            wait_for(lambda: self.acked(queue) == len(topic(self.queues[queue]).log) or self.state.reason == "stopping")


@pytest.fixture(autouse=True)
def same_path() -> Iterator[None]:
    path = list(sys.path)
    yield
    sys.path[:] = path


def step(folder: Path, name: str = "only", text: str = PASS, **props: Any) -> StepSpec:
    return code_step(folder, name, text, **{"inputs": ("in",), "outputs": ("out",), **props})


def test_a_batch_goes_through_all_steps_and_is_acknowledged(tmp_path: Path) -> None:
    first = step(tmp_path, "first", "def handler(value):\n    return value + 1\n", outputs=("second",))
    second = step(tmp_path, "second", "def handler(value):\n    return value * 10\n", inputs=("first",))
    unit = Unit(tmp_path, first, second)
    unit.put("in", *range(100))
    unit.run()
    assert unit.got("out") == [(number + 1) * 10 for number in range(100)]
    assert unit.acked("in") == 100


def test_key_and_headers_travel_from_input_to_output(tmp_path: Path) -> None:
    unit = Unit(tmp_path, step(tmp_path))
    unit.put("in", Message(b"1", b"key", {"traceparent": b"00-1"}))
    unit.run()
    answer = topic(unit.queues["out"]).log[0]
    assert (answer.value, answer.key, answer.headers) == (b"1", b"key", {"traceparent": b"00-1"})


def test_a_message_may_become_none_or_many(tmp_path: Path) -> None:
    text = "def handler(value):\n    return None if value == 0 else (value for _ in range(value))\n"
    unit = Unit(tmp_path, step(tmp_path, text=text))
    unit.put("in", 0, 1, 3)
    unit.run()
    assert unit.got("out") == [1, 3, 3, 3]


def test_a_batch_is_never_larger_than_the_smallest_bound_of_the_steps(tmp_path: Path) -> None:
    sizes: list[int] = []

    class Watched(Memory):
        @staticmethod
        def source(queue: QueueSpec, name: str, *_: Any) -> Any:
            class Source(MemorySource):
                def consume(self, max_items: int, timeout: float) -> list[Message]:
                    sizes.append(max_items)
                    return super().consume(max_items, timeout)

            return Source(topic(queue), name)

    first = step(tmp_path, "first", outputs=("second",), max_batch=64)
    second = step(tmp_path, "second", inputs=("first",), max_batch=7)
    unit = Unit(tmp_path, first, second, plug=lambda _queue: Watched)
    unit.put("in", *range(50))
    unit.run()
    assert set(sizes) == {7}
    assert unit.got("out") == list(range(50))


def test_two_sources_merge_and_two_sinks_each_get_everything(tmp_path: Path) -> None:
    unit = Unit(tmp_path, step(tmp_path, inputs=("in", "in2"), outputs=("out", "out2")))
    unit.put("in", 1, 2)
    unit.put("in2", 3)
    with unit.running():
        wait_for(lambda: len(unit.got("out")) == 3 and unit.acked("in2") == 1 and unit.acked("in") == 2)
    assert sorted(unit.got("out")) == sorted(unit.got("out2")) == [1, 2, 3]


def test_each_queue_is_read_and_written_in_its_own_format(tmp_path: Path) -> None:
    unit = Unit(tmp_path, step(tmp_path, input_format="csv", output_format="msgpack"))
    unit.put("in", Message(b"1,2.5"))
    unit.run()
    assert topic(unit.queues["out"]).log[0].value == b"\x92\x01\xcb@\x04\x00\x00\x00\x00\x00\x00"


def test_a_step_that_waits_for_a_batch_gets_what_comes_shortly_after(tmp_path: Path) -> None:
    text = "seen = []\ndef handler(value):\n    return value\n"
    unit = Unit(tmp_path, step(tmp_path, text=text, max_batch=3, max_wait_ms=20_000))
    batches: list[int] = []
    unit.chain._observe = lambda _step, size, _seconds: batches.append(size)
    with unit.running():
        for number in range(3):
            unit.put("in", number)
        wait_for(lambda: unit.acked("in") == 3, 10, "the batch to be full long before its time is up")
    assert batches == [3]


def test_fail_stops_the_unit_before_the_message_and_after_what_came_before_it(tmp_path: Path) -> None:
    unit = Unit(tmp_path, step(tmp_path, text=PICKY))
    unit.put("in", "good", "fine", "bad", "later")
    with pytest.raises(Stopped) as caught:
        unit.run()
    assert str(caught.value) == (
        "in memory@2: step 'only', handle: ValueError: no such speed (main.py:3); the message is not acknowledged"
    )
    assert unit.got("out") == ["good", "fine"]
    assert unit.acked("in") == 2


def test_skip_counts_the_failures_and_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    unit = Unit(tmp_path, step(tmp_path, name="skipping", text=PICKY, on_error="skip"))
    unit.put("in", "bad", "good", "bad", Message(b"{"))
    before = value_of("mlpacker_messages_skipped_total")
    with caplog.at_level(logging.WARNING, "mlpacker.engine"):
        unit.run()
    assert unit.got("out") == ["good"]
    assert unit.acked("in") == 4
    assert value_of("mlpacker_messages_skipped_total") - before == 3
    assert value_of("mlpacker_messages_failed_total", step="skipping", stage="handle") == 2
    assert value_of("mlpacker_messages_failed_total", step="skipping", stage="decode") == 1
    assert "3 messages failed" in caplog.text


def test_dead_letter_keeps_the_payload_and_says_what_happened(tmp_path: Path) -> None:
    unit = Unit(tmp_path, step(tmp_path, text=PICKY, on_error="dead_letter", dead_letter="dead"))
    unit.put("in", "good", Message(b'"bad"', b"key", {"traceparent": b"00-1"}))
    unit.run()
    letter = topic(unit.queues["dead"]).log[0]
    assert (letter.value, letter.key) == (b'"bad"', b"key")
    assert letter.headers == {
        "traceparent": b"00-1",
        "mlpacker-error-stage": b"handle",
        "mlpacker-error-step": b"only",
        "mlpacker-error-reason": b"ValueError: no such speed (main.py:3)",
        "mlpacker-error-source": b"in memory@1",
        "mlpacker-error-attempt": b"1",
    }
    assert unit.got("out") == ["good"]
    assert unit.acked("in") == 2


def test_a_dead_letter_sent_round_again_counts_its_attempts(tmp_path: Path) -> None:
    unit = Unit(tmp_path, step(tmp_path, text=PICKY, on_error="dead_letter", dead_letter="dead"))
    unit.put("in", "bad")
    unit.run()
    again = Unit(tmp_path, step(tmp_path, text=PICKY, on_error="dead_letter", dead_letter="dead"))
    again.put("in", topic(unit.queues["dead"]).log[0])
    again.run()
    assert topic(again.queues["dead"]).log[0].headers["mlpacker-error-attempt"] == b"2"


@pytest.mark.parametrize(
    ("message", "text", "stage", "reason"),
    [
        (b"{", PASS, b"decode", "not json: unexpected end of data"),
        (b"1", "def handler(value):\n    return object()\n", b"encode", "not to be said in json: Type is not JSON"),
    ],
)
def test_what_cannot_be_read_or_written_is_a_failure_of_its_step(
    tmp_path: Path, message: bytes, text: str, stage: bytes, reason: str
) -> None:
    unit = Unit(tmp_path, step(tmp_path, text=text, on_error="dead_letter", dead_letter="dead"))
    unit.put("in", Message(message))
    unit.run()
    headers = topic(unit.queues["dead"]).log[0].headers
    assert headers["mlpacker-error-stage"] == stage
    assert headers["mlpacker-error-reason"].decode().startswith(reason)


def test_of_a_message_that_cannot_be_written_whole_nothing_is_written(tmp_path: Path) -> None:
    text = "def handler(value):\n    yield value\n    yield object()\n"
    unit = Unit(tmp_path, step(tmp_path, text=text, on_error="skip"))
    unit.put("in", 1)
    unit.run()
    assert unit.got("out") == []


class Failing(Memory):
    """Memory whose sinks for `queue` fail in `where` the first `times` times."""

    def __init__(self, queue: str, where: str, times: int) -> None:
        self.queue, self.where, self.left = queue, where, times
        self.acked_while_failing: list[int] = []

    def sink(self, queue: QueueSpec, name: str, *_: Any) -> Sink:  # type: ignore[override]
        outer = self

        class Broken(MemorySink):
            def connect(self) -> None:
                outer.maybe_fail(queue, "connect", ConnectionFailed("cannot reach dead broker h:1"))

            def produce(self, messages: Sequence[Message]) -> None:
                outer.maybe_fail(queue, "produce", DeliveryFailed("the sink is full"))
                super().produce(messages)

            def flush(self, timeout: float) -> None:
                if topic(queue).log:
                    outer.maybe_fail(queue, "flush", DeliveryFailed("2 messages not confirmed"))

        return Broken(topic(queue))

    def maybe_fail(self, queue: QueueSpec, where: str, error: Exception) -> None:
        if queue.id == self.queue and where == self.where and self.left > 0:
            self.left -= 1
            raise error


def test_nothing_is_acknowledged_until_everything_is_delivered(tmp_path: Path) -> None:
    broken = Failing("out", "flush", 1)
    unit = Unit(tmp_path, step(tmp_path), plug=lambda _queue: broken)
    unit.put("in", 1, 2)
    with unit.running():
        wait_for(lambda: unit.state.reason == "2 messages not confirmed")
        assert unit.acked("in") == 0
        wait_for(lambda: unit.acked("in") == 2 and unit.state.reason == "")
    assert unit.got("out") == [1, 2, 1, 2]  # delivered but not confirmed, so delivered again


def test_a_dead_letter_queue_that_is_down_stops_the_flow_and_loses_nothing(tmp_path: Path) -> None:
    broken = Failing("dead", "produce", 2)
    only = step(tmp_path, text=PICKY, on_error="dead_letter", dead_letter="dead")
    unit = Unit(tmp_path, only, plug=lambda _queue: broken)
    unit.put("in", "bad", "good")
    with unit.running():
        wait_for(lambda: unit.state.reason == "the sink is full")
        assert unit.acked("in") == 0
        wait_for(lambda: unit.acked("in") == 2)
    assert len(topic(unit.queues["dead"]).log) == 1
    assert set(unit.got("out")) == {"good"}


class Strict(Memory):
    """Memory whose sinks take no payload of more than `most` bytes."""

    def __init__(self, most: int, *queues: str) -> None:
        self.most, self.queues = most, queues

    def sink(self, queue: QueueSpec, name: str, *_: Any) -> Sink:  # type: ignore[override]
        most = self.most if queue.id in self.queues else sys.maxsize

        class Refusing(MemorySink):
            def produce(self, messages: Sequence[Message]) -> None:
                for message in messages:
                    if len(message.value) > most:
                        raise MessageRefused(message, f"{len(message.value)} bytes are too many")
                    super().produce([message])

        return Refusing(topic(queue))


def test_an_answer_that_the_sink_will_never_take_has_its_fate(tmp_path: Path) -> None:
    only = step(tmp_path, on_error="dead_letter", dead_letter="dead")
    unit = Unit(tmp_path, only, plug=lambda _queue: Strict(5, "out"))
    unit.put("in", "a", "much too long", "b", "this one too", "c")
    unit.run()
    assert unit.got("out") == ["a", "b", "c"]
    assert unit.got("dead") == ["much too long", "this one too"]
    headers = topic(unit.queues["dead"]).log[0].headers
    assert headers["mlpacker-error-stage"] == b"deliver"
    assert headers["mlpacker-error-reason"] == b"out refuses it: 15 bytes are too many"


def test_a_refused_answer_stops_the_unit_where_that_is_its_fate(tmp_path: Path) -> None:
    unit = Unit(tmp_path, step(tmp_path), plug=lambda _queue: Strict(5, "out"))
    unit.put("in", "a", "much too long", "b")
    with pytest.raises(Stopped, match=r"in memory@1: step 'only', deliver: out refuses it: 15 bytes are too many"):
        unit.run()
    assert unit.acked("in") == 1


def test_a_dead_letter_that_is_refused_stops_the_unit(tmp_path: Path) -> None:
    only = step(tmp_path, on_error="dead_letter", dead_letter="dead")
    unit = Unit(tmp_path, only, plug=lambda _queue: Strict(5, "out", "dead"))
    unit.put("in", "a", "much too long")
    with pytest.raises(Stopped, match="dead refuses it: 15 bytes are too many"):
        unit.run()
    assert unit.got("out") == ["a"]
    assert unit.acked("in") == 1


def test_a_broker_that_is_not_there_is_tried_again_at_growing_intervals(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken = Failing("out", "connect", 3)
    unit = Unit(tmp_path, step(tmp_path), plug=lambda _queue: broken)
    before = value_of("mlpacker_reconnects_total", queue="out")
    unit.put("in", 1)
    with caplog.at_level(logging.INFO, "mlpacker.engine"):
        unit.run()
    attempts = [record.message for record in caplog.records if "next attempt" in record.message]
    assert attempts == [f"cannot reach dead broker h:1; next attempt in {delay} s" for delay in ("0.5", "1", "2")]
    assert value_of("mlpacker_reconnects_total", queue="out") - before == 3
    assert unit.got("out") == [1]


def test_it_is_ready_only_while_it_is_connected(tmp_path: Path) -> None:
    unit = Unit(tmp_path, step(tmp_path))
    assert unit.state.reason == "starting"
    with unit.running():
        wait_for(lambda: unit.state.reason == "")
    assert unit.state.reason == "stopping"


def test_a_queue_has_one_format(tmp_path: Path) -> None:
    one = step(tmp_path, "one", output_format="json")
    other = step(tmp_path, "other", inputs=("in2",), output_format="csv")
    with pytest.raises(ValueError, match="queue 'out' has json for step 'one' and csv for 'other'"):
        Unit(tmp_path, one, other)


def test_a_count_is_given_away_at_most_once_in_its_time() -> None:
    now = 0.0
    rarely = Rarely(10, lambda: now)
    assert [rarely.add(1), rarely.add(2), rarely.add(3)] == [1, 0, 0]
    now = 10.0
    assert rarely.add(1) == 6


def test_a_message_cannot_forge_a_line_of_the_log() -> None:
    record = logging.LogRecord("n", logging.INFO, "f", 1, "reason: %s", ("a\nERROR fake\x1b[31m",), None)
    assert OneLine("%(message)s").format(record) == "reason: a\\nERROR fake\\x1b[31m"


def value_of(name: str, **labels: str) -> float:
    from prometheus_client import REGISTRY

    return REGISTRY.get_sample_value(name, labels) or 0.0


def test_a_message_that_does_not_fit_the_schema_of_its_queue_is_a_dead_letter_of_that_stage(tmp_path: Path) -> None:
    schema = {"type": "array", "items": {"type": "number"}}
    unit = Unit(tmp_path, step(tmp_path, on_error="dead_letter", dead_letter="dead"), schemas={"in": schema})
    unit.put("in", [1], ["x"], [2])
    unit.run()
    assert unit.got("out") == [[1], [2]]
    headers = topic(unit.queues["dead"]).log[0].headers
    assert headers["mlpacker-error-stage"] == b"schema"
    assert headers["mlpacker-error-reason"] == b'[0]: "x" is not of type "number"'


def test_a_cloud_event_is_answered_by_one_and_its_dead_letter_is_as_it_came(tmp_path: Path) -> None:
    unit = Unit(tmp_path, step(tmp_path, text=PICKY, on_error="dead_letter", dead_letter="dead"))
    event = {"ce_specversion": b"1.0", "ce_id": b"1", "ce_source": b"/plant", "ce_type": b"reading"}
    unit.put("in", "plain", Message(b"1", None, event), Message(b'"bad"', None, event))
    unit.run()
    plain, answer = topic(unit.queues["out"]).log
    assert plain.headers == {}
    assert (answer.headers["ce_type"], answer.headers["ce_source"]) == (b"reading", b"/mlpacker/plant/only")
    assert topic(unit.queues["dead"]).log[0].headers.items() >= event.items()
