"""The whole chain on this machine, under the pipeline's lock; and its way back."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from packer_lib import artefacts, build, commands
from packer_lib import bundle as bundles
from packer_lib.bundle import Bundle
from packer_lib.errors import PolicyRefused, RollbackFailed
from packer_lib.hosts import Host
from packer_lib.hosts.home import must
from packer_lib.hosts.layout import Layout, program
from packer_lib.hosts.local import LocalHost
from packer_lib.hosts.lock import hold
from packer_lib.hosts.recording import rehearsal
from packer_lib.plan import Plan, Unit
from packer_lib.release import live, prune, records, supervisor, switch
from packer_lib.release.model import Action, Release, UnitStatus
from packer_lib.release.stage import check, stage
from packer_lib.settings import Settings

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Change:
    """What is to be done with one unit that is in the plan."""

    unit: Unit
    action: Action
    release: Release

    def status(self) -> UnitStatus:
        return UnitStatus(self.unit.name, self.action, self.release.id, self.release.endpoint)


def deploy(
    plan: Plan,
    settings: Settings,
    *,
    run: str = "",
    dry_run: bool = False,
    progress: Progress = print,
    host: Host | None = None,
) -> tuple[UnitStatus, ...]:
    """Every unit of the plan live and answering, or every unit as it was before.

    Artefacts, environments and checks come first and touch nothing that runs; what fails there leaves the machine as it
    was. From the switch on, `DeployFailed` says that all is back and `RollbackFailed` what is not.
    """
    refuse_what_is_elsewhere(plan)
    artefacts.require(plan, settings)
    machine = host or LocalHost(settings)
    if dry_run:
        return _rehearse(plan, settings, machine, progress)
    with live.locked(machine, plan, settings, run, progress), _tidied(machine, plan, settings) as made:
        changes = [_prepare_unit(machine, plan, unit, settings, run, progress, made) for unit in plan.units]
        vanished = switch.vanished(machine, Layout(str(settings.home)), plan)
        gone = [UnitStatus(unit, "remove", "", "") for unit in vanished]
        live.go_live(machine, plan, [change.release for change in changes], settings, progress)
    return (*(change.status() for change in changes), *gone)


def refuse_what_is_elsewhere(plan: Plan) -> None:
    """`PolicyRefused` for a plan that this module cannot carry out: containers, other machines, replicas."""
    name = plan.pipeline
    if plan.containerized:
        raise PolicyRefused(f"{name}: containers are not deployed by this command", "set `containerized: false`")
    remote = [unit.name for unit in plan.units if unit.machine is not None]
    if remote:
        raise PolicyRefused(f"{name}: {', '.join(remote)} belong to other machines", "set `deploy-mode: local`")
    many = [unit.name for unit in plan.units if unit.replicas > 1]
    if many:
        raise PolicyRefused(
            f"{name}: {', '.join(many)} want replicas, which native units do not have", "remove `replicas`"
        )


@contextmanager
def _tidied(host: Host, plan: Plan, settings: Settings) -> Iterator[list[str]]:
    """The digests of the bundles that are made go into the list: when the block fails, they go, and so does what was
    staged; unless a unit may still run from it."""
    made: list[str] = []
    try:
        yield made
    except RollbackFailed:
        raise
    except BaseException:
        prune.prune(host, Layout(str(settings.home)), plan.pipeline, settings.keep_releases, made)
        raise


def _prepare_unit(  # noqa: PLR0913
    host: Host, plan: Plan, unit: Unit, settings: Settings, run: str, progress: Progress, made: list[str]
) -> Change:
    with bundled(plan, unit, settings) as bundle:
        made.append(bundle.digest)
        environment = build.environment(host, bundle, settings, progress)
        check(host, plan, unit, bundle, environment)
        release = stage(host, plan, unit, bundle, environment, settings, run)
    action = _action(host, Layout(str(settings.home)), release)
    progress(f"{unit.name}: {action} ({release.id})")
    return Change(unit, action, release)


@contextmanager
def bundled(plan: Plan, unit: Unit, settings: Settings) -> Iterator[Bundle]:
    """The unit's bundle in a folder that is gone afterwards."""
    settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder = Path(tempfile.mkdtemp(prefix=".bundle-", dir=settings.home))
    try:
        yield bundles.write(plan, unit, artefacts.fetch(plan, unit, settings), folder / unit.name, settings)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _action(host: Host, layout: Layout, release: Release) -> Action:
    former = records.current(host, layout, release.pipeline, release.unit)
    if former is None:
        return "create"
    alive = supervisor.ask(host, layout, program(release.pipeline, release.unit)).alive
    same = former.id == release.id and switch.is_installed(host, layout, release)
    return "nothing" if same and alive else "replace"


def undeploy(pipeline: str, settings: Settings, *, progress: Progress = print, host: Host | None = None) -> list[str]:
    """Stops and removes every unit of the pipeline and all that is kept of it, logs too; its names. Environments stay:
    they are shared, and make the next deploy fast. The last unit of the machine takes supervisor with it."""
    machine, layout = host or LocalHost(settings), Layout(str(settings.home))
    with hold(machine, layout, pipeline, "undeploy", progress=progress):
        names = records.units(machine, layout, pipeline)
        for unit in names:
            progress(f"{unit}: remove")
            switch.take_down(machine, layout, pipeline, unit)
        used = {release.bundle for unit in names for release in records.history(machine, layout, pipeline, unit)}
        paths = [path for unit in names for path in layout.of_unit(pipeline, unit)]
        must(machine, commands.remove(layout.releases(pipeline), *paths))
        prune.remove_bundles(machine, layout, used)
        supervisor.stop_if_idle(machine, layout)
    return names


def _rehearse(plan: Plan, settings: Settings, host: Host, progress: Progress) -> tuple[UnitStatus, ...]:
    """What a deploy would do, unit by unit; only the store of artefacts is written to."""
    layout = Layout(str(settings.home))
    double = rehearsal(host)
    statuses = []
    for unit in plan.units:
        with bundled(plan, unit, settings) as bundle:
            former = records.current(double, layout, plan.pipeline, unit.name)
            action: Action = "create" if former is None else "nothing" if former.bundle == bundle.digest else "replace"
        progress(f"{unit.name}: {action}")
        statuses.append(UnitStatus(unit.name, action, former.id if former else "", former.endpoint if former else ""))
    return (*statuses, *(UnitStatus(unit, "remove", "", "") for unit in switch.vanished(double, layout, plan)))
