"""Versions of a step's model, in a unit that runs: brought beside the live one, made live, or taken away again.

A person's word, by `mlpacker swap`; a deploy says the same with its file (`live`). How it comes about is in `models`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from difflib import get_close_matches

from packer_lib import artefacts, commands, kept
from packer_lib.artefacts import Artefact
from packer_lib.errors import MLPackerError
from packer_lib.padl.model import Step
from packer_lib.plan import Plan, Unit, from_dict
from packer_lib.release import fleets, models, records, scene, switch
from packer_lib.release.fleets import Machines
from packer_lib.release.model import Action, UnitStatus
from packer_lib.release.models import Place
from packer_lib.runtime import wanted
from packer_lib.runtime.wanted import NoVersion, Staged, Wanted
from packer_lib.settings import Settings

Progress = Callable[[str], None]
Change = Callable[[Wanted, Staged], Wanted]  # what is wanted now, the bundle's model → what is to be


class NotSwappable(MLPackerError):
    """There is no such step or version, or not one whose model can be another while it runs; says what there is."""

    exit_code = 2


@dataclass(frozen=True, slots=True)
class Target:
    """A model step of a unit that runs."""

    plan: Plan
    unit: Unit
    step: Step
    place: Place
    settings: Settings
    progress: Progress


def swap(  # noqa: PLR0913
    pipeline: str,
    step: str,
    model: str,
    settings: Settings,
    *,
    sha256: str = "",
    stage: bool = False,
    progress: Progress = print,
    fleet: Machines | None = None,
) -> tuple[UnitStatus, ...]:
    """`step` answers with `model`, a path or URL, in every process; `DeployFailed` when it does not and the model that
    was live is again, `RollbackFailed` when not even that is known. With `stage` the model is only loaded beside the
    live one, as its candidate.

    The model is held to what a deploy holds it to: where it may be, what its bytes are, what strict mode asks for, and
    `sha256` if given.
    """
    plan = _plan(pipeline, settings)
    _, found = _step(plan, step)
    artefact, serializer = artefacts.fetch_another(plan, found, model, sha256, settings, progress)
    what = "stage" if stage else "swap"
    with _locked(plan, step, what, settings, progress, fleet) as target:
        fresh = _put(target, artefact, serializer)
        if stage:
            return _change(target, "stage", lambda want, own: _staged(want, step, own, fresh))
        return _change(target, "swap", lambda want, own: wanted.swap(want, step, own, fresh, found.versions))


def promote(
    pipeline: str, step: str, settings: Settings, *, progress: Progress = print, fleet: Machines | None = None
) -> tuple[UnitStatus, ...]:
    """The candidate of `step` is what everybody gets. Errors as `swap`; `NotSwappable` when there is none."""
    with _locked(_plan(pipeline, settings), step, "promote", settings, progress, fleet) as target:
        policy = target.step.versions
        return _change(target, "swap", lambda want, own: wanted.promote(want, step, own, policy))


def discard(
    pipeline: str, step: str, settings: Settings, *, progress: Progress = print, fleet: Machines | None = None
) -> tuple[UnitStatus, ...]:
    """The candidate of `step` is gone."""
    with _locked(_plan(pipeline, settings), step, "discard", settings, progress, fleet) as target:
        return _change(target, "discard", lambda want, _: wanted.discard(want, step))


def shadow(
    pipeline: str,
    step: str,
    share: float,
    settings: Settings,
    *,
    progress: Progress = print,
    fleet: Machines | None = None,
) -> tuple[UnitStatus, ...]:
    """The candidate of `step` gets copies of `share` (0 to 1; 0: none) of what the step is asked, answering nobody."""
    if not 0 <= share <= 1:
        raise NotSwappable(f"{share:g} is no share", "from 0 (none) to 1 (all), such as 0.1")
    with _locked(_plan(pipeline, settings), step, "shadow", settings, progress, fleet) as target:
        return _change(target, "shadow", lambda want, _: wanted.shadow(want, step, share))


@contextmanager
def _locked(
    plan: Plan, step: str, what: str, settings: Settings, progress: Progress, fleet: Machines | None
) -> Iterator[Target]:
    unit, found = _step(plan, step)
    with fleets.of_plan(plan, settings, None, fleet) as machines:
        host = machines[unit.machine]
        with scene.locked_hosts([host], plan.pipeline, f"{what} {step}", progress):
            release = records.read(host, plan.pipeline).current.get(unit.name)
            if release is None or not switch.is_live(host, release):
                raise NotSwappable(
                    f"{plan.pipeline}.{unit.name} does not run on {host.name}", "deploy it; see mlpacker status"
                )
            if not models.has_state(host, release):
                raise NotSwappable(f"{plan.pipeline}.{unit.name} was deployed without a state folder", "deploy again")
            yield Target(plan, unit, found, models.place(host, release), settings, progress)


def _put(target: Target, artefact: Artefact, serializer: str) -> Staged:
    """The model on the unit's machine, wanted by nobody yet."""
    place, source = target.place, artefact.path
    name = f"model.{serializer}" if source.is_file() else "model"
    path = f"models/{target.step.name}/{artefact.digest}/{name}"
    place.host.put(source, f"{place.state}/{path}", models.READABLE if source.is_file() else None)
    place.host.run(commands.readable(f"{place.state}/models/{target.step.name}/{artefact.digest}"))
    target.progress(f"{place.name}: model {artefact.digest[:12]} is there, waiting for {models.said(place)}")
    return Staged(path, artefact.digest, serializer)


