"""Models that are wanted, loaded and tried beside those that answer; imports the runtime only.

Nothing here is live: what it makes is a `Versions`, which swap.py puts in the place of the one that is.
"""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event
from typing import Any

from . import wanted
from .contract import ModelUnusable
from .manifest import StepSpec
from .model_step import ModelStep
from .trial import objection
from .versions import Versions, row
from .wanted import Staged, Wanted

log = logging.getLogger("mlpacker.swap")

LOOK_EVERY = 0.25
MISSING_SECONDS = 2.0  # for a file that is named before it is there, or cannot be read just now
PAUSES = (0.2, 0.5, 1.0)  # seconds before it is tried again what failed by something that passes
PASSING = frozenset({errno.EIO, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.EBUSY, errno.ESTALE})


class Refused(Exception):
    """These models are not used; the text says why."""


@dataclass(slots=True)
class Start:
    """What a process begins with: `not_loaded` are rows of what it does without."""

    versions: Versions
    not_loaded: list[dict[str, Any]] = field(default_factory=list)


class Loader:
    """Of a unit whose bundle's model steps are `own`, by name, and whose state folder is `state`; gives up waiting for
    files and better times when `stop` is set."""

    def __init__(self, own: Mapping[str, ModelStep], state: Path, streams: bool, stop: Event) -> None:
        self._own, self._state, self._streams, self._stop = own, state, streams, stop

    def bundled(self) -> Versions:
        """What the bundle has, as it is before anything is wanted."""
        specs = ((name, step.spec) for name, step in self._own.items())
        own = {name: Staged("", spec.sha256, spec.serializer, wanted.FIRST) for name, spec in specs}
        return Versions(own, dict(self._own))

    def require_known(self, want: Wanted) -> None:
        """`Refused` when `want` names what this unit has not."""
        named = want.models.keys() | want.others.keys() | want.shadow.keys() | want.unloaded
        if unknown := sorted(named - self._own.keys()):
            raise Refused(f"no model step {', '.join(unknown)} in this unit; there is {', '.join(self._own) or 'none'}")
        if want.unloaded and self._streams:
            raise Refused(
                "the models of a stream are not unloaded: it would take messages and answer none; undeploy it"
            )

    def new(self, now: Versions, want: Wanted) -> list[tuple[str, Staged]]:
        """What is wanted of each step and not loaded now."""
        return [
            (name, one)
            for name in self._own
            for one in wanted.versions(want, name, now.own[name])
            if self._known(now, name, one) is None
        ]

    def _known(self, now: Versions, name: str, model: Staged) -> ModelStep | None:
        """The one that is loaded now, if it is."""
        if name in now.want.unloaded:
            return None
        live = now.live[name]
        spec, _ = self._target(name, model)
        return live if _same(live.spec, spec) else now.others.get(name, {}).get(model.sha256)

    def _first_live(self, now: Versions, want: Wanted) -> dict[str, ModelStep]:
        live: dict[str, ModelStep] = {}
        for name, step in self._own.items():
            spec, folder = self._target(name, wanted.live(want, name, now.own[name]))
            if name in want.unloaded:
                live[name] = ModelStep(spec, folder)
            else:
                live[name] = step if _same(spec, step.spec) else self._loaded(spec, folder)
        return live

    def first(self, now: Versions, want: Wanted) -> Start:
        """What a process begins with: `Refused` when what is to be live cannot be had; of the others it does without
        those that cannot."""
        start = Start(Versions(now.own, self._first_live(now, want)))
        others: dict[str, dict[str, ModelStep]] = {}
        left: dict[str, tuple[Staged, ...]] = {}
        for name, model in ((name, one) for name, some in want.others.items() for one in some):
            if name in want.unloaded:
                continue
            try:
                others.setdefault(name, {})[model.sha256] = self._loaded(*self._target(name, model))
                left[name] = (*left.get(name, ()), model)
            except Refused as error:
                log.error("%s is not loaded: %s", model.label or model.number, error)
                start.not_loaded.append(row(name, model, "UNAVAILABLE", str(error)))
        shadow = {name: share for name, share in want.shadow.items() if any(one.label for one in left.get(name, ()))}
        start.versions = replace(start.versions, others=others, want=replace(want, others=left, shadow=shadow))
        return start

    def proven(self, now: Versions, want: Wanted) -> Versions:
        """All that is wanted, loaded and tried: `Refused` when one of them is no good."""
        live, others = {}, {}
        for name, own in now.own.items():
            stable, *rest = wanted.versions(want, name, own)
            if name in want.unloaded:
                live[name] = ModelStep(*self._target(name, stable))
                continue
            live[name] = self._one(now, name, stable)
            others[name] = {one.sha256: self._one(now, name, one) for one in rest}
        return Versions(now.own, live, {name: some for name, some in others.items() if some}, want)

    def _one(self, now: Versions, name: str, model: Staged) -> ModelStep:
        known, live = self._known(now, name, model), now.live[name]
        step = known or self._loaded(*self._target(name, model))
        is_to_answer = known is None or model.label == wanted.STABLE
        if step is not live and is_to_answer and (reason := objection(step, live.recent)):
            if known is None:
                step.close()
            raise Refused(f"step {name!r}: {reason}")
        return step

    def _target(self, name: str, model: Staged) -> tuple[StepSpec, Path]:
        """What `model` is as a step, and the folder that its path is in."""
        own = self._own[name]
        serializer = model.serializer or own.spec.serializer
        spec = replace(own.spec, path=model.path, sha256=model.sha256, serializer=serializer)
        if not model.path or _same(spec, own.spec):
            return own.spec, own.bundle
        return spec, self._state

    def _loaded(self, spec: StepSpec, folder: Path) -> ModelStep:
        """A new one; what fails by something that passes, a full memory or table of files, is tried again."""
        for pause in (*PAUSES, 0.0):
            try:
                return self._load_once(spec, folder)
            except Exception as error:
                if _passes(error) and pause and not self._stop.wait(pause):
                    log.warning("step %s: %s; tried again", spec.name, error)
                    continue
                named = "" if isinstance(error, Refused | ModelUnusable) else f"{type(error).__name__}: "
                raise Refused(f"step {spec.name!r}: {named}{error}") from None
        raise AssertionError("the last pause is none")

    def _load_once(self, spec: StepSpec, folder: Path) -> ModelStep:
        fresh = ModelStep(spec, folder)
        if folder == self._state:
            self._require(spec.path, spec.sha256)
        fresh.load()
        return fresh

    def _require(self, name: str, sha256: str) -> None:
        """What is staged has the digest that is wanted; it may be on its way still."""
        end = time.monotonic() + MISSING_SECONDS
        while True:
            try:
                found = wanted.digest(self._state / name)
                break
            except OSError as error:
                if time.monotonic() > end or self._stop.wait(LOOK_EVERY):
                    raise Refused(f"{name} cannot be read: {error.strerror}") from None
        if found != sha256:
            raise Refused(f"{name}: its sha256 is {found}, not {sha256}")


def _same(one: StepSpec, other: StepSpec) -> bool:
    return (one.sha256, one.serializer) == (other.sha256, other.serializer)


def _passes(error: BaseException | None) -> bool:
    """Whether it, or what caused it, is of the kind that is gone a moment later."""
    while error is not None:
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in PASSING):
            return True
        error = error.__cause__
    return False
