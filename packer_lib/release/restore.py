"""The way back: every unit of a pipeline, on every machine, as it was when it last answered."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from packer_lib import commands
from packer_lib.errors import DeployFailed, MLPackerError, RollbackFailed
from packer_lib.hosts import Host
from packer_lib.hosts.home import must, prepare, put_text
from packer_lib.hosts.layout import Layout
from packer_lib.release import models, prune, records, supervisor, switch
from packer_lib.release.model import Release
from packer_lib.release.scene import Place, Scene
from packer_lib.release.verify import private, public, wait_ready
from packer_lib.settings import Settings

Told = tuple[str | None, str, str]  # machine, unit, what became of it


def restore(scene: Scene, settings: Settings, touched: bool = True) -> list[Told]:
    """Puts every unit back on the release that the scene has for it and waits for it, removes those that had none, and
    says so by machine and unit.

    Goes on to the next unit, and machine, when one fails; then `RollbackFailed` names all that are not back. A machine
    that cannot be reached counts as back when nothing live was `touched` yet.
    """
    told: list[Told] = []
    failed: list[str] = []
    for machine, place in scene.places.items():
        try:
            told += _on(place, scene, settings, failed)
        except MLPackerError as error:
            if touched:
                failed.append(error.message)
            told.append((machine, "*", f"not reached; what is live there was {'' if touched else 'not '}touched"))
    if failed:
        raise RollbackFailed("\n".join(failed), f"look at `mlpacker status {scene.plan.pipeline}`, then deploy again")
    return told


def _on(place: Place, scene: Scene, settings: Settings, failed: list[str]) -> list[Told]:
    host, pipeline = place.host, scene.plan.pipeline
    names = _names(place, scene)
    if not names:
        return []
    prepare(host, Layout(host.home))
    if "native" in place.forms:
        supervisor.configure(host, Layout(host.home))
    told, back = [], []
    for unit in names:
        former = place.records.current.get(unit)
        try:
            told.append((host.machine, unit, _put_back(place, pipeline, unit, former, settings)))
            back += [former] if former else []
        except MLPackerError as error:
            failed.append(error.message)
    failed += _not_ready(host, back, settings)
    if not failed:
        prune.prune(host, pipeline, settings.keep_releases)
    return told


def _names(place: Place, scene: Scene) -> list[str]:
    """Consumers first, as in a deploy."""
    planned = [unit.name for unit in scene.plan.units if unit.machine == place.host.machine]
    return list(dict.fromkeys([*planned, *place.records.units, *place.gone(scene.plan)]))


def _put_back(place: Place, pipeline: str, unit: str, former: Release | None, settings: Settings) -> str:
    host = place.host
    for release in place.records.of(unit):
        alive = former is not None and release.id == former.id and switch.is_live(host, former)
        models.take_back(host, release, alive, settings)
    if former is None:
        switch.take_down(host, pipeline, unit, place.forms)
        must(host, commands.remove(Layout(host.home).current(pipeline, unit)))
        return "removed, there was none before"
    if not switch.is_live(host, former):
        _bring_back(place, former, settings)
    switch.stop_others(host, former, place.forms)
    if records.read(host, pipeline).current.get(unit) != former:
        put_text(host, former.to_json(), Layout(host.home).current(pipeline, unit))
    return f"back on {former.id}"


def _bring_back(place: Place, former: Release, settings: Settings) -> None:
    """With a door the release that failed answers until the former one is ready again."""
    host = place.host
    if not former.has_door:
        switch.replace(host, former, place.forms, lambda process: _first(host, former, process, settings))
        return
    others = tuple(form for form in place.forms if form != former.form)
    if others:
        switch.take_down(host, former.pipeline, former.unit, others)
    switch.begin(host, former)
    wait_ready(host, former, settings.ready_timeout, private(host, former))
    switch.take_over(host, former)


def _first(host: Host, former: Release, process: str, settings: Settings) -> None:
    """Waited for, but the others start in any case: why it is not ready may pass, and is said of all in the end."""
    with suppress(DeployFailed):
        wait_ready(host, former, settings.ready_timeout, private(host, former, process), process)


def _not_ready(host: Host, releases: Sequence[Release], settings: Settings) -> list[str]:
    failed = []
    for release in releases:
        try:
            for process in release.processes:
                wait_ready(host, release, settings.ready_timeout, public(host, release, process), process)
        except MLPackerError as error:
            failed.append(error.message)
    return failed
