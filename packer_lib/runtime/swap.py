"""New models for a running unit: loaded beside the old ones, tried, and switched to between two batches.

A thread of its own reads what is wanted (wanted.py), loads it, compares its answers with the last ones of the model
that is live, waits until the other processes of the unit have come as far, and offers it; whoever runs the chain takes
it when nothing is in hand. Until then, and whenever something is wrong with a new model, the old ones answer. Imports
the runtime only.
"""

from __future__ import annotations

import gc
import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any

from . import metrics, wanted
from .chain import Chain
from .loading import LOOK_EVERY, Loader, Refused
from .model_step import ModelStep
from .shadow import Shadow
from .versions import Versions, row
from .wanted import Wanted

log = logging.getLogger("mlpacker.swap")

AGREE_EVERY = 0.02
AGREE_SECONDS = 60.0  # for the other processes of the unit to load the same
PROCESSES = 3  # that may die while they load the same models


class Superseded(Exception):
    """Something else is wanted by now, or the unit stops."""


@dataclass(slots=True)
class Change:
    """What is to be loaded from now on; `done` when it is."""

    versions: Versions
    done: Event = field(default_factory=Event)


class Swaps:
    """Keeps the models of `chain`, a bundle's, at what the state folder `state` says; this is process `replica`.

    `of` is how many processes switch together. `switched` is called after what is loaded or refused has changed, by
    whichever thread changed it; `offered` when there is something to apply, for who does not call `apply` all the time.
    """

    def __init__(
        self,
        chain: Chain,
        state: Path,
        replica: int = 0,
        switched: Callable[[], None] = lambda: None,
        offered: Callable[[], None] = lambda: None,
        of: int = 1,
    ) -> None:
        self._chain, self._state, self._switched, self._offered = chain, state, switched, offered
        self._replica, self._of = replica, of
        self._answer_file = state / f"swapped.{replica}.json"
        self._tries = state / f"trying.{replica}.json"
        self._stop = Event()
        self._own = {step.spec.name: step for step in chain.steps if isinstance(step, ModelStep)}
        self._loader = Loader(self._own, state, chain.manifest.mode == "stream", self._stop)
        self.now = self._loader.bundled()
        self.shadow = Shadow()
        self._not_loaded: list[dict[str, Any]] = []
        self._seen: tuple[int, ...] = ()
        self._ready: Change | None = None
        self._offer = Lock()
        self._thread = Thread(target=self._watch, name="swap", daemon=True)

    def load(self) -> None:
        """Loads the chain: with what is wanted, and where that cannot be had with what the bundle has; raises what
        `Chain.load` raises."""
        self._seen = wanted.stamp(self._state)
        want, state, reason, versions = Wanted(), "live", "", self.now
        try:
            want = wanted.read(self._state)
            self._loader.require_known(want)
            self._require_not_refused(want)
            with self._tried(want):
                begun = self._loader.first(self.now, want)
            versions, self._not_loaded = begun.versions, begun.not_loaded
            reason = "; ".join(each["reason"] for each in begun.not_loaded)
        except (Refused, ValueError) as error:
            state, reason = "refused", str(error)
            log.error("what is wanted is not used, the models of the bundle are: %s", reason)
        self._begin_with(versions)
        if want.id or reason:
            self._answer(want, state, reason)

    def _begin_with(self, versions: Versions) -> None:
        fresh = [step for name, step in versions.live.items() if step is not self._own[name]]
        for step in fresh:
            log.info("step %s: model %s, as wanted", step.spec.name, step.spec.sha256[:12])
            self._chain.replace(step)
        self._chain.load([step.spec.name for step in fresh])
        self._use(versions)
        for name, step in versions.live.items():
            metrics.show_model(name, step.spec.sha256)

    def start(self) -> None:
        """From now on what is wanted is looked at, and `apply` to be called."""
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(5)
        self.shadow.close()

    def described(self) -> dict[str, Any]:
        """What `/info` says: the models that are live, and all versions, those too that could not be loaded."""
        live = [
            {"step": name, "version": step.spec.sha256[:12], "sha256": step.spec.sha256}
            for name, step in self.now.live.items()
        ]
        return {"models": live, "versions": [*self.now.rows(), *self._not_loaded]}

    def apply(self) -> None:
        """Called between two batches by the thread that runs the chain: from here on it has the models that are ready.
        Costs nothing while none are."""
        if self._ready is None or (change := self._take()) is None:
            return
        for name, step in change.versions.live.items():
            former = self.now.live[name]
            if former is not step:
                self._chain.replace(step)
                step.recent = former.recent
                metrics.show_model(name, step.spec.sha256, former.spec.sha256)
        self._use(change.versions)
        self._switched()
        change.done.set()

    def _use(self, versions: Versions) -> None:
        self.now = versions
        watched = {
            name: (candidate, share)
            for name, share in versions.want.shadow.items()
            if (candidate := versions.candidate(name))
        }
        self.shadow.watch(watched)
        self._chain.offer = self.shadow.offer if watched else None

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
        started, want, former = time.monotonic(), Wanted(), self.now
        fresh: list[ModelStep] = []
        try:
            want = wanted.read(self._state)
            self._loader.require_known(want)
            new = self._loader.new(former, want)
            if new:
                self._show([row(name, model, "LOADING") for name, model in new])
            with self._tried(want):
                versions = self._loader.proven(former, want)
            fresh = [step for step in versions.loaded() if step not in former.loaded()]
            self._agree(want)
        except (Refused, ValueError) as error:
            log.error("not swapped: %s", error)
            self._close(fresh)
            gc.collect()  # what was loaded before one was refused
            self._refuse(want, str(error))
            return
        except Superseded:
            self._close(fresh)
            raise
        self._hand_over(Change(versions))
        self._count(former, versions, time.monotonic() - started)
        if new:  # who only takes back what was refused leaves the reason to be seen
            self._show([])
        self._close([step for step in former.loaded() if step not in versions.loaded()])
        self._answer(want, "live")

    def _hand_over(self, change: Change) -> None:
        """Until the chain has it."""
        self._ready = change
        self._offered()
        while not change.done.wait(LOOK_EVERY):
            if (self._stop.is_set() or self._is_superseded()) and self._take() is change:
                self._close([step for step in change.versions.loaded() if step not in self.now.loaded()])
                raise Superseded

    def _count(self, former: Versions, versions: Versions, seconds: float) -> None:
        for name, step in versions.live.items():
            if step is not former.live[name]:
                metrics.SWAP_SECONDS.labels(name).observe(seconds)
                metrics.SWAPS.labels(name, "live").inc()
                was, now = former.live[name].spec.sha256[:12], step.spec.sha256[:12]
                log.info("step %s: swapped from model %s to %s in %.2f s", name, was, now, seconds)

    def _close(self, steps: list[ModelStep]) -> None:
        """They are gone then, in the memory too."""
        for step in steps:
            step.close()
        if steps:
            gc.collect()  # a model may be held by cycles of its own

    # ── with the other processes ─────────────────────────────────────────────────────────────────────────────────────

    def _agree(self, want: Wanted) -> None:
        """Returns when all processes have loaded it, so that they switch at the same time; `Refused` when one of them
        refuses it, or says nothing."""
        if self._of == 1:
            return
        self._answer(want, "ready")
        end, others = time.monotonic() + AGREE_SECONDS, set(range(self._of)) - {self._replica}
        while others:
            for other in sorted(others):
                told = wanted.told(self._state, other)
                if told.get("id") == want.id and told.get("state") == "refused":
                    raise Refused(f"process {other} refuses it: {told.get('reason')}")
                if told.get("id") == want.id and told.get("state") in ("ready", "live"):
                    others.discard(other)
            if others and time.monotonic() > end:
                raise Refused(f"process {min(others)} had not loaded it after {AGREE_SECONDS:.0f} s")
            if others and (self._stop.wait(AGREE_EVERY) or self._is_superseded()):
                raise Superseded

    def _require_not_refused(self, want: Wanted) -> None:
        """A process that starts does not have for itself what another one has refused for all."""
        for other in set(range(self._of)) - {self._replica}:
            told = wanted.told(self._state, other)
            if want.id and told.get("id") == want.id and told.get("state") == "refused":
                raise Refused(f"process {other} refuses it: {told.get('reason')}")

    def _is_superseded(self) -> bool:
        return wanted.stamp(self._state) != self._seen

    @contextmanager
    def _tried(self, want: Wanted) -> Iterator[None]:
        """A process that dies in the block has tried it once: what kills its unit is not loaded for ever."""
        names_any = bool(want.models or want.others)
        times = self._times(want) if names_any else 0
        if times >= PROCESSES:
            raise Refused(f"the process died each of the {times} times that it was loaded")
        with suppress(OSError):  # where nothing can be written nothing is counted either
            if names_any:
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

    def _refuse(self, want: Wanted, reason: str) -> None:
        new = self._loader.new(self.now, want) if want.id else []
        for name in {name for name, _ in new}:
            metrics.SWAPS.labels(name, "refused").inc()
        self._show([row(name, model, "UNAVAILABLE", reason) for name, model in new])
        self._answer(want, "refused", reason)

    def _show(self, not_loaded: list[dict[str, Any]]) -> None:
        self._not_loaded = not_loaded
        self._switched()

    def _answer(self, want: Wanted, state: str, reason: str = "") -> None:
        live = {name: step.spec.sha256 for name, step in self.now.live.items()}
        told = {"id": want.id, "state": state, "reason": reason, "models": live}
        try:
            wanted.write(self._answer_file, json.dumps(told))
        except OSError as error:
            log.warning("%s cannot be written: %s", self._answer_file, error)
