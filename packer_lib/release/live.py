"""Going live, on all machines of a plan: beside what runs, over to the new, and only then is the old one gone.

    switch_all   1. API: every new release beside the old one; ready, right, and still there a while later
                 2. new models into what runs on; consumers first: API by its door; a stream's old release stops, then
                 its new one starts
    verify_all   3. every unit answers as its own release   4. on record   5. what is no longer needed goes

One go for a deploy (`go_live`), two tasks for Airflow. A failure in 1 leaves what is live untouched; after one in 2
to 4 every unit on every machine is as it was. Nothing is undone in 5: the next deploy finishes it.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from packer_lib.errors import DeployFailed, MLPackerError, RollbackFailed
from packer_lib.hosts.home import put_text
from packer_lib.hosts.layout import Layout, program
from packer_lib.plan import Plan
from packer_lib.release import fleets, models, scene, switch
from packer_lib.release.after import settle
from packer_lib.release.fleets import Machines
from packer_lib.release.forms import form_of, named
from packer_lib.release.model import Release
from packer_lib.release.restore import Told, restore
from packer_lib.release.scene import Place, Scene
from packer_lib.release.verify import see_it_answer, see_it_ready, watch
from packer_lib.settings import Settings

Progress = Callable[[str], None]


@dataclass(slots=True)
class Course:
    """A change that is going on: from `scene`, and whether anything live has been `touched` yet."""

    scene: Scene
    settings: Settings
    progress: Progress
    touched: bool = False


@contextmanager
def locked(fleet: Machines, plan: Plan, settings: Settings, run: str, progress: Progress) -> Iterator[None]:
    """Nobody else changes the pipeline on any of its machines meanwhile; `Busy` when somebody is at it."""
    with fleets.of_plan(plan, settings, None, fleet) as machines:
        found = scene.hosts(machines, plan, settings, progress)
        with scene.locked_hosts(found, plan.pipeline, f"deploy {run}".strip(), progress):
            yield


def switch_all(
    fleet: Machines, plan: Plan, releases: Sequence[Release], settings: Settings, progress: Progress
) -> None:
    """Phases 1 and 2, for staged releases in the order of the plan; `DeployFailed` when every unit is as it was."""
    with _course(fleet, plan, settings, progress) as course, _or_all_back(course):
        _switch(course, releases)


def verify_all(
    fleet: Machines,
    plan: Plan,
    releases: Sequence[Release],
    settings: Settings,
    progress: Progress,
) -> tuple[Release, ...]:
    """Phases 3 to 5: the releases once each has answered; from then on they are what a failed deploy comes back to."""
    with _course(fleet, plan, settings, progress, touched=True) as course:
        for release in releases:
            _require_switched(course.scene, release)
        with _or_all_back(course):
            live = _verify(course, releases)
        settle(course, live)
        return live


def go_live(course: Course, releases: Sequence[Release]) -> tuple[Release, ...]:
    """Both, with no moment between them at which an interruption would leave them switched."""
    with _or_all_back(course):
        _switch(course, releases)
        live = _verify(course, releases)
    settle(course, live)
    return live


@contextmanager
def _course(
    fleet: Machines, plan: Plan, settings: Settings, progress: Progress, touched: bool = False
) -> Iterator[Course]:
    with fleets.of_plan(plan, settings, None, fleet) as machines:
        yield Course(scene.look(machines, plan, settings, progress), settings, progress, touched)


def _switch(course: Course, releases: Sequence[Release]) -> None:
    found = course.scene
    fresh = [release for release in releases if not switch.is_live(found.host(release), release)]
    _free_ports(course, fresh)
    swapped = [change for release in releases if (change := _other_models(course, release))]
    for place, alive in swapped:
        if not alive:
            models.want_unit(place, found.plan.unit(place.release.unit))
    _side_by_side(course, [release for release in fresh if release.has_door])
    course.touched = True
    for place, alive in swapped:
        if alive:
            models.swap_unit(place, found.plan.unit(place.release.unit), course.settings, course.progress)
    _make_way(course, fresh)
    for release in fresh:
        if release.has_door:
            switch.take_over(found.host(release), release)
        else:
            _replace(course, release)
        course.progress(f"{release.unit}: switched to {release.id}{_on(release.machine)}")


def _other_models(course: Course, release: Release) -> tuple[models.Place, bool] | None:
    """Where a release that is there already is to answer with other models than are wanted of it, and whether it runs
    now, in as many processes as it had."""
    found = course.scene
    host, records = found.host(release), found.places[release.machine].records
    known = [one for one in (records.current.get(release.unit), *records.of(release.unit)) if one is not None]
    former = next((one for one in known if one.id == release.id), None)
    if former is None or models.has(host, release) or not models.has_state(host, former):
        return None
    return replace(models.place(host, former), release=release), switch.is_live(host, former)


def _replace(course: Course, release: Release) -> None:
    found, settings = course.scene, course.settings
    host, forms = found.host(release), found.places[release.machine].forms
    if release.replicas > 1:
        course.progress(f"{release.unit}: {release.replicas} replicas{_on(release.machine)}; the first goes before")
    switch.replace(host, release, forms, lambda process: see_it_ready(host, found.plan, release, process, settings))


def _side_by_side(course: Course, fresh: Sequence[Release]) -> None:
    """All are started before the first is waited for; one that replaces nothing need not be watched."""
    found, seconds = course.scene, course.settings.watch_seconds
    for release in fresh:
        switch.begin(found.host(release), release)
        course.progress(f"{release.unit}: started{_on(release.machine)}, waiting until it is ready")
    for release in fresh:
        see_it_answer(found.host(release), found.plan, release, course.settings, at_the_door=False)
    watched = [release for release in fresh if _replaces(found, release)]
    if watched and seconds > 0:
        names = ", ".join(release.unit for release in watched)
        course.progress(f"{names}: ready beside what is live; watched for {seconds:g} s before it takes over")
        watch(found.host, found.plan, watched, seconds)


def _replaces(found: Scene, release: Release) -> bool:
    former = [place.records.current.get(release.unit) for place in found.places.values()]
    return any(one is not None and one.id != release.id for one in former)


def _free_ports(course: Course, fresh: Sequence[Release]) -> None:
    """A unit that is no longer in the plan leaves the port that a new one wants."""
    wanted = {(release.machine, release.port) for release in fresh}
    _retire(course, lambda release: (release.machine, release.port) in wanted)


def _make_way(course: Course, fresh: Sequence[Release]) -> None:
    """What cannot run beside the new: streams that are no longer here, doors of another form or on another port."""
    _retire(course, lambda release: not release.has_door)
    for release in fresh:
        if release.has_door:
            _clear_door(course.scene.places[release.machine], release)


def _retire(course: Course, which: Callable[[Release], bool]) -> None:
    found = course.scene
    for place in found.places.values():
        for unit in place.gone(found.plan):
            former = place.records.newest(unit)
            if former is None or not which(former):
                continue
            course.touched = True
            if switch.take_down(place.host, found.plan.pipeline, unit, place.forms):
                course.progress(f"{unit}: stopped{_on(place.host.machine)}, it is no longer in the plan there")


def _clear_door(place: Place, release: Release) -> None:
    host, former = place.host, place.records.current.get(release.unit)
    before_doors = "" in named("native").started(host, release.pipeline, release.unit)
    if before_doors:
        named("native").stop(host, release.pipeline, release.unit, "")
    if former and (former.form, former.host, former.port) != (release.form, release.host, release.port):
        form = form_of(former)
        form.close_door(host, release.pipeline, release.unit)
        form.stop(host, release.pipeline, release.unit, former.id)


def _verify(course: Course, releases: Sequence[Release]) -> tuple[Release, ...]:
    found = course.scene
    course.progress("waiting for every unit to answer")
    for release in releases:
        see_it_answer(found.host(release), found.plan, release, course.settings, at_the_door=True)
    return tuple(_commit(found, release) for release in releases)


def _commit(found: Scene, release: Release) -> Release:
    former = found.former(release.unit, release.machine)
    since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    if former is not None and former.id == release.id:
        since = former.since
        if (former.replicas, former.models) == (release.replicas, release.models):
            release = replace(release, run=former.run, by=former.by)
    host, layout = found.host(release), Layout(found.host(release).home)
    live = replace(release, since=since)
    if live == former:
        return live
    put_text(host, live.to_json(), f"{layout.history(live.pipeline, live.unit, live.id)}/release.json")
    put_text(host, live.to_json(), layout.current(live.pipeline, live.unit))
    return live


def _require_switched(found: Scene, release: Release) -> None:
    """Between the stages of a failed run that somebody continues, another release may have come back. One that crashes
    is still the one: why it does is found out, and everything put back, by asking it."""
    if not switch.has_taken_over(found.host(release), release):
        name = program(release.pipeline, release.unit)
        raise DeployFailed(f"{name}: {release.id} is not what runs (any more)", "deploy again from the start")


@contextmanager
def _or_all_back(course: Course) -> Iterator[None]:
    """An error of ours leaves here as `DeployFailed` or `RollbackFailed` that says how the units are now."""
    progress = course.progress
    try:
        yield
    except BaseException as error:
        why = error.message if isinstance(error, MLPackerError) else f"{type(error).__name__}: {error}"
        try:
            with _undisturbed():
                what = "it failed" if isinstance(error, Exception) else "interrupted"
                progress(f"{what}; putting every unit back, which is not interrupted")
                done = table(restore(course.scene, course.settings, course.touched))
        except MLPackerError as second:
            raise RollbackFailed(f"{why}\nand the way back failed: {second.message}", second.hint) from error
        if isinstance(error, MLPackerError):
            raise DeployFailed(f"{why}\nrolled back: {done}", error.hint) from None
        progress(f"rolled back: {done}")
        raise


def table(told: Sequence[Told]) -> str:
    """One line as long as only this machine is in it, else a line for each machine and unit."""
    if all(machine is None for machine, _, _ in told):
        return "; ".join(f"{unit}: {what}" for _, unit, what in told)
    wide = max(len(machine or "this machine") for machine, _, _ in told)
    return "".join(f"\n  {machine or 'this machine':{wide}}  {unit}: {what}" for machine, unit, what in told)


def _on(machine: str | None) -> str:
    return f" on {machine}" if machine else ""


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Ctrl-C and TERM do not end the block: a way back that stops half-way is worse than one that takes its time.

    Ignored, not handled: a process that is just being started would die of a signal that we handle. The only one that
    stays, supervisord, sets handlers of its own, and so hands no ignored signal on to the units.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler or signal.SIG_DFL)
