"""The engine against a simple model: whatever fails, and whenever the process dies, what it promises holds (R29).

Each example is a list of messages, a fate for those that fail, and faults: numbers of calls to a connector at which
that call fails or the process dies, before or after it had its effect. Processes follow one another until all is done.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from packer_lib.runtime import engine as engines
from packer_lib.runtime.batch import Batches
from packer_lib.runtime.chain import Chain
from packer_lib.runtime.connectors.memory import Memory, MemorySink, MemorySource, Topic
from packer_lib.runtime.contract import ConnectionFailed, DeliveryFailed, Message
from packer_lib.runtime.deliveries import DELIVERIES, Deliveries
from packer_lib.runtime.engine import Engine, Stopped
from packer_lib.runtime.manifest import Manifest, QueueSpec, StepSpec
from packer_lib.runtime.probes import State
from tests.runtime.handmade import code_step

HANDLER = """\
from tests.runtime.test_engine_properties import Killed, seen
def handler(value):
    seen[value["n"]] += 1
    if value["kind"] == "bad":
        raise ValueError("no")
    if value["kind"] == "deadly":
        raise Killed
    if value["kind"] == "none":
        return None
    if value["kind"] == "two":
        return (value["n"] for _ in range(2))
    return value["n"]
"""
OUT = {"good": 1, "two": 2}
WRONG = {"bad", "undecodable", "deadly"}
FOREVER = 400  # processes; none of the examples needs nearly as many
QUEUES = {name: QueueSpec(name, "memory", "here", 0, name) for name in ("in", "out", "dead")}
seen: Counter[int] = Counter()

pytestmark = pytest.mark.slow


class Killed(BaseException):
    """The process ends here, and whatever it holds with it."""


class Process(Deliveries):
    """A death is an exception here, and what runs on its way up does not run in a process that is dead."""

    def end(self) -> None:
        if not isinstance(sys.exc_info()[1], Killed):
            super().end()


@dataclass
class World(Memory):
    """Topics that outlive the processes, and the faults that are still to come: number of a call → what happens."""

    faults: dict[int, str]
    fate: str = "dead_letter"
    topics: dict[str, Topic] = field(default_factory=lambda: {name: Topic() for name in QUEUES})
    state: State = field(default_factory=State)
    calls: int = 0

    def source(self, queue: QueueSpec, name: str, *_: Any) -> MemorySource:  # type: ignore[override]
        world = self

        class Faulty(MemorySource):
            def connect(self) -> None:
                world.call(super().connect, ConnectionFailed("cannot reach"))

            def consume(self, max_items: int, timeout: float) -> list[Message]:
                found = super().consume(max_items, 0)
                if not found and self._topic.acked.get("in", 0) == len(self._topic.log):
                    world.state.stop.set()
                return found

            def ack(self, messages: Sequence[Message]) -> None:
                world.check_delivered(messages)
                world.call(lambda: MemorySource.ack(self, messages), ConnectionFailed("connection lost"))

        return Faulty(self.topics[queue.id], "in")

    def sink(self, queue: QueueSpec, name: str, *_: Any) -> MemorySink:  # type: ignore[override]
        world = self

        class Faulty(MemorySink):
            def connect(self) -> None:
                world.call(super().connect, ConnectionFailed("cannot reach"))

            def produce(self, messages: Sequence[Message]) -> None:
                world.call(lambda: MemorySink.produce(self, messages), DeliveryFailed("not delivered"))

            def flush(self, timeout: float) -> None:
                world.call(lambda: None, DeliveryFailed("not confirmed"))

        return Faulty(self.topics[queue.id])

    def call(self, effect: Callable[[], None], error: Exception) -> None:
        self.calls += 1
        what = self.faults.pop(self.calls, "")
        if "after" in what or not what:
            effect()
        if what:
            raise Killed if "die" in what else error

    def check_delivered(self, messages: Sequence[Message]) -> None:
        """What is about to be acknowledged has had all that it leads to."""
        out, dead = Counter(self.got("out")), Counter(self.got("dead"))
        for message in messages:
            kind, number = kind_of(message), int(message.key or b"")
            assert out[number] >= OUT.get(kind, 0)
            assert dead[number] >= (kind in WRONG and self.fate == "dead_letter")

    def got(self, queue: str) -> list[int]:
        return [int(message.key or b"") for message in self.topics[queue].log]


def kind_of(message: Message) -> str:
    return "undecodable" if message.value == b"{" else str(json.loads(message.value)["kind"])


@pytest.fixture(scope="module")
def code() -> Iterator[tuple[Path, StepSpec]]:
    path = list(sys.path)
    with tempfile.TemporaryDirectory() as name:
        yield Path(name), code_step(Path(name), "only", HANDLER, inputs=("in",), outputs=("out",))
    sys.path[:] = path


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "BACKOFF", (0.0,))


def life(world: World, step: StepSpec, folder: Path, state: Path) -> str:
    """One process, until it has done all, dies or stops on a message."""
    manifest = Manifest("plant", "only", "stream", (step,), QUEUES)
    chain, deliveries = Chain(manifest, folder), Process(state)
    chain.load()
    world.state = State()
    try:
        Engine(manifest, Batches(manifest, chain), world.state, lambda _queue: world, deliveries=deliveries).run()
    except Killed:
        return "died"
    except Stopped as stopped:
        return str(stopped)
    finally:
        chain.close()
        deliveries.close()
    return ""


def live(world: World, step: StepSpec, folder: Path) -> list[str]:
    """How each process ended, until one did all or two in a row stopped for the same reason."""
    ends: list[str] = []
    with tempfile.TemporaryDirectory() as state:
        for _ in range(FOREVER):
            ends.append(life(world, step, folder, Path(state)))
            if not ends[-1] or (ends[-1] != "died" and ends[-1:] == ends[-2:-1]):
                return ends
    raise AssertionError(f"it never ends: {ends[-5:]}")


def messages_of(kinds: Sequence[str]) -> list[Message]:
    return [
        Message(
            b"{" if kind == "undecodable" else json.dumps({"n": number, "kind": kind}).encode(), str(number).encode()
        )
        for number, kind in enumerate(kinds)
    ]


KINDS = st.lists(st.sampled_from(["good"] * 6 + ["two", "none", "bad", "undecodable", "deadly"]), max_size=30)
FAULTS = st.dictionaries(st.integers(1, 80), st.sampled_from(["fail", "fail after", "die", "die after"]), max_size=12)
MANY = settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def first_times(numbers: Sequence[int]) -> list[int]:
    return list(dict.fromkeys(numbers))


@MANY
@given(kinds=KINDS, faults=FAULTS, max_batch=st.integers(1, 12), fate=st.sampled_from(["skip", "dead_letter"]))
def test_nothing_is_lost_and_order_is_kept_whatever_fails(
    code: tuple[Path, StepSpec], kinds: list[str], faults: dict[int, str], max_batch: int, fate: str
) -> None:
    folder, step = code
    world = World(dict(faults), fate=fate)
    world.topics["in"].log.extend(messages_of(kinds))
    seen.clear()
    ends = live(world, with_(step, max_batch, fate), folder)
    event(f"{min(len(ends), 10)} processes")
    assert ends[-1] == ""
    assert world.topics["in"].acked.get("in", 0) == len(kinds)
    leads = [number for number, kind in enumerate(kinds) if kind in OUT]
    assert first_times(world.got("out")) == leads
    wrong = {number for number, kind in enumerate(kinds) if kind in WRONG}
    assert set(world.got("dead")) == (wrong if fate == "dead_letter" else set())
    for number, kind in enumerate(kinds):
        assert kind != "deadly" or seen[number] <= DELIVERIES, "what kills is not handled more often than that"
    for letter in world.topics["dead"].log:
        stage = {"bad": b"handle", "undecodable": b"decode", "deadly": b"crash"}[kind_of(letter)]
        assert letter.headers["mlpacker-error-stage"] == stage


@MANY
@given(kinds=KINDS, max_batch=st.integers(1, 12))
def test_where_nothing_fails_nothing_comes_twice(code: tuple[Path, StepSpec], kinds: list[str], max_batch: int) -> None:
    folder, step = code
    kinds = [kind for kind in kinds if kind != "deadly"]
    world = World({})
    world.topics["in"].log.extend(messages_of(kinds))
    assert live(world, with_(step, max_batch, "dead_letter"), folder) == [""]
    assert Counter(world.got("out")) == {number: OUT[kind] for number, kind in enumerate(kinds) if kind in OUT}
    assert world.got("dead") == [number for number, kind in enumerate(kinds) if kind in WRONG]


@MANY
@given(kinds=KINDS, faults=FAULTS, max_batch=st.integers(1, 12))
def test_fail_stops_at_the_first_message_that_fails_and_nowhere_else(
    code: tuple[Path, StepSpec], kinds: list[str], faults: dict[int, str], max_batch: int
) -> None:
    folder, step = code
    world = World(dict(faults), fate="fail")
    world.topics["in"].log.extend(messages_of(kinds))
    ends = live(world, with_(step, max_batch, "fail"), folder)
    stops = next((number for number, kind in enumerate(kinds) if kind in WRONG), len(kinds))
    assert world.topics["in"].acked.get("in", 0) == stops
    leads = [number for number, kind in enumerate(kinds[:stops]) if kind in OUT]
    assert first_times(world.got("out")) == leads
    assert (ends[-1] == "") == (stops == len(kinds))
    assert ends[-1].startswith(f"in memory@{stops}: ") or stops == len(kinds)


def with_(step: StepSpec, max_batch: int, fate: str) -> StepSpec:
    return replace(step, max_batch=max_batch, on_error=fate, dead_letter="dead" if fate == "dead_letter" else "")
