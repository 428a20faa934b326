"""Back to releases that were live together before, on all machines; only to what is still on each of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from packer_lib import kept
from packer_lib.errors import MLPackerError
from packer_lib.kept import Generation
from packer_lib.plan import from_dict
from packer_lib.release import fleets, live, models, scene
from packer_lib.release.fleets import Machines
from packer_lib.release.model import Release, UnitStatus
from packer_lib.release.scene import Scene
from packer_lib.settings import Settings

Progress = Callable[[str], None]


class NoWayBack(MLPackerError):
    """There is no such generation, or it is no longer on its machines; says what there is."""

    exit_code = 2


def rollback(
    pipeline: str,
    settings: Settings,
    release: str = "",
    *,
    progress: Progress = print,
    fleet: Machines | None = None,
) -> tuple[UnitStatus, ...]:
    """What was live before, or the newest generation with `release` in it, live again by the same steps as a deploy.

    Going back twice is where it began. `NoWayBack` lists what can be gone back to.
    """
    generations = kept.read(pipeline, settings).generations
    wanted = _wanted(pipeline, generations, release)
    plan = from_dict(wanted.plan)
    with fleets.of_plan(plan, settings, None, fleet) as machines:
        found = scene.hosts(machines, plan, settings, progress)
        with scene.locked_hosts(found, pipeline, "rollback", progress):
            kept.expect(plan, None, settings)
            course = live.Course(scene.look(machines, plan, settings, progress), settings, progress)
            releases = _releases(course.scene, wanted, generations)
            actions = [scene.action_of(course.scene, one) for one in releases]
            gone = [(place.host.machine, unit) for place in course.scene.places.values() for unit in place.gone(plan)]
            live.go_live(course, releases)
    done = [
        UnitStatus(one.unit, action, one.id, one.endpoint, one.machine)
        for action, one in zip(actions, releases, strict=True)
    ]
    return (*done, *(UnitStatus(unit, "remove", "", "", machine) for machine, unit in gone))


def _wanted(pipeline: str, generations: Sequence[Generation], release: str) -> Generation:
    if not generations:
        raise NoWayBack(
            f"nothing is known here of a deployment of {pipeline!r}", "deploy it, or ask where it was deployed"
        )
    for one in reversed(generations if release else generations[:-1]):
        if not release or any(identity == release for identity, _ in one.units.values()):
            return one
    what = f"no release {release!r} was live" if release else "nothing was live before what is live now"
    raise NoWayBack(f"{pipeline}: {what}", _listed(generations))


def _listed(generations: Sequence[Generation]) -> str:
    lines = []
    for one in generations:
        units = ", ".join(f"{unit} {identity}" for unit, (identity, _) in one.units.items())
        lines.append(f"{one.since}  {units}{'  (live)' if one is generations[-1] else ''}")
    return "there is\n    " + "\n    ".join(lines)


def _releases(found: Scene, wanted: Generation, generations: Sequence[Generation]) -> list[Release]:
    """In the order of the plan; every one of them still on its machine."""
    there, missing = [], []
    for unit in found.plan.units:
        identity, machine = wanted.units[unit.name]
        kept_ = found.places[machine].records.of(unit.name) if machine in found.places else ()
        release = next((one for one in kept_ if one.id == identity), None)
        if release is None:
            missing.append(f"{unit.name} {identity} is no longer on {machine or 'this machine'}")
            continue
        told = wanted.models.get(unit.name, {})  # none of one from before they were kept
        live = tuple((step, told.get(step, sha256)) for step, sha256 in release.models)
        there.append(replace(release, replicas=unit.replicas, models=live))
        missing += models.missing(models.Place(found.host(release), there[-1], 1))
    if missing:
        raise NoWayBack(f"{found.plan.pipeline}: {'; '.join(missing)}", _listed(generations))
    return there