def _change(target: Target, action: Action, change: Change) -> tuple[UnitStatus, ...]:
    """Every process has what `change` makes of what is wanted now, and it is on record."""
    place, step, settings = target.place, target.step.name, target.settings
    before, own = models.read(place), place.own[step]
    try:
        after = change(before, own)
    except NoVersion as error:
        raise NotSwappable(f"{target.plan.pipeline}: {error.args[0]}", _advice(target)) from None
    models.bring(place, after, settings, target.progress)
    was, now = (wanted.live(want, step, own).sha256 for want in (before, after))
    release = models.settle(place, {**dict(place.release.models), step: now}, f"{action} {step}")
    _remember(target, dict(release.models))
    models.sweep(replace(place, release=release), settings, {was})
    done: Action = "nothing" if action == "swap" and was == now else action
    return (UnitStatus(target.unit.name, done, release.id, release.endpoint, target.unit.machine),)


def _staged(want: Wanted, step: str, own: Staged, fresh: Staged) -> Wanted:
    if wanted.live(want, step, own).sha256 == fresh.sha256:
        raise NotSwappable(f"model {fresh.version} is the live one of {step!r}", "nothing has changed")
    return wanted.stage(want, step, fresh)


def _remember(target: Target, live: dict[str, str]) -> None:
    """So that a rollback comes back to it, and to what was before."""
    last = kept.read(target.plan.pipeline, target.settings).generations[-1]
    now = replace(last, models={**last.models, target.unit.name: live}, since=kept.now())
    kept.remember(target.plan.pipeline, now, target.settings)


def _advice(target: Target) -> str:
    return f"mlpacker swap {target.plan.pipeline} {target.step.name} MODEL --stage loads one beside the live model"


def _plan(pipeline: str, settings: Settings) -> Plan:
    generations = kept.read(pipeline, settings).generations
    if not generations:
        there = ", ".join(kept.pipelines(settings)) or "nothing"
        raise NotSwappable(f"no pipeline {pipeline!r} was deployed from here", f"there is {there}")
    return from_dict(generations[-1].plan)


def _step(plan: Plan, name: str) -> tuple[Unit, Step]:
    steps = {step.name: (unit, step) for unit in plan.units for step in unit.steps}
    named = ", ".join(name for name, (_, step) in steps.items() if step.kind == "model") or "none"
    if name not in steps:
        near = get_close_matches(name, steps, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise NotSwappable(f"{plan.pipeline} has no step {name!r}", f"{hint}Its model steps: {named}")
    if steps[name][1].kind != "model":
        raise NotSwappable(f"{plan.pipeline}: step {name!r} is code, which only a deploy changes", f"models: {named}")
    return steps[name]
