"""The chain: the steps of one unit in their order, each on the whole batch; under REST and stream alike.

Standard library only."""

from __future__ import annotations

import copy
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import itemgetter
from pathlib import Path
from typing import Any, Protocol

from .catalogue import CHECKS, FRAMEWORKS, find
from .code_step import CodeStep
from .contract import HandlerUnusable, ModelUnusable, StepFailed, Tensor
from .golden import CheckFailed, difference
from .manifest import Manifest, StepSpec
from .model_step import ModelStep

__all__ = ["Chain", "CheckFailed", "HandlerUnusable", "ModelUnusable", "Outcome", "StepFailed", "check_command"]

log = logging.getLogger("mlpacker.chain")

Observe = Callable[[str, int, float], None]
Offer = Callable[[Any, Sequence[Any], Sequence[Any]], None]


@dataclass(slots=True)
class Outcome:
    """What became of one input value: an `error`, or none, one or many `values`.

    `outputs[i]` is where `values[i]` goes: a queue id, or "" when its last step names none (REST: the answer);
    `models[i]` are the marks of the models that made it, in their order, joined by commas."""

    values: list[Any] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    error: StepFailed | None = None
    models: list[bytes] = field(default_factory=list)


class Step(Protocol):
    """A step of either kind: `run` answers per value with the values it became, or why it did not get through.

    `mark` is `step=version` of its model, empty for code."""

    spec: StepSpec
    framework: str
    mark: bytes

    def load(self) -> None: ...
    def run(self, values: Sequence[Any]) -> list[list[Any] | StepFailed]: ...
    def columns(self) -> tuple[str, ...]: ...
    def tensors(self) -> tuple[Tensor | None, Tensor | None]: ...
    def close(self) -> None: ...


Instead = Mapping[str, Step]  # by name
ALL_LIVE: Instead = {}


@dataclass(slots=True)
class Column:
    """Values that go one way together: `values[i]` came of the input value at place `origins[i]`, in its order, and
    was made by the models named in `models[i]`.

    `target` is a step of the unit, a queue id, or "" where the last step names none."""

    target: str
    origins: Sequence[int]
    values: list[Any]
    models: list[bytes]


@dataclass(slots=True)
class Flow:
    """What became of a batch: the columns that leave the chain, and by place the values that did not get through.
    Nothing of those is in a column."""

    columns: list[Column] = field(default_factory=list)
    failed: dict[int, StepFailed] = field(default_factory=dict)


