"""A pipeline taken down on every machine that it was deployed to: nothing of it is left."""

from __future__ import annotations

from collections.abc import Callable

from packer_lib import commands, images, kept
from packer_lib.errors import DeployFailed, MLPackerError
from packer_lib.hosts import Host
from packer_lib.hosts.home import must
from packer_lib.hosts.layout import Layout
from packer_lib.release import audit, fleets, prune, records, scene, switch
from packer_lib.release.fleets import Machines
from packer_lib.release.forms import named
from packer_lib.release.model import FormName
from packer_lib.settings import Settings

Progress = Callable[[str], None]


def undeploy(
    pipeline: str, settings: Settings, *, progress: Progress = print, fleet: Machines | None = None
) -> list[str]:
    """Stops and removes every unit of the pipeline on every machine, and all that is kept of it, logs too; the names of
    what there was. What other pipelines use stays. `DeployFailed` names the machines that could not be reached; the
    others are done then, and these are when it is run again."""
    there = {place.machine.id for place in kept.read(pipeline, settings).machines}
    with fleets.of_pipelines([pipeline], settings, fleet) as machines:
        found = {machine: fleets.reached(machines, machine) for machine in fleets.ordered({None, *there})}
        hosts = [host for host in found.values() if not isinstance(host, MLPackerError)]
        with scene.locked_hosts(hosts, pipeline, "undeploy", progress):
            units = [unit for host in hosts for unit in _clear(host, pipeline, progress)]
            for host in hosts:
                images.forget(host, pipeline)
            silent = {machine: error for machine, error in found.items() if isinstance(error, MLPackerError)}
            _forget(pipeline, settings, {machine for machine in silent if machine})
    if silent:
        lines = "\n".join(f"  {machine}: {error.message}" for machine, error in silent.items())
        raise DeployFailed(
            f"{pipeline} is not removed everywhere, these could not be reached:\n{lines}", "undeploy it again later"
        )
    return list(dict.fromkeys(units))


def _clear(host: Host, pipeline: str, progress: Progress) -> list[str]:
    layout, there = Layout(host.home), records.read(host, pipeline)
    forms: tuple[FormName, ...] = scene.forms(there) or ("native",)
    live = [unit for form in forms for unit in named(form).units(host, pipeline)]
    units = sorted({*records.folders(host, pipeline), *live})
    for unit in units:
        progress(f"{unit}: remove" + (f" on {host.name}" if host.machine else ""))
        switch.take_down(host, pipeline, unit, forms)
    paths = [path for unit in units for path in layout.of_unit(pipeline, unit)]
    must(host, commands.remove(layout.releases(pipeline), layout.state(pipeline), *paths))
    gone = [release for unit in there.units for release in there.of(unit)]
    prune.discard(host, gone, [], _bundles(host, pipeline))
    if units:
        audit.note(host, pipeline, "undeploy", dict.fromkeys(units, "removed"))
    for form in forms:
        named(form).tidy(host)
    return units


def _bundles(host: Host, pipeline: str) -> list[str]:
    """Also those of runs that were broken off; each says whose it is."""
    root = f"{host.home}/bundles"
    said = host.run(commands.files_with(root, "unit.json", f'"pipeline": "{pipeline}"')).out
    paths = [line.removeprefix(f"{root}/").split("/") for line in said.splitlines()]
    return [parts[0] for parts in paths if len(parts) == 2]


def _forget(pipeline: str, settings: Settings, left: set[str]) -> None:
    if left:
        kept.settle(pipeline, left, settings, live=False)
    else:
        kept.forget(pipeline, settings)
