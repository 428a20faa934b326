"""Phase 5 of going live (see `live`): on record here, and what is no longer needed is gone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from packer_lib import commands, kept
from packer_lib.errors import MLPackerError
from packer_lib.hosts import Host, boot
from packer_lib.hosts.home import must
from packer_lib.hosts.layout import Layout
from packer_lib.release import audit, models, prune, switch
from packer_lib.release.forms import named
from packer_lib.release.model import Release
from packer_lib.release.scene import Place

if TYPE_CHECKING:
    from packer_lib.release.live import Course


def settle(course: Course, live: Sequence[Release]) -> None:
    """Phase 5. What fails here is said and not undone: what is live is live."""
    found = course.scene
    kept.remember(found.plan.pipeline, kept.generation(found.plan, live), course.settings)
    before = kept.read(found.plan.pipeline, course.settings).machines
    there: set[str] = {place.machine.id for place in before if place.machine.id not in found.places}
    for place in found.places.values():
        try:
            _tidy(course, place, live)
        except MLPackerError as error:
            there |= {place.host.machine or ""}
            course.progress(f"left for the next deploy, on {place.host.name}: {error.message}")
    there |= {release.machine for release in live if release.machine}
    kept.settle(found.plan.pipeline, there, course.settings)


def _tidy(course: Course, place: Place, live: Sequence[Release]) -> None:
    host, plan = place.host, course.scene.plan
    mine = [release for release in live if release.machine == host.machine]
    gone = place.gone(plan)
    changes = {release.unit: release.id for release in mine if place.records.current.get(release.unit) != release}
    for release in mine:
        switch.stop_others(host, release, place.forms)
        _keep_models(course, host, release)
    for unit in gone:
        switch.take_down(host, plan.pipeline, unit, place.forms)
        must(host, commands.remove(*Layout(host.home).of_unit(plan.pipeline, unit)))
    if gone:
        former = [release for unit in gone for release in place.records.of(unit)]
        left = [release for unit, kept_ in place.records.history.items() if unit not in gone for release in kept_]
        prune.discard(host, former, left)
    if changes or gone:
        run = next((release.run for release in mine), "")
        audit.note(host, plan.pipeline, "live", {**changes, **dict.fromkeys(gone, "removed")}, run)
    if changes and not plan.containerized:
        boot.enable(host, course.progress)
    prune.prune(host, plan.pipeline, course.settings.keep_releases)
    if gone and not mine:
        for name in place.forms:
            named(name).tidy(host)


def _keep_models(course: Course, host: Host, release: Release) -> None:
    """Those that it answers with, and those that can be gone back to."""
    if release.models:
        place = models.Place(host, release, 1)
        models.end(place)
        models.sweep(place, course.settings)
