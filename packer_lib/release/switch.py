"""Which release of a unit is live on its machine: one put there, the others gone, a unit taken down."""

from __future__ import annotations

from packer_lib.errors import DeployFailed
from packer_lib.hosts import Host
from packer_lib.hosts.layout import program
from packer_lib.release import records
from packer_lib.release.forms import form_of, named
from packer_lib.release.model import FormName, Release
from packer_lib.release.state import State


def is_live(host: Host, release: Release) -> bool:
    """Its process runs, and the unit's public port is its own."""
    return _state(host, release).alive and _has_the_door(host, release)


def has_taken_over(host: Host, release: Release) -> bool:
    """It is the one that is to run, whether or not it does."""
    return _state(host, release).word not in ("UNKNOWN", "STOPPED") and _has_the_door(host, release)


def _state(host: Host, release: Release) -> State:
    return form_of(release).state(host, release.pipeline, release.unit, release.id)


def _has_the_door(host: Host, release: Release) -> bool:
    return not release.has_door or form_of(release).door(host, release, "status").get("current") == release.id


def begin(host: Host, release: Release) -> None:
    """Its process runs, beside what runs already."""
    form = form_of(release)
    form.create(host, release, records.launch(host, release))
    form.start(host, release)


def take_over(host: Host, release: Release) -> None:
    """The public port is this release's from here on; no connection to it is refused or cut meanwhile."""
    answer = form_of(release).door(host, release, "switch", release.id)
    if "error" in answer:
        name = program(release.pipeline, release.unit)
        raise DeployFailed(f"{name} on {host.name}: {answer['error']}", "look at its log, then deploy again")


def replace(host: Host, release: Release, forms: tuple[FormName, ...]) -> None:
    """For a unit without a door: what runs stops, in order, and then this release starts."""
    stop_others(host, release, forms)
    begin(host, release)


def stop_others(host: Host, release: Release, forms: tuple[FormName, ...]) -> None:
    """Every other release of the unit, and its door of another form."""
    for name in forms:
        form = named(name)
        for identity in form.started(host, release.pipeline, release.unit):
            if name != release.form or identity != release.id:
                form.stop(host, release.pipeline, release.unit, identity)
        if name != release.form:
            form.close_door(host, release.pipeline, release.unit)


def take_down(host: Host, pipeline: str, unit: str, forms: tuple[FormName, ...]) -> bool:
    """No process of the unit and no door of it; False when there was none."""
    found = False
    for name in forms:
        form = named(name)
        for identity in form.started(host, pipeline, unit):
            form.stop(host, pipeline, unit, identity)
            found = True
        form.close_door(host, pipeline, unit)
    return found
