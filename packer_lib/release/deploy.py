"""The whole chain on every machine of a plan, under the pipeline's lock on each of them."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from packer_lib import artefacts, build, kept
from packer_lib import bundle as bundles
from packer_lib.bundle import Bundle
from packer_lib.errors import MLPackerError, RollbackFailed
from packer_lib.hosts import Host
from packer_lib.hosts.recording import rehearsal
from packer_lib.plan import Plan, Unit
from packer_lib.release import fleets, live, models, prune, records, same, scene
from packer_lib.release.fleets import Machines
from packer_lib.release.model import Action, Release, UnitStatus
from packer_lib.release.ready import preflight
from packer_lib.release.scene import Scene, action_of
from packer_lib.release.stage import check, stage, told_with_place, variables
from packer_lib.settings import Settings

if TYPE_CHECKING:
    from packer_lib import images

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Change:
    """What is to be done with one unit that is in the plan."""

    unit: Unit
    action: Action
    release: Release

    def status(self) -> UnitStatus:
        return UnitStatus(self.unit.name, self.action, self.release.id, self.release.endpoint, self.unit.machine)


@dataclass(frozen=True, slots=True)
class Job:
    """One deployment. `made` are the digests of bundles that it put on machines: (machine, digest)."""

    fleet: Machines
    plan: Plan
    settings: Settings
    run: str
    progress: Progress
    made: list[tuple[str | None, str]] = field(default_factory=list)


def deploy(  # noqa: PLR0913
    plan: Plan,
    settings: Settings,
    *,
    run: str = "",
    dry_run: bool = False,
    progress: Progress = print,
    fleet: Machines | None = None,
    text: str | None = None,
) -> tuple[UnitStatus, ...]:
    """Every unit of the plan live and answering on its machine, or every unit everywhere as it was before.

    Artefacts, environments, images and checks come first and touch nothing that runs; what fails there leaves the
    machines as they were. From the switch on, `DeployFailed` says that all is back and `RollbackFailed` what is not.
    `fleet`: the machines of the plan, connected by us when not given; `text`: the PADL file's, when that is not where
    the plan says.
    """
    for warning in artefacts.require(plan, settings):
        progress(str(warning))
    with fleets.of_plan(plan, settings, text, fleet) as machines:
        if dry_run:
            return _rehearse(machines, plan, settings, progress)
        preflight(machines, plan, settings, progress)
        found = scene.hosts(machines, plan, settings, progress)
        why = f"deploy {run}".strip()
        job = Job(machines, plan, settings, run, progress)
        with scene.locked_hosts(found, plan.pipeline, why, progress), _tidied(job):
            return _deploy(job, text)


def _deploy(job: Job, text: str | None) -> tuple[UnitStatus, ...]:
    plan, settings = job.plan, job.settings
    kept.expect(plan, text, settings)
    course = live.Course(scene.look(job.fleet, plan, settings, job.progress), settings, job.progress)
    changes = [_prepare_unit(job, course.scene, unit) for unit in plan.units]
    gone = [(place.host.machine, unit) for place in course.scene.places.values() for unit in place.gone(plan)]
    live.go_live(course, [change.release for change in changes])
    return (*(change.status() for change in changes), *(_removal(unit, machine) for machine, unit in gone))


def _removal(unit: str, machine: str | None) -> UnitStatus:
    return UnitStatus(unit, "remove", "", "", machine)


@contextmanager
def _tidied(job: Job) -> Iterator[None]:
    """The bundles that were put on machines go when the block fails, and so does what was staged; unless a unit may
    still run from it."""
    try:
        yield
    except RollbackFailed:
        raise
    except BaseException:
        machines = fleets.ordered({unit.machine for unit in job.plan.units})
        left = {machine for machine in machines if not _tidy(job, machine)}
        others = {place.machine.id for place in kept.read(job.plan.pipeline, job.settings).machines} - {*machines}
        kept.settle(job.plan.pipeline, {machine for machine in {*left, *others} if machine}, job.settings)
        raise


def _tidy(job: Job, machine: str | None) -> bool:
    """Whether nothing of the pipeline is left on that machine."""
    also = [digest for where, digest in job.made if where == machine]
    try:
        host = job.fleet[machine]
        prune.prune(host, job.plan.pipeline, job.settings.keep_releases, also)
        return not records.folders(host, job.plan.pipeline)
    except MLPackerError as error:
        job.progress(f"left for the next deploy, on {machine or 'this machine'}: {error.message}")
        return False


def _prepare_unit(job: Job, found: Scene, unit: Unit) -> Change:
    with bundled(job.plan, unit, job.settings) as bundle:
        release = same.as_it_runs(job.fleet, job.plan, unit, bundle, job.settings, job.run)
        if release is not None:
            same.put_models(job.fleet[unit.machine], release, bundle)
        else:
            release = _made(job, unit, bundle)
    action = action_of(found, release)
    where = f" on {unit.machine}" if unit.machine else ""
    job.progress(f"{unit.name}: {action} ({release.id}){where}")
    return Change(unit, action, release)


def _made(job: Job, unit: Unit, bundle: Bundle) -> Release:
    job.made.append((unit.machine, bundle.digest))
    made = _container(job, unit, bundle) if job.plan.containerized else _native(job, unit, bundle)
    return stage(job.fleet, job.plan, unit, bundle, made, job.settings, job.run)


def _native(job: Job, unit: Unit, bundle: Bundle) -> build.Environment:
    host = job.fleet[unit.machine]
    environment = build.environment(host, bundle, job.settings, job.progress)
    check(host, job.plan, unit, bundle, environment)
    return environment


def _container(job: Job, unit: Unit, bundle: Bundle) -> images.Image:
    from packer_lib import images

    image = images.build(bundle, job.plan, unit, job.settings, job.progress)
    with told_with_place(job.plan, unit):
        images.check(image, job.settings, variables(job.plan, unit))
    registry = images.registry_of(job.settings, job.plan)
    if registry:
        image = images.push(image, registry, job.settings, job.progress)
    images.deliver(job.fleet[unit.machine], image, registry, job.settings, job.progress)
    return image


@contextmanager
def bundled(plan: Plan, unit: Unit, settings: Settings) -> Iterator[Bundle]:
    """The unit's bundle in a folder that is gone afterwards."""
    settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder = Path(tempfile.mkdtemp(prefix=".bundle-", dir=settings.home))
    try:
        yield bundles.write(plan, unit, artefacts.fetch(plan, unit, settings), folder / unit.name, settings)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _rehearse(fleet: Machines, plan: Plan, settings: Settings, progress: Progress) -> tuple[UnitStatus, ...]:
    """What a deploy would do, unit by unit; only the store of artefacts is written to."""
    doubles = {host.machine: rehearsal(host) for host in scene.hosts(fleet, plan, settings, progress)}
    there = scene.look(doubles, plan, settings, progress)
    statuses = []
    for unit in plan.units:
        with bundled(plan, unit, settings) as bundle:
            former = there.former(unit.name, unit.machine)
            action = _rehearsed(doubles[unit.machine], plan, unit, former, bundle, settings)
        progress(f"{unit.name}: {action}")
        known = (former.id, former.endpoint) if former else ("", "")
        statuses.append(UnitStatus(unit.name, action, *known, unit.machine))
    gone = [(place.host.machine, unit) for place in there.places.values() for unit in place.gone(plan)]
    return (*statuses, *(_removal(unit, machine) for machine, unit in gone))


def _rehearsed(
    host: Host, plan: Plan, unit: Unit, former: Release | None, bundle: Bundle, settings: Settings
) -> Action:
    if former is None:
        return "create"
    if former.bundle != bundle.digest and not same.differs_in_models(plan, unit, former, bundle, settings):
        return "replace"
    if not models.has(host, replace(former, models=bundle.models)):
        return "swap"
    return "nothing" if former.replicas == unit.replicas else "scale"
