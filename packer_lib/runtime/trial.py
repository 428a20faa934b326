"""Whether a model may take another's place: it answers what came last, each time the way the other one answered.

Standard library only.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from typing import Any, Protocol

from .contract import StepFailed
from .manifest import StepSpec

MOST = 32  # instances
EVERY = 1.0  # seconds
WITHIN = 0.002  # seconds that the batch waits for it: one instance may be megabytes
LARGEST = 1024  # instances of a batch that is only run to have been run


class Recent:
    """The last instances that a step was asked about, and its answers: copies, for who gets an answer may change it.

    They are taken from the first batch of each second, so that it costs nothing to speak of. Written by the thread that
    runs the chain, read by any.
    """

    def __init__(self) -> None:
        self._taken: tuple[tuple[Any, Any], ...] = ()
        self._next = 0.0
        self.size = 1

    def keep(self, instances: Sequence[Any], answers: Sequence[Any]) -> None:
        """One answer per instance; those that failed are left out."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next, self.size = now + EVERY, len(instances)
        taken: list[tuple[Any, Any]] = []
        for instance, answer in zip(instances[:MOST], answers, strict=False):
            if not isinstance(answer, StepFailed):
                taken += _copied(instance, answer)
            if time.monotonic() - now > WITHIN:
                break
        self._taken = (*self._taken, *taken)[-MOST:]

    def read(self) -> list[tuple[Any, Any]]:
        """Instance and answer, the oldest first."""
        return [copy.deepcopy(pair) for pair in self._taken]


def _copied(instance: Any, answer: Any) -> list[tuple[Any, Any]]:
    try:
        return [copy.deepcopy((instance, answer))]
    except Exception:  # what a code step made, and only it understands
        return []


class Model(Protocol):
    """A model step that is loaded and in nobody's way."""

    spec: StepSpec

    def run(self, values: Sequence[Any]) -> list[list[Any] | StepFailed]: ...


def objection(model: Model, recent: Recent) -> str:
    """Why `model` cannot take the place of the one that gave the answers in `recent`, or "".

    Without any, its step's golden request has to be answered; without that, nothing is asked of it. Whether an answer
    is right nobody knows here: only that it is one, of the same shape and of the same kinds of values.
    """
    pairs = recent.read()
    if not pairs:
        return _golden(model)
    instances = [instance for instance, _ in pairs]
    for (_, former), result in zip(pairs, model.run(instances), strict=True):
        if isinstance(result, StepFailed):
            return f"it does not answer a message that came lately: {result.reason}"
        if text := unlike(former, result[0]):
            return f"its answers are not like those of the model that is live: {text}"
    size = min(recent.size, LARGEST)
    model.run([instances[place % len(instances)] for place in range(size)])  # nothing is done there for the first time
    return ""


def _golden(model: Model) -> str:
    test = model.spec.test
    if test is None:
        return ""
    result = model.run([copy.deepcopy(test["input"])])[0]
    if isinstance(result, StepFailed):
        return f"it does not answer the golden request: {result.reason}"
    if test.get("output") is not None and (text := unlike(test["output"], result[0], more=True)):
        return f"its answer to the golden request is not like the one expected: {text}"
    return ""


def unlike(former: Any, new: Any, place: str = "", more: bool = False) -> str:
    """Where `new` has another shape than `former`, or another kind of value as JSON knows them; or "". With `more`
    objects may have further keys."""
    if isinstance(former, list) and isinstance(new, list):
        if len(former) != len(new):
            return f"{_at(place)}a list of {len(new)}, not of {len(former)}"
        pairs = enumerate(zip(former, new, strict=True))
        return next((text for at, (one, two) in pairs if (text := unlike(one, two, f"{place}[{at}]", more))), "")
    if isinstance(former, dict) and isinstance(new, dict):
        if former.keys() - new.keys() or (new.keys() - former.keys() and not more):
            return f"{_at(place)}an object of {', '.join(map(str, new))}, not of {', '.join(map(str, former))}"
        return next((text for key in former if (text := unlike(former[key], new[key], f"{place}.{key}", more))), "")
    return "" if _kind(former) == _kind(new) else f"{_at(place)}{_kind(new)}, not {_kind(former)}"


def _kind(value: Any) -> str:
    kinds = ((bool, "a boolean"), (int | float, "a number"), (str, "a text"), (list, "a list"), (dict, "an object"))
    return "null" if value is None else next((name for kind, name in kinds if isinstance(value, kind)), "something")


def _at(place: str) -> str:
    return f"at {place.removeprefix('.')}: " if place else ""