class Chain:
    """`manifest` is the bundle's in `folder`; `observe(step, batch size, seconds)` is told of each step on each batch.

    Loaded and run by one thread. `run` never raises for what a value did: that is in the value's own `Outcome`.
    """

    def __init__(self, manifest: Manifest, folder: Path, observe: Observe | None = None) -> None:
        self.manifest = manifest
        self.steps: tuple[Step, ...] = tuple(_step(spec, folder) for spec in manifest.steps)
        self._names = frozenset(spec.name for spec in manifest.steps)
        self._observe = observe or (lambda _step, _size, _seconds: None)
        self.offer: Offer | None = None  # is told what each step was asked and answered

    def prepare(self) -> None:
        """Imports what models need, so that nothing but the models is left to load."""
        for spec in self.manifest.steps:
            if spec.kind == "model":
                find("framework", spec.framework, FRAMEWORKS).load()

    def load(self, loaded: Collection[str] = ()) -> None:
        """Loads every model and handler but for the steps `loaded`; `ModelUnusable` or `HandlerUnusable` for the first
        that cannot be."""
        for step in self.steps:
            if step.spec.name in loaded:
                continue
            started = time.perf_counter()
            try:
                step.load()
            except (ModelUnusable, HandlerUnusable) as error:
                raise type(error)(f"step {step.spec.name!r}: {error}") from error
            log.info("step %s (%s) loaded in %.1f s", step.spec.name, step.framework, time.perf_counter() - started)

    def replace(self, step: Step) -> Step:
        """Puts `step`, which is loaded, in the place of the one of that name, which it returns; between two runs."""
        (former,) = (one for one in self.steps if one.spec.name == step.spec.name)
        self.steps = tuple(step if one is former else one for one in self.steps)
        return former

    def mark(self, name: str) -> bytes:
        """Of the step `name`."""
        return next(step.mark for step in self.steps if step.spec.name == name)

    def run(self, values: Sequence[Any], queue: str = "", instead: Instead = ALL_LIVE) -> list[Outcome]:
        """One `Outcome` per value, same order. `queue`: where they came from; without it, all first steps get them.
        `instead`: steps that take the place of those of their name for this time."""
        return _outcomes(len(values), self.flow(values, queue, instead))

    def flow(self, values: Sequence[Any], queue: str = "", instead: Instead = ALL_LIVE) -> Flow:
        """As `run`, by columns: what a stream of tens of thousands of values a second has time for."""
        flow, waiting = Flow(), defaultdict[str, list[Column]](list)
        arriving = Column("", range(len(values)), list(values), [b""] * len(values))
        self._route(arriving, self._entries(queue), waiting, flow)
        for step in self.steps:
            if step.spec.name in waiting:
                arrived = _without(flow.failed, together(waiting.pop(step.spec.name)))
                if arrived.values:
                    passed = self._through(instead.get(step.spec.name, step), arrived, flow)
                    self._route(passed, step.spec.outputs or ("",), waiting, flow)
        flow.columns = [_without(flow.failed, column) for column in flow.columns]
        return flow

    def columns(self, name: str = "") -> tuple[str, ...]:
        """The names, in their order, that the model of the step `name` knows its inputs by, if any; "": the first."""
        entries = (name,) if name else self._entries("")
        return next((step.columns() for step in self.steps if step.spec.name in entries), ())

    def tensors(self, name: str) -> tuple[Tensor | None, Tensor | None]:
        """What the step `name` takes and gives, or for "" the whole chain, as far as that is known: code may give back
        anything."""
        if name:
            return next(step.tensors() for step in self.steps if step.spec.name == name)
        first = [step for step in self.steps if step.spec.name in self._entries("")]
        straight = len(first) == 1 and all(len(step.spec.outputs) <= 1 for step in self.steps)
        if not straight:
            return None, None
        models = all(step.spec.kind == "model" for step in self.steps)
        return first[0].tensors()[0], self.steps[-1].tensors()[1] if models else None

    def run_step(self, name: str, values: Sequence[Any], instead: Instead = ALL_LIVE) -> list[Outcome]:
        """One `Outcome` per value, of the step `name` and no other."""
        step = instead.get(name) or next(step for step in self.steps if step.spec.name == name)
        flow = Flow()
        arriving = Column("", range(len(values)), list(values), [b""] * len(values))
        flow.columns = [self._through(step, arriving, flow)]
        return _outcomes(len(values), flow)

    def check(self) -> int:
        """Runs the golden request of each step that has one; how many, or `CheckFailed` with all that differ."""
        tested = [step for step in self.steps if step.spec.test is not None]
        wrong = [f"step {step.spec.name!r}: golden request: {text}" for step in tested if (text := _golden(step))]
        if wrong:
            raise CheckFailed("\n".join(wrong))
        return len(tested)

    def close(self) -> None:
        for step in self.steps:
            step.close()

    def _entries(self, queue: str) -> tuple[str, ...]:
        if queue:
            return tuple(spec.name for spec in self.manifest.steps if queue in spec.inputs)
        return tuple(spec.name for spec in self.manifest.entries())

    def _through(self, step: Step, column: Column, flow: Flow) -> Column:
        """What `step` made of `column`; a value that fails there is noted in `flow` and goes no further."""
        started = time.perf_counter()
        results = step.run(column.values)
        self._observe(step.spec.name, len(column.values), time.perf_counter() - started)
        if self.offer is not None and step in self.steps:
            self.offer(step, column.values, results)
        marks = {former: _marked(former, step.mark) for former in set(column.models)}
        models = [marks[former] for former in column.models]
        one_each = [result[0] for result in results if type(result) is list and len(result) == 1]
        if len(one_each) == len(results):
            return Column("", column.origins, one_each, models)
        origins: list[int] = []
        passed = Column("", origins, [], [])
        for origin, result, made_by in zip(column.origins, results, models, strict=True):
            if isinstance(result, StepFailed):
                flow.failed.setdefault(origin, result)
            else:
                origins.extend([origin] * len(result))
                passed.values.extend(result)
                passed.models.extend([made_by] * len(result))
        return passed

    def _route(self, column: Column, targets: Sequence[str], waiting: dict[str, list[Column]], flow: Flow) -> None:
        """The values of `column` to every one of `targets`: a step of this unit, or out. A step may change what it
        gets, so that where a value goes several ways each step gets a copy."""
        for target in targets:
            if target not in self._names:
                flow.columns.append(replace(column, target=target))
            elif len(targets) == 1:
                waiting[target].append(replace(column, target=target))
            else:
                copies = [copy.deepcopy(value) for value in column.values]
                waiting[target].append(replace(column, target=target, values=copies))


