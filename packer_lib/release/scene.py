"""The machines of a pipeline as they were found: what every step of a deployment compares with, and comes back to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from packer_lib import kept
from packer_lib.errors import MLPackerError
from packer_lib.hosts import Host
from packer_lib.hosts.home import prepare
from packer_lib.hosts.layout import Layout
from packer_lib.hosts.lock import hold
from packer_lib.plan import Plan
from packer_lib.release import models, records, switch
from packer_lib.release.fleets import Machines, ordered, reached
from packer_lib.release.forms import form_of
from packer_lib.release.model import Action, FormName, Release
from packer_lib.release.records import Records
from packer_lib.settings import Settings

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Place:
    """One machine, and what it said of the pipeline's releases."""

    host: Host
    records: Records
    forms: tuple[FormName, ...]

    def gone(self, plan: Plan) -> list[str]:
        """Units that are here and, by the plan, are nowhere any more, or on another machine."""
        planned = {unit.name for unit in plan.units if unit.machine == self.host.machine}
        live = [unit for form in self.forms for unit in _units(self.host, form, plan.pipeline)]
        return [unit for unit in sorted({*self.records.units, *live}) if unit not in planned]


@dataclass(frozen=True, slots=True)
class Scene:
    """By machine; this machine is always one, and the ones that the pipeline ran on before are, if they answer."""

    plan: Plan
    places: dict[str | None, Place]

    def host(self, release: Release) -> Host:
        return self.places[release.machine].host

    def former(self, unit: str, machine: str | None) -> Release | None:
        return self.places[machine].records.current.get(unit)

    def ran(self, unit: str) -> bool:
        """Whether any release of the unit was live on any of them."""
        return any(unit in place.records.current for place in self.places.values())


def action_of(found: Scene, release: Release) -> Action:
    """What putting this release live there means."""
    former = found.former(release.unit, release.machine)
    if former is None:
        return "create"
    if former.id != release.id:
        return "replace"
    if switch.is_live(found.host(release), release):
        return "nothing" if models.has(found.host(release), release) else "swap"
    return "replace" if former.replicas == release.replicas else "scale"


def look(fleet: Machines, plan: Plan, settings: Settings, progress: Progress) -> Scene:
    return Scene(plan, {host.machine: _place(host, plan) for host in hosts(fleet, plan, settings, progress)})


def hosts(fleet: Machines, plan: Plan, settings: Settings, progress: Progress) -> list[Host]:
    """This machine, the plan's, and those that something of it was on before; only these may be out of reach."""
    planned = {None, *(unit.machine for unit in plan.units)}
    before = {place.machine.id for place in kept.read(plan.pipeline, settings).machines}
    found = []
    for machine in ordered({*planned, *before}):
        host = reached(fleet, machine)
        if not isinstance(host, MLPackerError):
            found.append(host)
        elif machine in planned:
            raise host
        else:
            progress(f"{machine} is no longer in the plan and cannot be reached; what runs there stays: {host.message}")
    return found


def _place(host: Host, plan: Plan) -> Place:
    found = records.read(host, plan.pipeline)
    return Place(host, found, forms(found, "container" if plan.containerized else "native"))


def forms(found: Records, also: FormName | None = None) -> tuple[FormName, ...]:
    """The forms that units of these records have or had."""
    had: list[FormName] = [release.form for releases in found.history.values() for release in releases]
    had += [release.form for release in found.current.values()]
    return tuple(dict.fromkeys([*([also] if also else []), *had]))


def _units(host: Host, form: FormName, pipeline: str) -> Sequence[str]:
    from packer_lib.release.forms import named

    return named(form).units(host, pipeline)


@contextmanager
def locked_hosts(found: Sequence[Host], pipeline: str, why: str, progress: Progress) -> Iterator[None]:
    """The pipeline's lock on each of them, in their order; `Busy` says who holds one, and then none is held."""
    with ExitStack() as stack:
        for host in found:
            layout = Layout(host.home)
            prepare(host, layout)
            stack.enter_context(hold(host, layout, pipeline, why, progress=progress))
        yield


__all__ = ["Place", "Scene", "action_of", "form_of", "forms", "hosts", "locked_hosts", "look"]
