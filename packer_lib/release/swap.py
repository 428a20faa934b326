"""A new model for a step of a streaming unit that runs: brought to its machine, wanted, and taken by every replica.

    <state>/models/<step>/<sha256>/model.<serializer>     put there first
    <state>/wanted.json                                   what the replicas read; says what is to be, by step
    <state>/swapped.<replica>.json                        what each of them answers

`<state>` is the release's own folder, so that another release begins with its own models. What a replica refuses is
taken back for all. The runtime's side is runtime/wanted.py.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from packer_lib import artefacts, commands, kept
from packer_lib.errors import DeployFailed, MLPackerError, RollbackFailed
from packer_lib.hosts import Host
from packer_lib.hosts.home import must, put_text
from packer_lib.hosts.layout import Layout
from packer_lib.padl.model import Step
from packer_lib.plan import Plan, Unit, from_dict
from packer_lib.release import audit, fleets, records, scene, switch
from packer_lib.release.fleets import Machines
from packer_lib.release.model import Release, UnitStatus
from packer_lib.release.scene import Scene
from packer_lib.settings import Settings

LOOK_EVERY = 0.2
READABLE = 0o644  # by the unit, which may be another user's process; a model and its digest are no secret
WANTED = "wanted.json"
Progress = Callable[[str], None]


class NotSwappable(MLPackerError):
    """There is no such step, or not one whose model can be another while it runs; says what there is."""

    exit_code = 2


@dataclass(frozen=True, slots=True)
class Place:
    """A release that runs on `host`, with `replicas` processes, and its state folder there."""

    host: Host
    release: Release
    replicas: int

    @property
    def state(self) -> str:
        return Layout(self.host.home).state(self.release.pipeline, self.release.unit, self.release.id)

    @property
    def name(self) -> str:
        where = "" if self.host.machine is None else f" on {self.host.name}"
        return f"{self.release.pipeline}.{self.release.unit}{where}"


def swap(  # noqa: PLR0913
    pipeline: str,
    step: str,
    model: str,
    settings: Settings,
    *,
    sha256: str = "",
    progress: Progress = print,
    fleet: Machines | None = None,
) -> tuple[UnitStatus, ...]:
    """`step` answers with `model`, a path or URL, on every replica; `DeployFailed` when it does not and the model that
    was live is again, `RollbackFailed` when not even that is known.

    The model is held to what a deploy holds it to: where it may be, what its bytes are, what strict mode asks for, and
    `sha256` if given.
    """
    plan = _plan(pipeline, settings)
    unit, found = _step(plan, step)
    artefact, serializer = artefacts.fetch_another(plan, found, model, sha256, settings, progress)
    with fleets.of_plan(plan, settings, None, fleet) as machines:
        host = machines[unit.machine]
        with scene.locked_hosts([host], pipeline, f"swap {step}", progress):
            place = _place(host, plan, unit)
            before = _wanted(place)
            path = f"models/{step}/{artefact.digest}/{_file_name(artefact.path, serializer)}"
            host.put(artefact.path, f"{place.state}/{path}", READABLE if artefact.path.is_file() else None)
            must(host, commands.readable(f"{place.state}/models"))
            progress(f"{place.name}: model {artefact.digest[:12]} is there, waiting for {_processes(place)}")
            own = {"path": path, "sha256": artefact.digest, "serializer": serializer}
            _bring(place, before, {**before["models"], step: own}, settings, progress)
            _settle(place, {**dict(place.release.models), step: artefact.digest}, f"swap {step}")
            _sweep(place, step, {artefact.digest, before["models"].get(step, {}).get("sha256", "")})
    release = place.release
    same = dict(release.models).get(step) == artefact.digest
    return (UnitStatus(unit.name, "nothing" if same else "swap", release.id, release.endpoint, unit.machine),)


def own_models(found: Scene, releases: Sequence[Release], settings: Settings, progress: Progress) -> None:
    """Releases that are live, and were swapped to other models than those of their bundles, have those again.

    The last word of a deploy: what the PADL file says is what is live. `DeployFailed` leaves all as it is by then.
    """
    for release in releases:
        known = found.places[release.machine].records.of(release.unit)
        former = next((one for one in known if one.id == release.id), release)
        if former.models == release.models:
            continue
        place = Place(found.host(release), former, found.plan.unit(release.unit).replicas)
        progress(f"{place.name}: back to the models of its file")
        _bring(place, _wanted(place), {}, settings, progress)
        _settle(place, dict(release.models), "swap back")


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


def _place(host: Host, plan: Plan, unit: Unit) -> Place:
    release = records.read(host, plan.pipeline).current.get(unit.name)
    if release is None or not switch.is_live(host, release):
        raise NotSwappable(f"{plan.pipeline}.{unit.name} does not run on {host.name}", "deploy it; see mlpacker status")
    if "MLPACKER_STATE" not in records.launch(host, release).env:
        raise NotSwappable(f"{plan.pipeline}.{unit.name} was deployed without a state folder", "deploy it again")
    return Place(host, release, max(1, unit.replicas))


def _file_name(path: Path, serializer: str) -> str:
    return f"model.{serializer}" if path.is_file() else "model"


def _wanted(place: Place) -> dict[str, Any]:
    """What its replicas read now; nothing by default, which is the models of the bundle."""
    found = place.host.run(commands.read(f"{place.state}/{WANTED}"))
    return json.loads(found.out) if found.ok else {"id": "", "models": {}}


def _bring(
    place: Place, before: Mapping[str, Any], models: Mapping[str, Any], settings: Settings, progress: Progress
) -> None:
    """Every replica has `models`, or all have again what they had `before`."""
    with _or_as_before(place, before, settings, progress):
        _want(place, models, settings.ready_timeout, progress)


@contextmanager
def _or_as_before(place: Place, before: Mapping[str, Any], settings: Settings, progress: Progress) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        progress(f"{place.name}: back to the model that was live")
        try:
            _want(place, before["models"], settings.ready_timeout, progress)
        except MLPackerError as second:
            why = error.message if isinstance(error, MLPackerError) else type(error).__name__
            raise RollbackFailed(f"{why}\nand the way back failed: {second.message}", second.hint) from error
        raise


def _want(place: Place, models: Mapping[str, Any], seconds: float, progress: Progress) -> None:
    """Returns when all replicas say that they have `models`; `DeployFailed` says what the first that will not says."""
    wish = uuid.uuid4().hex[:12]
    must(place.host, commands.make_folders(place.state))
    put_text(place.host, json.dumps({"id": wish, "models": dict(models)}), f"{place.state}/{WANTED}", READABLE)
    end, waiting = time.monotonic() + seconds, set(range(place.replicas))
    while waiting:
        for replica in sorted(waiting):
            if _is_live(place, replica, wish):
                waiting.discard(replica)
                progress(f"{place.name}: {place.replicas - len(waiting)} of {_processes(place)} answer with it")
        if waiting and time.monotonic() > end:
            raise _silent(place, sorted(waiting), seconds)
        time.sleep(LOOK_EVERY if waiting else 0)


def _is_live(place: Place, replica: int, wish: str) -> bool:
    told = _told(place, replica)
    if told.get("id") != wish:
        return False
    if told.get("state") != "live":
        raise DeployFailed(
            f"{place.name}: replica {replica} refuses the model: {told.get('reason')}",
            "the model that was live still answers",
        )
    return True


def _told(place: Place, replica: int) -> dict[str, Any]:
    """What it answered last; nothing where the unit wrote what is none."""
    found = place.host.run(commands.read(f"{place.state}/swapped.{replica}.json"))
    try:
        told = json.loads(found.out) if found.ok else {}
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def _silent(place: Place, waiting: Sequence[int], seconds: float) -> DeployFailed:
    names = ", ".join(map(str, waiting))
    return DeployFailed(
        f"{place.name}: no answer of replica {names} in {seconds:g} s; a batch that takes long ends first",
        "see mlpacker status and logs; MLPACKER__DEPLOY__READY_TIMEOUT sets how many seconds it may take",
    )


def _processes(place: Place) -> str:
    return "1 process" if place.replicas == 1 else f"{place.replicas} processes"


def _settle(place: Place, models: Mapping[str, str], what: str) -> None:
    """On record, as what is live and what can be gone back to."""
    release, layout = place.release, Layout(place.host.home)
    text = replace(release, models=tuple((step, models[step]) for step, _ in release.models)).to_json()
    put_text(place.host, text, f"{layout.history(release.pipeline, release.unit, release.id)}/release.json")
    put_text(place.host, text, layout.current(release.pipeline, release.unit))
    changed = [f"{step} {sha256[:12]}" for step, sha256 in models.items() if dict(release.models).get(step) != sha256]
    audit.note(place.host, release.pipeline, what, {release.unit: ", ".join(changed) or "nothing"}, release.run)


def _sweep(place: Place, step: str, needed: set[str]) -> None:
    """Models that are neither live nor were before; what cannot be removed is left for the next time."""
    folder = f"{place.state}/models/{step}"
    old = [name for name in place.host.run(commands.names(folder)).out.splitlines() if name not in needed]
    if old:
        place.host.run(commands.remove(*(f"{folder}/{name}" for name in old)))
