"""The models of a release that runs: which are wanted, brought to its machine, and taken by every process of it.

    <state>/models/<step>/<sha256>/model.<serializer>     put there first
    <state>/wanted.json                                   what its processes read; says what is to be, by step
    <state>/before.json                                   what was wanted before a deploy that is under way
    <state>/swapped.<process>.json                        what each of them answers

`<state>` is the release's own folder, so that another release begins with its own models. What a process refuses is
taken back for all. The runtime's side is runtime/wanted.py, which says what is in the files.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

from packer_lib import commands, kept
from packer_lib.errors import DeployFailed, MLPackerError, RollbackFailed
from packer_lib.hosts import Host
from packer_lib.hosts.home import must, put_text
from packer_lib.hosts.layout import Layout
from packer_lib.plan import Unit
from packer_lib.release import audit, records
from packer_lib.release.model import Release
from packer_lib.runtime import wanted
from packer_lib.runtime.wanted import Staged, Wanted
from packer_lib.settings import Settings

LOOK_EVERY = 0.2
READABLE = 0o644  # by the unit, which may be another user's process; a model and its digest are no secret
BEFORE = "before.json"
Progress = Callable[[str], None]
Policies = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Place:
    """A release that runs on `host` in `processes` processes, and its state folder there."""

    host: Host
    release: Release
    processes: int

    @property
    def state(self) -> str:
        return Layout(self.host.home).state(self.release.pipeline, self.release.unit, self.release.id)

    @property
    def name(self) -> str:
        where = "" if self.host.machine is None else f" on {self.host.name}"
        return f"{self.release.pipeline}.{self.release.unit}{where}"

    @property
    def own(self) -> dict[str, Staged]:
        """The models of its bundle, by step."""
        known = self.release.own or self.release.models
        return {step: Staged("", sha256, "", wanted.FIRST) for step, sha256 in known}


def place(host: Host, release: Release) -> Place:
    """Where that release runs."""
    workers = records.launch(host, release).env.get("MLPACKER_WORKERS", "")
    return Place(host, release, int(workers or release.replicas))


def has_state(host: Host, release: Release) -> bool:
    """Whether its processes read what is wanted."""
    return "MLPACKER_STATE" in records.launch(host, release).env


def read(place: Place) -> Wanted:
    """What its processes read now; nothing by default, which is the models of the bundle. `DeployFailed` when it is
    nothing that can be read: the unit itself may write there."""
    text = _text(place, wanted.WANTED)
    try:
        return wanted.parse(text) if text else Wanted()
    except ValueError as error:
        raise DeployFailed(f"{place.name}: {error}", f"remove it: rm {place.state}/{wanted.WANTED}") from None


def live(place: Place) -> dict[str, str]:
    """Step → sha256 of what it is to answer with, whoever said so; without steps whose models are unloaded."""
    want = read(place)
    return {step: wanted.live(want, step, own).sha256 for step, own in place.own.items() if step not in want.unloaded}


def has(host: Host, release: Release) -> bool:
    """Whether what is wanted there is the release's models."""
    try:
        return live(Place(host, release, 1)) == dict(release.models)
    except DeployFailed:
        return False


def staged(place: Place, step: str, sha256: str) -> Staged:
    """That model of `step` on the machine: the bundle's, or one that was brought there; `DeployFailed`."""
    own = place.own[step]
    if sha256 == own.sha256:
        return own
    folder = f"models/{step}/{sha256}"
    names = place.host.run(commands.names(f"{place.state}/{folder}")).out.splitlines()
    if not names:
        raise DeployFailed(f"{place.name}: model {sha256[:12]} of {step} is not there any more", "deploy it again")
    return Staged(f"{folder}/{names[0]}", sha256, PurePosixPath(names[0]).suffix[1:])


def missing(place: Place) -> list[str]:
    """Why the release cannot have its models, a sentence each."""
    found = []
    for step, sha256 in place.release.models:
        try:
            staged(place, step, sha256)
        except DeployFailed as error:
            found.append(error.message)
    return found


def to(place: Place, want: Wanted, unit: Unit) -> Wanted:
    """`want` with the release's models live; candidates stay what they are."""
    policies: Policies = {step.name: step.versions for step in unit.steps}
    for step, sha256 in place.release.models:
        own = place.own[step]
        if wanted.live(want, step, own).sha256 != sha256:
            want = wanted.swap(want, step, own, staged(place, step, sha256), policies.get(step, wanted.LATEST))
        want = wanted.load(want, step)
    return want


def swap_unit(place: Place, unit: Unit, settings: Settings, progress: Progress) -> None:
    """Every process has the release's models, as a part of a deploy: what was wanted before stays beside it until that
    has ended (`take_back`, `end`)."""
    _remember(place)
    want = to(place, read(place), unit)
    progress(f"{place.name}: {_models(place.release)}, waiting for {said(place)}")
    bring(place, want, settings, progress)


def want_unit(place: Place, unit: Unit) -> None:
    """The same for one that does not run: its processes begin with what is wanted."""
    _remember(place)
    put_text(place.host, to(place, Wanted(), unit).to_json(), f"{place.state}/{wanted.WANTED}", READABLE)


