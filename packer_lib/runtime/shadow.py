"""Candidates that get copies of what live models are asked: their answers are compared and given to nobody.

A thread of its own, with what the chain's thread puts aside for it in microseconds; when it does not keep up, copies
are dropped and counted, so that nobody waits for a candidate. Standard library only.
"""

from __future__ import annotations

import copy
import logging
import random
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any

from . import metrics
from .contract import StepFailed
from .golden import difference
from .model_step import ModelStep

log = logging.getLogger("mlpacker.shadow")

WAITING = 1024  # instances that wait to be compared
WITHIN = 0.002  # seconds that a batch waits for its copies
SAMPLES = 20
LONGEST = 2000  # characters of a sample's instance or answer
RESULTS = ("same", "different", "failed", "dropped")


@dataclass(slots=True)
class Watched:
    """One candidate: `share` (0 to 1) of the instances of its step are tried on it."""

    candidate: ModelStep
    share: float
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(RESULTS, 0))
    samples: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=SAMPLES))

    def count(self, result: str, times: int = 1) -> None:
        if times:
            self.counts[result] += times
            metrics.SHADOW.labels(self.candidate.spec.name, result).inc(times)


@dataclass(frozen=True, slots=True)
class _Copies:
    watched: Watched
    stable: str
    pairs: list[tuple[Any, Any]]


class Shadow:
    """What the chain puts aside for the candidates of its steps, and what came of it."""

    def __init__(self, chance: Callable[[], float] = random.random) -> None:
        self._chance = chance
        self._watched: dict[str, Watched] = {}
        self._waiting = 0
        self._lock = Lock()
        self._copies: SimpleQueue[_Copies | None] = SimpleQueue()
        self._thread: Thread | None = None

    def watch(self, candidates: Mapping[str, tuple[ModelStep, float]]) -> None:
        """From now on these, by step; what is counted of one goes on as long as it is the same candidate."""
        watched = dict(self._watched)
        self._watched = {
            step: Watched(candidate, share, watched[step].counts, watched[step].samples)
            if step in watched and watched[step].candidate is candidate
            else Watched(candidate, share)
            for step, (candidate, share) in candidates.items()
        }
        if candidates and self._thread is None:
            self._thread = Thread(target=self._work, name="shadow", daemon=True)
            self._thread.start()

    def offer(self, step: ModelStep, values: Sequence[Any], results: Sequence[list[Any] | StepFailed]) -> None:
        """What `step` was asked and answered; called by the chain's thread after each batch, and costs it next to
        nothing for a step that nobody watches."""
        watched = self._watched.get(step.spec.name)
        if watched is None:
            return
        drawn = [
            place
            for place, result in enumerate(results)
            if not isinstance(result, StepFailed) and self._chance() < watched.share
        ]
        pairs = _copied(values, results, drawn[: max(0, WAITING - self._waiting)])
        watched.count("dropped", len(drawn) - len(pairs))
        if pairs:
            self._add(len(pairs))
            self._copies.put(_Copies(watched, step.spec.sha256[:12], pairs))

    def report(self) -> dict[str, Any]:
        """Per step that is watched: the candidate, its share, how many answers were the same, and the last others."""
        return {
            step: {
                "candidate": watched.candidate.spec.sha256[:12],
                "share": watched.share,
                **watched.counts,
                "samples": list(watched.samples),
            }
            for step, watched in self._watched.items()
        }

    def close(self) -> None:
        self._watched = {}
        if self._thread is not None:
            self._copies.put(None)
            self._thread.join(5)

    def _add(self, number: int) -> None:
        with self._lock:
            self._waiting += number

    def _work(self) -> None:
        while (copies := self._copies.get()) is not None:
            try:
                _compare(copies)
            except Exception:
                log.exception("a candidate could not be compared")
                copies.watched.count("failed", len(copies.pairs))
            self._add(-len(copies.pairs))


def _copied(values: Sequence[Any], results: Sequence[Any], places: Sequence[int]) -> list[tuple[Any, Any]]:
    """As many as there is time for: who gets an answer may change it."""
    pairs: list[tuple[Any, Any]] = []
    end = time.perf_counter() + WITHIN
    for place in places:
        with suppress(Exception):  # what a code step made, and only it understands
            pairs.append(copy.deepcopy((values[place], results[place])))
        if time.perf_counter() > end:
            break
    return pairs


def _compare(copies: _Copies) -> None:
    watched = copies.watched
    answers = watched.candidate.run([instance for instance, _ in copies.pairs])
    for (instance, stable), answer in zip(copies.pairs, answers, strict=True):
        if isinstance(answer, StepFailed):
            watched.count("failed")
            watched.samples.append(_sample(instance, copies.stable, stable, str(answer.reason)))
        elif text := difference(stable, answer):
            watched.count("different")
            watched.samples.append(_sample(instance, copies.stable, stable, text, answer))
        else:
            watched.count("same")


def _sample(instance: Any, version: str, stable: Any, text: str, answer: Any = None) -> dict[str, Any]:
    """As text, and not all of it: an instance may be an image."""
    shown = {"instance": instance, "stable": stable, "candidate": answer}
    return {"version": version, "difference": text, **{name: repr(value)[:LONGEST] for name, value in shown.items()}}
