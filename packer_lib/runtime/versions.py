"""The models of a unit that are loaded, and what each of their versions is called; standard library only.

A frozen value: a swap puts another in its place, so that whoever looks sees the one or the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from . import wanted
from .model_step import ModelStep
from .wanted import NoVersion, Staged, Wanted


@dataclass(frozen=True, slots=True)
class Versions:
    """`own` are the bundle's models by step, `live` the steps that answer whoever names no version, `others` what is
    loaded beside them, by step and sha256; `want` says what they are called."""

    own: Mapping[str, Staged]
    live: Mapping[str, ModelStep]
    others: Mapping[str, Mapping[str, ModelStep]] = field(default_factory=dict)
    want: Wanted = field(default_factory=Wanted)

    def instead(self, version: str, step: str = "") -> dict[str, ModelStep]:
        """By step what answers in place of the live ones when `version` is asked for, of `step` or of all of the unit;
        `NoVersion`. A number says nothing about several steps."""
        if step:
            return self._instead(step, version) if step in self.own else _none_of(step, version)
        if version.isdigit() and len(version) < wanted.SHORT and len(self.own) > 1:
            raise NoVersion(f"version {version!r} is one of a step; name it, or a label or sha256 of the whole unit")
        found: dict[str, ModelStep] = {}
        known = [name for name in self.own if any(one.is_called(version) for one in self.of(name))]
        if not known:
            said = ", ".join(f"{name} {one.version} ({one.label or one.number})" for name, one in self._all())
            raise NoVersion(f"there is no version {version!r}, only {said or 'those of code'}")
        for name in known:
            found |= self._instead(name, version)
        return found

    def of(self, step: str) -> Sequence[Staged]:
        """What there is of `step`, the live one first; nothing while it is unloaded."""
        return () if step in self.want.unloaded else wanted.versions(self.want, step, self.own[step])

    def rows(self) -> list[dict[str, Any]]:
        """What `/info` says of each."""
        loaded = [row(name, one) for name, one in self._all()]
        unloaded = (name for name in self.own if name in self.want.unloaded)
        return [*loaded, *(self._idle(name) for name in unloaded)]

    def _idle(self, step: str) -> dict[str, Any]:
        return row(step, wanted.versions(self.want, step, self.own[step])[0], "UNAVAILABLE", "unloaded")

    def candidate(self, step: str) -> ModelStep | None:
        found = next((one for one in self.want.others.get(step, ()) if one.label), None)
        return self.others.get(step, {}).get(found.sha256) if found else None

    def loaded(self) -> list[ModelStep]:
        return [*self.live.values(), *(one for some in self.others.values() for one in some.values())]

    def unloaded(self) -> str:
        """Why it cannot answer, or ""."""
        names = ", ".join(sorted(self.want.unloaded))
        return f"unloaded: {names}" if names else ""

    def _instead(self, step: str, version: str) -> dict[str, ModelStep]:
        found = wanted.find(self.want, step, self.own[step], version)
        return {} if found.label == wanted.STABLE else {step: self.others[step][found.sha256]}

    def _all(self) -> Iterator[tuple[str, Staged]]:
        return ((name, one) for name in self.own for one in self.of(name))


def row(step: str, model: Staged, state: str = "READY", reason: str = "") -> dict[str, Any]:
    return {
        "step": step,
        "version": model.version,
        "number": model.number,
        "sha256": model.sha256,
        "label": model.label,
        "state": state,
        "reason": reason,
    }


def _none_of(step: str, version: str) -> dict[str, ModelStep]:
    raise NoVersion(f"step {step!r} has no model, and so no version {version!r}")