def take_back(host: Host, release: Release, alive: bool, settings: Settings) -> None:
    """What was wanted before a deploy is wanted again; waited for where the unit is `alive`."""
    at = Place(host, release, 1)
    text = _text(at, BEFORE)
    if not text:
        return
    if alive:
        _want(place(host, release), wanted.parse(text), settings.ready_timeout, lambda _: None)
    else:
        put_text(host, text, f"{at.state}/{wanted.WANTED}", READABLE)
    end(at)


def _remember(place: Place) -> None:
    if not _text(place, BEFORE):  # there is one of a deploy that was killed: it says what was when all was well
        put_text(place.host, _text(place, wanted.WANTED) or Wanted().to_json(), f"{place.state}/{BEFORE}")


def end(place: Place) -> None:
    """The deploy has ended: there is nothing to be taken back."""
    place.host.run(commands.remove(f"{place.state}/{BEFORE}"))


def bring(place: Place, want: Wanted, settings: Settings, progress: Progress) -> None:
    """Every process has what is wanted, or all have again what they had."""
    with _or_as_before(place, read(place), settings, progress):
        _want(place, want, settings.ready_timeout, progress)


@contextmanager
def _or_as_before(place: Place, before: Wanted, settings: Settings, progress: Progress) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        progress(f"{place.name}: back to what was live")
        try:
            _want(place, before, settings.ready_timeout, progress)
        except MLPackerError as second:
            why = error.message if isinstance(error, MLPackerError) else type(error).__name__
            raise RollbackFailed(f"{why}\nand the way back failed: {second.message}", second.hint) from error
        raise


def _want(place: Place, want: Wanted, seconds: float, progress: Progress) -> None:
    """Returns when all processes say that they have it; `DeployFailed` says what the first that will not says."""
    want = replace(want, id=uuid.uuid4().hex[:12])
    must(place.host, commands.make_folders(place.state))
    put_text(place.host, want.to_json(), f"{place.state}/{wanted.WANTED}", READABLE)
    until, waiting = time.monotonic() + seconds, set(range(place.processes))
    while waiting:
        for process in sorted(waiting):
            if _is_live(place, process, want.id):
                waiting.discard(process)
                progress(f"{place.name}: {place.processes - len(waiting)} of {said(place)} answer with it")
        if waiting and time.monotonic() > until:
            raise _silent(place, sorted(waiting), seconds)
        time.sleep(LOOK_EVERY if waiting else 0)


def _is_live(place: Place, process: int, wish: str) -> bool:
    told = _told(place, process)
    if told.get("id") != wish or told.get("state") == "ready":
        return False
    if told.get("state") != "live":
        raise DeployFailed(
            f"{place.name}: process {process} refuses the model: {told.get('reason')}",
            "the model that was live still answers",
        )
    return True


def _told(place: Place, process: int) -> dict[str, Any]:
    """What it answered last; nothing where the unit wrote what is none."""
    try:
        told = json.loads(_text(place, f"swapped.{process}.json") or "{}")
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def _text(place: Place, name: str) -> str:
    found = place.host.run(commands.read(f"{place.state}/{name}"))
    return found.out if found.ok else ""


def _silent(place: Place, waiting: Sequence[int], seconds: float) -> DeployFailed:
    names = ", ".join(map(str, waiting))
    return DeployFailed(
        f"{place.name}: no answer of process {names} in {seconds:g} s; a batch that takes long ends first",
        "see mlpacker status and logs; MLPACKER__DEPLOY__READY_TIMEOUT sets how many seconds it may take",
    )


def said(place: Place) -> str:
    return "1 process" if place.processes == 1 else f"{place.processes} processes"


def _models(release: Release) -> str:
    return ", ".join(f"{step} {sha256[:12]}" for step, sha256 in release.models)


def settle(place: Place, models: Mapping[str, str], what: str) -> Release:
    """On record, as what is live and what can be gone back to."""
    release, layout = place.release, Layout(place.host.home)
    now = replace(release, models=tuple((step, models[step]) for step, _ in release.models))
    put_text(place.host, now.to_json(), f"{layout.history(release.pipeline, release.unit, release.id)}/release.json")
    put_text(place.host, now.to_json(), layout.current(release.pipeline, release.unit))
    changed = [f"{step} {sha256[:12]}" for step, sha256 in models.items() if dict(release.models).get(step) != sha256]
    audit.note(place.host, release.pipeline, what, {release.unit: ", ".join(changed) or "nothing"}, release.run)
    return now


def sweep(place: Place, settings: Settings, also: Iterable[str] = ()) -> None:
    """Models go that are not wanted and that nothing can come back to: not in the generations that are kept, and not
    `also`. What cannot be removed is left for the next time."""
    want, unit = read(place), place.release.unit
    named = [*want.models.values(), *(one for some in want.others.values() for one in some)]
    former = kept.read(place.release.pipeline, settings).generations[-max(settings.keep_releases, 1) :]
    needed = {*also, *(one.sha256 for one in named), *(dict(place.release.models).values())}
    needed |= {sha256 for one in former for sha256 in one.models.get(unit, {}).values()}
    for step in place.own:
        folder = f"{place.state}/models/{step}"
        old = [name for name in place.host.run(commands.names(folder)).out.splitlines() if name not in needed]
        if old:
            place.host.run(commands.remove(*(f"{folder}/{name}" for name in old)))
