"""Which release of a unit is live on its machine: one put there, the others gone, a unit taken down."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from packer_lib.errors import DeployFailed
from packer_lib.hosts import Host
from packer_lib.hosts.layout import program
from packer_lib.release import records
from packer_lib.release.forms import Form, form_of, named
from packer_lib.release.model import FormName, Release, number_of, release_of
from packer_lib.release.state import State


def is_live(host: Host, release: Release) -> bool:
    """As many processes of it run as are to, and the unit's public port is its own."""
    form = form_of(release)
    there = {one for one in form.started(host, release.pipeline, release.unit) if release_of(one) == release.id}
    complete = there == {*release.processes} and all(state.alive for state in _states(host, release))
    return complete and _has_the_door(host, release)


def has_taken_over(host: Host, release: Release) -> bool:
    """It is the one that is to run, whether or not it does."""
    words = {state.word for state in _states(host, release)}
    return not words & {"UNKNOWN", "STOPPED"} and _has_the_door(host, release)


def _states(host: Host, release: Release) -> list[State]:
    return [_state(host, release, process) for process in release.processes]


def _state(host: Host, release: Release, process: str) -> State:
    return form_of(release).state(host, release.pipeline, release.unit, process)


def _has_the_door(host: Host, release: Release) -> bool:
    return not release.has_door or form_of(release).door(host, release, "status").get("current") == release.id


def begin(host: Host, release: Release, process: str = "") -> None:
    """That process of it, or the first, runs beside what runs already."""
    form = form_of(release)
    form.create(host, release, records.launch(host, release))
    form.start(host, release, process)


def take_over(host: Host, release: Release) -> None:
    """The public port is this release's from here on; no connection to it is refused or cut meanwhile."""
    answer = form_of(release).door(host, release, "switch", release.id)
    if "error" in answer:
        name = program(release.pipeline, release.unit)
        raise DeployFailed(f"{name} on {host.name}: {answer['error']}", "look at its log, then deploy again")


def replace(host: Host, release: Release, forms: tuple[FormName, ...], ready: Callable[[str], None]) -> None:
    """For a unit without a door: what runs stops, in order, and then this release starts, as far as it does not run.

    The first of several is `ready` before the others start: it goes on in the session that the unit had when it was
    alone, and until then that gets every message.
    """
    stop_others(host, release, forms)
    first, *others = release.processes
    _ensure(host, release, first)
    if others:
        ready(first)
    for process in others:
        _ensure(host, release, process)


def _ensure(host: Host, release: Release, process: str) -> None:
    if not _state(host, release, process).alive:
        begin(host, release, process)


def stop_others(host: Host, release: Release, forms: tuple[FormName, ...]) -> None:
    """Every process of the unit that is not one of this release, and its door of another form."""
    for name in forms:
        form = named(name)
        mine = release.processes if name == release.form else ()
        others = [one for one in form.started(host, release.pipeline, release.unit) if one not in mine]
        _end(form, host, release, others)
        if name != release.form:
            form.close_door(host, release.pipeline, release.unit)


def _end(form: Form, host: Host, release: Release, processes: Sequence[str]) -> None:
    """Who has no successor of its number first: what it gives back goes to those that are left."""
    retired = [process for process in processes if number_of(process) >= release.replicas]
    if retired:
        form.retire(host, release.pipeline, release.unit, *retired)
    if stopped := [process for process in processes if process not in retired]:
        form.stop(host, release.pipeline, release.unit, *stopped)


def take_down(host: Host, pipeline: str, unit: str, forms: tuple[FormName, ...]) -> bool:
    """No process of the unit and no door of it; False when there was none. When it comes back, it may be alone: only
    the first replica leaves its broker's messages for then."""
    found = False
    for name in forms:
        form = named(name)
        there = form.started(host, pipeline, unit)
        if several := [process for process in there if number_of(process)]:
            form.retire(host, pipeline, unit, *several)
        if first := [process for process in there if process not in several]:
            form.stop(host, pipeline, unit, *first)
        found |= bool(there)
        form.close_door(host, pipeline, unit)
    return found
