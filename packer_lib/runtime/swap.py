"""New models for a running unit: loaded beside the old ones, tried, and switched to between two batches.

A thread of its own reads what is wanted (wanted.py), loads it, compares its answers with the last ones of the model
that is live, and offers it; whoever runs the chain takes it when nothing is in hand. Until then, and whenever
something is wrong with the new model, the old one answers. Imports the runtime only.
"""

from __future__ import annotations

import gc
import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event, Lock, Thread

from . import metrics, wanted
from .chain import Chain, Step
from .contract import ModelUnusable
from .manifest import StepSpec, models
from .model_step import ModelStep
from .trial import objection
from .wanted import Staged, Wanted

log = logging.getLogger("mlpacker.swap")

LOOK_EVERY = 0.25
MISSING_SECONDS = 2.0  # for a file that is named before it is there, or cannot be read just now
PROCESSES = 3  # that may die while they load the same models


class Refused(Exception):
    """These models are not used; the text says why."""


class Superseded(Exception):
    """Something else is wanted by now, or the unit stops."""


@dataclass(slots=True)
class Change:
    """Steps that are ready to take the place of others, which `former` has once that is `done`."""

    steps: Sequence[ModelStep]
    former: list[Step] = field(default_factory=list)
    done: Event = field(default_factory=Event)


