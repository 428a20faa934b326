"""What supervisor runs: a staged release live, the former one back, a unit gone."""

from __future__ import annotations

from packer_lib import commands
from packer_lib.errors import DeployFailed
from packer_lib.hosts import Host
from packer_lib.hosts.home import must
from packer_lib.hosts.layout import Layout, program
from packer_lib.plan import Plan
from packer_lib.release import records, supervisor
from packer_lib.release.model import Release
from packer_lib.settings import Settings


def switch(host: Host, release: Release, settings: Settings) -> bool:
    """The unit's process is this release's from here on; False when it already was and goes on undisturbed."""
    layout = Layout(str(settings.home))
    name, conf = program(release.pipeline, release.unit), layout.conf(release.pipeline, release.unit)
    must(host, commands.copy(_staged(layout, release), f"{conf}.next"))
    must(host, commands.rename(f"{conf}.next", conf))
    said = supervisor.control(host, layout, "update", name)
    if not said.ok:
        raise DeployFailed(f"supervisor does not take {name}: {said.tail(5)}")
    if name in said.out:
        return True
    if supervisor.ask(host, layout, name).alive:
        return False
    _revive(host, layout, name)
    return True


def _staged(layout: Layout, release: Release) -> str:
    return f"{layout.history(release.pipeline, release.unit, release.id)}/unit.conf"


def is_installed(host: Host, layout: Layout, release: Release) -> bool:
    """Whether supervisor is told to run this release, and not another or none."""
    told = host.run(commands.read(layout.conf(release.pipeline, release.unit)))
    return told.ok and told.out == host.run(commands.read(_staged(layout, release))).out


def _revive(host: Host, layout: Layout, name: str) -> None:
    """A program that supervisor has given up starts afresh, without waiting for it as `supervisorctl start` does."""
    for word in ("stop", "remove", "add"):
        supervisor.control(host, layout, word, name)


def retire(host: Host, plan: Plan, settings: Settings) -> list[str]:
    """Stops the units that are no longer in the plan and says which; their record stays until the rest has answered."""
    layout = Layout(str(settings.home))
    gone = vanished(host, layout, plan)
    for unit in gone:
        take_down(host, layout, plan.pipeline, unit)
    return gone


def vanished(host: Host, layout: Layout, plan: Plan) -> list[str]:
    planned = {unit.name for unit in plan.units}
    return [unit for unit in records.units(host, layout, plan.pipeline) if unit not in planned]


def take_down(host: Host, layout: Layout, pipeline: str, unit: str) -> None:
    """No process of the unit and no program of it; fine when there was none."""
    name, conf = program(pipeline, unit), layout.conf(pipeline, unit)
    if supervisor.ask(host, layout, name).word == "UNKNOWN" and not host.run(commands.exists(conf)).ok:
        return
    must(host, commands.remove(conf))
    said = supervisor.control(host, layout, "update", name)
    if supervisor.ask(host, layout, name).word != "UNKNOWN":
        raise DeployFailed(f"{name} does not stop: {said.tail(5)}", "look at its process, then undeploy again")
