"""What the deployer keeps of a pipeline: its machines, and which releases were live together by which plan.

The machines say what runs on them. This says which machines to ask when the PADL file is gone, and what a rollback goes
back to. One file of mode 0600, for the text of a PADL file may hold a password.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packer_lib.hosts.home import put_text
from packer_lib.hosts.layout import Layout
from packer_lib.hosts.local import LocalHost
from packer_lib.padl.model import Machine, SecretRef
from packer_lib.plan import Plan, to_dict
from packer_lib.settings import Settings

if TYPE_CHECKING:
    from packer_lib.release.model import Release

MOST = 10  # generations; what can be gone back to is what the machines have kept of them


@dataclass(frozen=True, slots=True)
class Place:
    """A machine that the pipeline was deployed to, and the text that its secret may stand in."""

    machine: Machine
    text: str


@dataclass(frozen=True, slots=True)
class Generation:
    """Releases that were live together: unit → (release, machine). `plan` is what they came from (`plan.to_dict`), and
    `models` what each answered with: unit → step → sha256."""

    units: dict[str, tuple[str, str | None]]
    plan: dict[str, Any]
    run: str = ""
    since: str = ""
    models: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def live(self) -> tuple[object, ...]:
        """What makes it another one: its releases, their models, and how many replicas each had."""
        replicas = {unit["name"]: unit.get("replicas", 1) for unit in self.plan.get("units", ())}
        return self.units, self.models, replicas


@dataclass(frozen=True, slots=True)
class Kept:
    """`generations` in the order in which they were last live: the last one is live."""

    machines: tuple[Place, ...] = ()
    generations: tuple[Generation, ...] = ()


def read(pipeline: str, settings: Settings) -> Kept:
    """Nothing of a pipeline that was never deployed from here."""
    try:
        data = json.loads(_file(pipeline, settings).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Kept()
    return Kept(
        tuple(Place(_machine(item["machine"]), item["text"]) for item in data["machines"]),
        tuple(_generation(item) for item in data["generations"]),
    )


def generation(plan: Plan, live: Sequence[Release]) -> Generation:
    """These releases, live now."""
    units = {release.unit: (release.id, release.machine) for release in live}
    plain = json.loads(json.dumps(to_dict(plan)))  # as it is read back
    models = {release.unit: dict(release.models) for release in live}
    return Generation(units, plain, next((release.run for release in live), ""), now(), models)


def source(plan: Plan, text: str | None, settings: Settings) -> str:
    """The text of the plan's file: `text`, unless that is where the plan says, or is kept. For secrets in it."""
    if text is None and plan.file and Path(plan.file).is_file():
        return Path(plan.file).read_text(encoding="utf-8")
    return text or next((place.text for place in read(plan.pipeline, settings).machines), "")


def pipelines(settings: Settings) -> list[str]:
    """Of which something is kept."""
    return sorted(file.parent.name for file in (settings.home / "pipelines").glob("*/kept.json"))


def expect(plan: Plan, text: str | None, settings: Settings) -> None:
    """Before anything is put on the plan's machines: they are to be asked from now on."""
    used = {unit.machine for unit in plan.units}
    former = read(plan.pipeline, settings)
    known = {place.machine.id: place for place in former.machines}
    wanted = {one.id: Place(one, source(plan, text, settings)) for one in plan.machines if one.id in used}
    if {**known, **wanted} != known:
        _write(plan.pipeline, replace(former, machines=tuple({**known, **wanted}.values())), settings)


def remember(pipeline: str, generation: Generation, settings: Settings) -> None:
    """It is live now; when it was the last one already, nothing changes."""
    former = read(pipeline, settings)
    if former.generations and former.generations[-1].live == generation.live:
        last = former.generations[-1]
        generation = replace(generation, run=last.run, since=last.since)
        if generation == last:
            return
    others = tuple(one for one in former.generations if one.live != generation.live)
    _write(pipeline, replace(former, generations=(*others, generation)[-MOST:]), settings)


def settle(pipeline: str, there: set[str], settings: Settings, live: bool = True) -> None:
    """Only the machines that still have something of the pipeline are kept; without those and any generation that is
    `live`, nothing is."""
    former = read(pipeline, settings)
    former = former if live else replace(former, generations=())
    left = tuple(place for place in former.machines if place.machine.id in there)
    if not former.generations and not left:
        forget(pipeline, settings)
    elif replace(former, machines=left) != read(pipeline, settings):
        _write(pipeline, replace(former, machines=left), settings)


def forget(pipeline: str, settings: Settings) -> None:
    shutil.rmtree(_file(pipeline, settings).parent, ignore_errors=True)


def _file(pipeline: str, settings: Settings) -> Path:
    return Path(Layout(str(settings.home)).kept(pipeline))


def _write(pipeline: str, kept: Kept, settings: Settings) -> None:
    put_text(LocalHost(settings), json.dumps(asdict(kept), indent=1) + "\n", str(_file(pipeline, settings)))


def _machine(data: dict[str, Any]) -> Machine:
    secret = SecretRef(**data["secret"]) if data["secret"] else None
    return Machine(**{**data, "secret": secret, "install": tuple(data.get("install", ()))})


def _generation(data: dict[str, Any]) -> Generation:
    units = {unit: (release, machine) for unit, (release, machine) in data["units"].items()}
    return Generation(**{**data, "units": units})


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
