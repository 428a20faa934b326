"""The chain: the steps of one unit in their order, each on the whole batch; under REST and stream alike.

Standard library only."""

from __future__ import annotations

import copy
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import Any, Protocol

from .catalogue import CHECKS
from .code_step import CodeStep
from .contract import HandlerUnusable, ModelUnusable, StepFailed
from .golden import CheckFailed, difference
from .manifest import Manifest, StepSpec
from .model_step import ModelStep

__all__ = ["Chain", "CheckFailed", "HandlerUnusable", "ModelUnusable", "Outcome", "StepFailed", "check_command"]

log = logging.getLogger("mlpacker.chain")

Observe = Callable[[str, int, float], None]


@dataclass(slots=True)
class Outcome:
    """What became of one input value: an `error`, or none, one or many `values`.

    `outputs[i]` is where `values[i]` goes: a queue id, or "" when its last step names none (REST: the answer)."""

    values: list[Any] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    error: StepFailed | None = None


class Step(Protocol):
    """A step of either kind: `run` answers per value with the values it became, or why it did not get through."""

    spec: StepSpec
    framework: str

    def load(self) -> None: ...
    def run(self, values: Sequence[Any]) -> list[list[Any] | StepFailed]: ...
    def close(self) -> None: ...


@dataclass(slots=True)
class Column:
    """Values that go one way together: `values[i]` came of the input value at place `origins[i]`, in its order.

    `target` is a step of the unit, a queue id, or "" where the last step names none."""

    target: str
    origins: Sequence[int]
    values: list[Any]


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

    def load(self) -> None:
        """Loads every model and handler; `ModelUnusable` or `HandlerUnusable` for the first that cannot be."""
        for step in self.steps:
            started = time.perf_counter()
            try:
                step.load()
            except (ModelUnusable, HandlerUnusable) as error:
                raise type(error)(f"step {step.spec.name!r}: {error}") from error
            log.info("step %s (%s) loaded in %.1f s", step.spec.name, step.framework, time.perf_counter() - started)

    def run(self, values: Sequence[Any], queue: str = "") -> list[Outcome]:
        """One `Outcome` per value, same order. `queue`: where they came from; without it, all first steps get them."""
        return _outcomes(len(values), self.flow(values, queue))

    def flow(self, values: Sequence[Any], queue: str = "") -> Flow:
        """As `run`, by columns: what a stream of tens of thousands of values a second has time for."""
        flow, waiting = Flow(), defaultdict[str, list[Column]](list)
        self._route(range(len(values)), list(values), self._entries(queue), waiting, flow)
        for step in self.steps:
            if step.spec.name in waiting:
                arrived = _without(flow.failed, together(waiting.pop(step.spec.name)))
                if arrived.values:
                    origins, passed = self._through(step, arrived, flow)
                    self._route(origins, passed, step.spec.outputs or ("",), waiting, flow)
        flow.columns = [_without(flow.failed, column) for column in flow.columns]
        return flow

    def run_step(self, name: str, values: Sequence[Any]) -> list[Outcome]:
        """One `Outcome` per value, of the step `name` and no other."""
        (step,) = (step for step in self.steps if step.spec.name == name)
        flow = Flow()
        flow.columns = [Column("", *self._through(step, Column(name, range(len(values)), list(values)), flow))]
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
        return tuple(spec.name for spec in self.manifest.steps if not self._names.intersection(spec.inputs))

    def _through(self, step: Step, column: Column, flow: Flow) -> tuple[Sequence[int], list[Any]]:
        """What `step` made of `column`; a value that fails there is noted in `flow` and goes no further."""
        started = time.perf_counter()
        results = step.run(column.values)
        self._observe(step.spec.name, len(column.values), time.perf_counter() - started)
        one_each = [result[0] for result in results if type(result) is list and len(result) == 1]
        if len(one_each) == len(results):
            return column.origins, one_each
        origins: list[int] = []
        passed: list[Any] = []
        for origin, result in zip(column.origins, results, strict=True):
            if isinstance(result, StepFailed):
                flow.failed.setdefault(origin, result)
            else:
                origins.extend([origin] * len(result))
                passed.extend(result)
        return origins, passed

    def _route(
        self,
        origins: Sequence[int],
        values: list[Any],
        targets: Sequence[str],
        waiting: dict[str, list[Column]],
        flow: Flow,
    ) -> None:
        """`values` to every one of `targets`: a step of this unit, or out. A step may change what it gets, so that
        where a value goes several ways each step gets a copy."""
        for target in targets:
            if target not in self._names:
                flow.columns.append(Column(target, origins, values))
            else:
                given = values if len(targets) == 1 else [copy.deepcopy(value) for value in values]
                waiting[target].append(Column(target, origins, given))


def together(columns: list[Column]) -> Column:
    """One column of what came several ways to one step, by the order of its origins."""
    if len(columns) == 1:
        return columns[0]
    both = [pair for column in columns for pair in zip(column.origins, column.values, strict=True)]
    both.sort(key=itemgetter(0))
    return Column(columns[0].target, [origin for origin, _ in both], [value for _, value in both])


def _without(failed: Mapping[int, StepFailed], column: Column) -> Column:
    if not failed:
        return column
    kept = [place for place, origin in enumerate(column.origins) if origin not in failed]
    return Column(column.target, [column.origins[place] for place in kept], [column.values[place] for place in kept])


def _outcomes(size: int, flow: Flow) -> list[Outcome]:
    """One per input value."""
    outcomes = [Outcome(error=flow.failed.get(place)) for place in range(size)]
    for column in flow.columns:
        for origin, value in zip(column.origins, column.values, strict=True):
            outcomes[origin].values.append(value)
            outcomes[origin].outputs.append(column.target)
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