def together(columns: list[Column]) -> Column:
    """One column of what came several ways to one place, by the order of its origins."""
    if len(columns) == 1:
        return columns[0]
    rows = [row for one in columns for row in zip(one.origins, one.values, one.models, strict=True)]
    rows.sort(key=itemgetter(0))
    return _column(columns[0].target, rows)


def _without(failed: Mapping[int, StepFailed], column: Column) -> Column:
    if not failed:
        return column
    rows = zip(column.origins, column.values, column.models, strict=True)
    return _column(column.target, [row for row in rows if row[0] not in failed])


def _column(target: str, rows: list[tuple[int, Any, bytes]]) -> Column:
    return Column(target, [row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows])


def _outcomes(size: int, flow: Flow) -> list[Outcome]:
    """One per input value."""
    outcomes = [Outcome(error=flow.failed.get(place)) for place in range(size)]
    for column in flow.columns:
        for origin, value, models in zip(column.origins, column.values, column.models, strict=True):
            outcomes[origin].values.append(value)
            outcomes[origin].outputs.append(column.target)
            outcomes[origin].models.append(models)
    return outcomes


def check_command(folder: Path, manifest: Manifest) -> int:
    """`--check`: everything loads, schemas too, the golden requests are answered. Prints the finding and returns the
    exit code."""
    chain = Chain(manifest, folder)
    try:
        check_schemas(manifest)
        chain.load()
        answered = chain.check()
    except (ModelUnusable, HandlerUnusable, CheckFailed) as error:
        print(f"check failed: {error}", flush=True)
        return 1
    print(f"ok: {len(chain.steps)} steps loaded, {answered} golden requests answered", flush=True)
    return 0


def check_schemas(manifest: Manifest) -> None:
    """`CheckFailed` for the first schema of a queue that cannot be used."""
    for queue in manifest.queues.values():
        try:
            if queue.schema is not None:
                CHECKS["json-schema"].load()(queue.schema)
        except ValueError as error:
            raise CheckFailed(f"queue {queue.id!r}: schema: {error}") from None


def _marked(former: bytes, mark: bytes) -> bytes:
    return b",".join(filter(None, (former, mark)))


def _step(spec: StepSpec, folder: Path) -> Step:
    return CodeStep(spec, folder) if spec.kind == "code" else ModelStep(spec, folder)


def _golden(step: Step) -> str:
    """What is wrong with the answer to the golden request of `step`, or ""."""
    test = step.spec.test or {}
    result = step.run([copy.deepcopy(test["input"])])[0]
    if isinstance(result, StepFailed):
        return f"{result.stage}: {result.reason}"
    if test.get("output") is None:
        return ""
    return difference(test["output"], result[0] if len(result) == 1 else result)
