"""The chain: the steps of one unit in their order, each on the whole batch; under REST and stream alike.

Standard library only."""

from __future__ import annotations

import copy
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from .catalogue import CHECKS, FRAMEWORKS, find
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
    def close(self) -> None: ...


@dataclass(slots=True)
class _Item:
    """A value on its way; `origin` is the place of the input value that it came from, `models` whose models made it."""

    origin: int
    value: Any
    models: bytes = b""


class Chain:
    """`manifest` is the bundle's in `folder`; `observe(step, batch size, seconds)` is told of each step on each batch.

    Loaded and run by one thread. `run` never raises for what a value did: that is in the value's own `Outcome`.
    """

    def __init__(self, manifest: Manifest, folder: Path, observe: Observe | None = None) -> None:
        self.manifest = manifest
        self.steps: tuple[Step, ...] = tuple(_step(spec, folder) for spec in manifest.steps)
        self._names = frozenset(spec.name for spec in manifest.steps)
        self._observe = observe or (lambda _step, _size, _seconds: None)

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

    def run(self, values: Sequence[Any], queue: str = "") -> list[Outcome]:
        """One `Outcome` per value, same order. `queue`: where they came from; without it, all first steps get them."""
        outcomes = [Outcome() for _ in values]
        waiting: dict[str, list[_Item]] = defaultdict(list)
        self._route(
            [_Item(origin, value) for origin, value in enumerate(values)], self._entries(queue), waiting, outcomes
        )
        for step in self.steps:
            items = [item for item in waiting.pop(step.spec.name, ()) if outcomes[item.origin].error is None]
            if items:
                self._route(self._through(step, items, outcomes), step.spec.outputs or ("",), waiting, outcomes)
        for outcome in outcomes:
            if outcome.error is not None:
                outcome.values, outcome.outputs, outcome.models = [], [], []
        return outcomes

    def run_step(self, name: str, values: Sequence[Any]) -> list[Outcome]:
        """One `Outcome` per value, of the step `name` and no other."""
        outcomes = [Outcome() for _ in values]
        (step,) = (step for step in self.steps if step.spec.name == name)
        items = [_Item(origin, value) for origin, value in enumerate(values)]
        self._route(self._through(step, items, outcomes), ("",), {}, outcomes)
        return outcomes

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

    def _through(self, step: Step, items: list[_Item], outcomes: list[Outcome]) -> list[_Item]:
        """`items` after `step`; one that fails there is noted in its outcome and goes no further."""
        items.sort(key=lambda item: item.origin)
        started = time.perf_counter()
        results = step.run([item.value for item in items])
        self._observe(step.spec.name, len(items), time.perf_counter() - started)
        marks: dict[bytes, bytes] = {}
        passed: list[_Item] = []
        for item, result in zip(items, results, strict=True):
            if isinstance(result, StepFailed):
                outcomes[item.origin].error = outcomes[item.origin].error or result
                continue
            models = marks.get(item.models)
            if models is None:
                models = marks[item.models] = _marked(item.models, step.mark)
            for value in result:
                passed.append(_Item(item.origin, value, models))  # a generator for each would cost more
        return passed

    def _route(
        self, items: list[_Item], targets: Sequence[str], waiting: dict[str, list[_Item]], outcomes: list[Outcome]
    ) -> None:
        """Each of `items` to every one of `targets`: a step of this unit, or out. A step may change what it gets, so
        that where a value goes several ways each step gets a copy."""
        for target in targets:
            if target not in self._names:
                for item in items:
                    outcome = outcomes[item.origin]
                    outcome.values.append(item.value)
                    outcome.outputs.append(target)
                    outcome.models.append(item.models)
            elif len(targets) == 1:
                waiting[target].extend(items)
            else:
                waiting[target].extend(_Item(item.origin, copy.deepcopy(item.value), item.models) for item in items)


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
