"""The models of a unit: one that came is checked, put into the state folder, and wanted; those that nobody wants go.

<state>/models/<step>/<sha256>/model.<serializer>
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import wanted
from ..manifest import Manifest, StepSpec
from ..predict import Refused
from ..uploads import Unacceptable, serializer_of
from ..wanted import NoVersion, Staged, Wanted
from .arriving import Arriving, require_sha256
from .changes import Changes

log = logging.getLogger("mlpacker.admin")

FORGOTTEN_SECONDS = 24 * 3600.0  # of models that nothing names: a deployment puts one there before it is wanted


@dataclass(frozen=True, slots=True)
class Models:
    """`unsafe`: a format that can carry code is taken as well."""

    manifest: Manifest
    changes: Changes
    unsafe: bool

    @property
    def state(self) -> Path:
        return self.changes.state

    def steps(self) -> dict[str, StepSpec]:
        return {step.name: step for step in self.manifest.steps if step.kind == "model"}

    def step(self, name: str) -> StepSpec:
        """`Refused` when there is no such step, or it has no model."""
        steps = self.steps()
        if name not in steps:
            raise Refused(404, f"there is no model step {name!r}, only {', '.join(steps) or 'code'}")
        return steps[name]

    def only(self, named: str = "") -> StepSpec:
        """The step that is `named`, or the only one that has a model."""
        steps = self.steps()
        if not named and len(steps) != 1:
            raise Refused(409, f"name the step, as ?step=NAME: {', '.join(steps) or 'this unit has no model'}")
        return self.step(named or next(iter(steps)))

    def own(self, step: str) -> Staged:
        """The model of the bundle."""
        spec = self.step(step)
        return Staged("", spec.sha256, spec.serializer, wanted.FIRST)

    async def checked(self, spec: StepSpec, file: Arriving, serializer: str = "", sha256: str = "") -> str:
        """The serializer of what came; `Refused` when it is not what is said, or nothing for this step."""
        require_sha256(file, sha256)
        try:
            found = await asyncio.to_thread(serializer_of, file.path, spec.framework, self.unsafe)
        except Unacceptable as error:
            raise Refused(422, f"{error}; nothing has changed") from None
        if serializer and serializer != found:
            raise Refused(422, f"what came is {found}, not {serializer[:60]}; nothing has changed")
        return found

    async def bring(
        self,
        spec: StepSpec,
        file: Arriving,
        serializer: str,
        seconds: float,
        live: bool,
        beside: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> Staged:
        """What came, of that `serializer`, is the live model of the step, or its candidate; `Refused` when it is not,
        and then nothing of it is left. `beside` is around the change, and sees no other one."""
        model = Staged(f"models/{spec.name}/{file.sha256}/model.{serializer}", file.sha256, serializer)

        def change(before: Wanted) -> Wanted:
            if live:
                return wanted.swap(before, spec.name, self.own(spec.name), model, spec.versions)
            if wanted.live(before, spec.name, self.own(spec.name)).sha256 == model.sha256:
                raise Refused(409, "this model is the live one; nothing has changed")
            return wanted.stage(before, spec.name, model)

        async with self.changes.alone() as before:
            wish = change(before)
            self._place(file.path, model)
            with beside():
                after = await self._made(before, wish, seconds, spec.name)
        return next(one for one in wanted.versions(after, spec.name, self.own(spec.name)) if one.sha256 == file.sha256)

    async def change(self, step: str, how: Callable[[Wanted], Wanted], seconds: float) -> Wanted:
        """What is wanted then; `Refused` when there is nothing that it could be done to."""
        async with self.changes.alone() as before:
            with _known():
                after = how(before)
            return await self._made(before, after, seconds, step)

    async def _made(self, before: Wanted, after: Wanted, seconds: float, step: str) -> Wanted:
        try:
            return await self.changes.make(before, after, seconds, [step])
        finally:
            await asyncio.to_thread(self._sweep, _folders(before) | _folders(after))

    def _place(self, path: Path, model: Staged) -> None:
        place = self.state / model.path
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with suppress(PermissionError):  # it is who deploys who made it
            place.parent.chmod(0o777)  # in a container our user is another, and who deploys is to remove it one day
        path.replace(place)

    def _sweep(self, named: set[str]) -> None:
        """Models that nobody wants go: those that were `named`, and those that are old."""
        try:
            keep = _folders(self.changes.wanted())
        except Refused:  # who cannot tell removes nothing
            return
        for folder in (self.state / "models").glob("*/*"):
            name = folder.relative_to(self.state).as_posix()
            try:
                old = time.time() - folder.stat().st_mtime > FORGOTTEN_SECONDS
                if name not in keep and (name in named or old):
                    shutil.rmtree(folder)
            except OSError as error:
                log.warning("%s stays: %s", name, error)

    def named(self) -> set[str]:
        """The sha256 of every model that may become live again: those that are wanted, and the bundle's."""
        want, own = self.changes.wanted(), [spec.sha256 for spec in self.steps().values()]
        return {*own, *(one.sha256 for one in _all(want))}

    # ── what there is ────────────────────────────────────────────────────────────────────────────────────────────────

    def rows(self, info: dict[str, Any], reason: str) -> list[dict[str, Any]]:
        """Every version of every step as `/info` has it, and those that are not loaded: unloaded, or refused. `reason`
        is why the unit is not ready."""
        want, rows = self.changes.wanted(), [dict(row) for row in info.get("versions", ())]
        for name in self.steps():
            own = self.own(name)
            known = {row["sha256"] for row in rows if row["step"] == name}
            state, why = ("UNAVAILABLE", "unloaded") if name in want.unloaded else ("LOADING", reason)
            missing = [one for one in wanted.versions(want, name, own) if one.sha256 not in known]
            rows += [_row(name, one, state, why) for one in missing]
        for name, told in self.changes.refused().items():
            model = Staged("", str(told.get("sha256")), "", int(told.get("number") or 0))
            rows = [row for row in rows if (row["step"], row["sha256"]) != (name, model.sha256)]
            rows.append(_row(name, model, "UNAVAILABLE", str(told.get("reason"))))
        return rows


def _folders(want: Wanted) -> set[str]:
    """Those that it names, relative to the state folder."""
    return {Path(one.path).parent.as_posix() for one in _all(want) if one.path}


def _all(want: Wanted) -> list[Staged]:
    return [*want.models.values(), *(one for some in want.others.values() for one in some)]


def _row(step: str, model: Staged, state: str, reason: str) -> dict[str, Any]:
    said = {"step": step, "version": model.version, "number": model.number, "sha256": model.sha256}
    return {**said, "label": model.label, "state": state, "reason": reason}


@contextmanager
def _known() -> Iterator[None]:
    try:
        yield
    except NoVersion as error:
        raise Refused(404, str(error)) from None
