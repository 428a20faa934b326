"""Whether every machine of a plan has what its units need: all machines, all findings, before anything changes."""

from __future__ import annotations

from collections.abc import Callable

from packer_lib.errors import DeployFailed, MLPackerError
from packer_lib.hosts import Host
from packer_lib.hosts.preflight import Missing
from packer_lib.hosts.preflight import preflight as examine
from packer_lib.plan import Plan
from packer_lib.release.fleets import Machines, ordered, reached
from packer_lib.settings import Settings

Progress = Callable[[str], None]


def preflight(fleet: Machines, plan: Plan, settings: Settings, progress: Progress = print) -> None:
    """`DeployFailed` names every machine that lacks something or cannot be reached, and the remedy. Docker is installed
    first where the PADL file or the installation asks for it."""
    machines = {unit.machine for unit in plan.units}
    if machines == {None} and not plan.containerized:
        return
    called: dict[str | None, str] = {
        None: "this machine",
        **{one.id: f"{one.id} ({one.hostname})" for one in plan.machines},
    }
    found: list[tuple[str, str, str]] = []
    for machine in ordered({*machines, *({None} if plan.containerized else ())}):
        found += [(called[machine], one.what, one.remedy) for one in _lacks(fleet, plan, machine, settings, progress)]
    if found:
        lines = "\n".join(f"  {name}: {what}" for name, what, _ in found)
        raise DeployFailed(
            f"{plan.pipeline}: nothing was changed:\n{lines}", "\n  ".join(dict.fromkeys(one[2] for one in found))
        )


def _lacks(fleet: Machines, plan: Plan, machine: str | None, settings: Settings, progress: Progress) -> list[Missing]:
    host = reached(fleet, machine)
    if isinstance(host, MLPackerError):
        return [Missing(host.message, host.hint)]
    needs = _needs(plan, machine, settings)
    lacking = examine(host, needs, settings.platform)
    if any(one.docker for one in lacking) and _may_install(plan, machine, settings):
        _install(host, progress)
        lacking = examine(host, needs, settings.platform)
    return lacking


def _needs(plan: Plan, machine: str | None, settings: Settings) -> set[str]:
    if not plan.containerized:
        return {"native"}
    pulls = settings.registry and plan.registry != "none" and any(unit.machine == machine for unit in plan.units)
    return {"container", *([f"registry:{settings.registry.partition('/')[0]}"] if pulls else [])}


def _may_install(plan: Plan, machine: str | None, settings: Settings) -> bool:
    asked = any(one.id == machine and "docker" in one.install for one in plan.machines)
    return machine is not None and (asked or settings.install_docker)


def _install(host: Host, progress: Progress) -> None:
    from packer_lib.hosts.install import install_docker

    install_docker(host, progress)