class Swaps:
    """Keeps the models of `chain`, a bundle's, at what the state folder `state` says; `replica` is this process's.

    `switched` is called by the thread that calls `apply`, after the chain has other models than before; `offered` when
    there is something to apply, for who does not call it all the time.
    """

    def __init__(
        self,
        chain: Chain,
        state: Path,
        replica: int = 0,
        switched: Callable[[], None] = lambda: None,
        offered: Callable[[], None] = lambda: None,
    ) -> None:
        self._chain, self._state, self._switched, self._offered = chain, state, switched, offered
        self._answer_file = state / f"swapped.{replica}.json"
        self._tries = state / f"trying.{replica}.json"
        self._own = {step.spec.name: step for step in chain.steps if isinstance(step, ModelStep)}
        self._seen: tuple[int, ...] = ()
        self._ready: Change | None = None
        self._offer = Lock()
        self._stop = Event()
        self._thread = Thread(target=self._watch, name="swap", daemon=True)

    def load(self) -> None:
        """Loads the chain: with what is wanted, and where that cannot be had with what the bundle has; raises what
        `Chain.load` raises."""
        self._seen = wanted.stamp(self._state)
        want, reason, loaded = Wanted(), "", []
        try:
            want = wanted.read(self._state)
            with self._tried(want):
                loaded = [self._loaded(step, want) for step in self._changed(want)]
        except (Refused, ValueError) as error:
            reason = str(error)
            log.error("what is wanted is not used, the models of the bundle are: %s", reason)
        for step in loaded:
            log.info("step %s: model %s, as wanted", step.spec.name, step.spec.sha256[:12])
            self._chain.replace(step)
        self._chain.load([step.spec.name for step in loaded])
        for step in self._models():
            metrics.show_model(step.spec.name, step.spec.sha256)
        if want.id or reason:
            self._answer(want, reason)

    def start(self) -> None:
        """From now on what is wanted is looked at, and `apply` to be called."""
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(5)

    def apply(self) -> None:
        """Called between two batches by the thread that runs the chain: from here on it has the models that are ready.
        Costs nothing while none are."""
        if self._ready is None or (change := self._take()) is None:
            return
        for step in change.steps:
            former = self._chain.replace(step)
            step.recent = former.recent if isinstance(former, ModelStep) else step.recent
            metrics.show_model(step.spec.name, step.spec.sha256, former.spec.sha256)
            change.former.append(former)
        self._switched()
        change.done.set()

    def _take(self) -> Change | None:
        with self._offer:
            change, self._ready = self._ready, None
        return change

    def _watch(self) -> None:
        while not self._stop.wait(LOOK_EVERY):
            stamp = wanted.stamp(self._state)
            if stamp != self._seen:
                self._seen = stamp
                try:
                    self._heed()
                except Superseded:
                    log.info("something else is wanted by now")
                except Exception:
                    log.exception("a swap failed by what should not have happened")

    def _heed(self) -> None:
        started, want, names = time.monotonic(), Wanted(), []
        try:
            want = wanted.read(self._state)
            changed = self._changed(want)
            names = [step.spec.name for step in changed]
            with self._tried(want):
                fresh = [self._proven(step, want) for step in changed]
        except (Refused, ValueError) as error:
            log.error("not swapped: %s", error)
            self._count(names, "refused")
            self._answer(want, str(error))
            return
        if fresh:
            self._hand_over(Change(fresh), started)
        self._answer(want)

    def _hand_over(self, change: Change, started: float) -> None:
        """Until the chain has it; the models that it had before are gone then."""
        self._ready = change
        self._offered()
        while not change.done.wait(LOOK_EVERY):
            if (self._stop.is_set() or wanted.stamp(self._state) != self._seen) and self._take() is change:
                raise Superseded
        for step, former in zip(change.steps, change.former, strict=True):
            took = time.monotonic() - started
            metrics.SWAP_SECONDS.labels(step.spec.name).observe(took)
            was, now = former.spec.sha256[:12], step.spec.sha256[:12]
            log.info("step %s: swapped from model %s to %s in %.2f s", step.spec.name, was, now, took)
            former.close()
        self._count([step.spec.name for step in change.steps], "live")
        change.former.clear()
        gc.collect()  # a model may be held by cycles of its own

    def _models(self) -> Iterator[ModelStep]:
        return (step for step in self._chain.steps if isinstance(step, ModelStep))

    def _changed(self, want: Wanted) -> list[ModelStep]:
        """The steps that are to have another model than they have."""
        unknown = sorted(want.models.keys() - self._own.keys())
        if unknown:
            raise Refused(f"no model step {', '.join(unknown)} in this unit; there is {', '.join(self._own) or 'none'}")
        return [step for step in self._models() if not _same(self._target(step, want)[0], step.spec)]

    def _target(self, step: ModelStep, want: Wanted) -> tuple[StepSpec, Path]:
        """What `step` is to be, and the folder that its path is in."""
        own = self._own[step.spec.name]
        model = want.models.get(step.spec.name)
        if model is None:
            return own.spec, own.bundle
        serializer = model.serializer or own.spec.serializer
        spec = replace(own.spec, path=model.path, sha256=model.sha256, serializer=serializer)
        return (own.spec, own.bundle) if _same(spec, own.spec) else (spec, self._state)

    def _loaded(self, step: ModelStep, want: Wanted) -> ModelStep:
        spec, folder = self._target(step, want)
        fresh = ModelStep(spec, folder)
        try:
            if folder == self._state:
                self._require(Staged(spec.path, spec.sha256, spec.serializer))
            fresh.load()
        except ModelUnusable as error:
            raise Refused(f"step {spec.name!r}: {error}") from None
        except Exception as error:
            raise Refused(f"step {spec.name!r}: {type(error).__name__}: {error}") from None
        return fresh

    def _require(self, model: Staged) -> None:
        """What is staged has the digest that is wanted; it may be on its way still."""
        path, end = self._state / model.path, time.monotonic() + MISSING_SECONDS
        while True:
            try:
                found = wanted.digest(path)
                break
            except OSError as error:
                if time.monotonic() > end or self._stop.wait(LOOK_EVERY):
                    raise Refused(f"{model.path} cannot be read: {error.strerror}") from None
        if found != model.sha256:
            raise Refused(f"{model.path}: its sha256 is {found}, not {model.sha256}")

    def _proven(self, step: ModelStep, want: Wanted) -> ModelStep:
        fresh = self._loaded(step, want)
        if reason := objection(fresh, step.recent):
            fresh.close()
            raise Refused(f"step {step.spec.name!r}: {reason}")
        return fresh

    @contextmanager
    def _tried(self, want: Wanted) -> Iterator[None]:
        """A process that dies in the block has tried it once: what kills its unit is not loaded for ever."""
        times = self._times(want) if want.models else 0
        if times >= PROCESSES:
            raise Refused(f"the process died each of the {times} times that it was loaded")
        with suppress(OSError):  # where nothing can be written nothing is counted either
            if want.models:
                wanted.write(self._tries, json.dumps({"id": want.id, "times": times + 1}))
        yield
        with suppress(OSError):
            self._tries.unlink(missing_ok=True)

    def _times(self, want: Wanted) -> int:
        try:
            told = json.loads(self._tries.read_text(encoding="utf-8"))
            return int(told["times"]) if told["id"] == want.id else 0
        except (OSError, ValueError, TypeError, KeyError):
            return 0

    def _count(self, names: Sequence[str], result: str) -> None:
        for name in names:
            metrics.SWAPS.labels(name, result).inc()

    def _answer(self, want: Wanted, reason: str = "") -> None:
        live = {step.spec.name: step.spec.sha256 for step in self._models()}
        told = {"id": want.id, "state": "refused" if reason else "live", "reason": reason, "models": live}
        try:
            wanted.write(self._answer_file, json.dumps(told))
        except OSError as error:
            log.warning("%s cannot be written: %s", self._answer_file, error)


def _same(one: StepSpec, other: StepSpec) -> bool:
    return (one.sha256, one.serializer) == (other.sha256, other.serializer)


def described(chain: Chain) -> list[dict[str, str]]:
    """The models that the chain answers with now, as `/info` says them."""
    return models(step.spec for step in chain.steps)
