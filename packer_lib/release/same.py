"""Whether a unit's next release is the one that runs, but for its models: then nothing is built and nothing started."""

from __future__ import annotations

from dataclasses import replace
from pathlib import PurePosixPath

from packer_lib import commands
from packer_lib.build import Environment
from packer_lib.bundle import Bundle
from packer_lib.hosts import Host
from packer_lib.hosts.home import prepare
from packer_lib.hosts.layout import Layout
from packer_lib.plan import Plan, Unit
from packer_lib.release import models, records, stage, switch
from packer_lib.release.fleets import Machines
from packer_lib.release.model import Release
from packer_lib.runtime import manifest
from packer_lib.settings import Settings


def differs_in_models(plan: Plan, unit: Unit, former: Release, bundle: Bundle, settings: Settings) -> bool:
    """Whether the bundles of the two are otherwise the same. A golden answer is asked for over HTTP: a stream that has
    one is checked before it starts, and so is always a new release."""
    tested = any(step.kind == "model" and step.test and step.test.output is not None for step in unit.steps)
    if former.bundle == bundle.digest or (tested and plan.package_mode == "stream"):
        return False
    return bool(former.frame) and former.frame == stage.frame(plan, bundle, settings)


def as_it_runs(
    fleet: Machines, plan: Plan, unit: Unit, bundle: Bundle, settings: Settings, run: str = ""
) -> Release | None:
    """The release that is live now, with the models of `bundle` for its own; None when anything else would be
    different: code, requirements, environment, secrets, ports, links. As `stage` it may raise."""
    host = fleet[unit.machine]
    former = records.read(host, plan.pipeline).current.get(unit.name)
    if former is None or not differs_in_models(plan, unit, former, bundle, settings):
        return None
    if not (switch.is_live(host, former) and models.has_state(host, former)):
        return None
    prepare(host, Layout(host.home))
    told = records.launch(host, former)
    made = former.image or Environment(told.argv[0], told.cwd)
    as_if = replace(bundle, digest=former.bundle)
    same, _ = stage.draft(fleet, plan, unit, as_if, made, settings, run)
    if same.id != former.id:
        return None
    return replace(former, models=bundle.models, replicas=unit.replicas, run=run, by=same.by)


def put_models(host: Host, release: Release, bundle: Bundle) -> None:
    """The models of `bundle` that are not the release's own, beside it on its machine."""
    place = models.Place(host, release, 1)
    for step in manifest.load(bundle.path).steps:
        if step.kind == "model" and step.sha256 != place.own[step.name].sha256:
            source = bundle.path / step.path
            target = f"{place.state}/models/{step.name}/{step.sha256}/{PurePosixPath(step.path).name}"
            host.put(source, target, models.READABLE if source.is_file() else None)
            host.run(commands.readable(str(PurePosixPath(target).parent)))  # what a unit put there itself is its own
