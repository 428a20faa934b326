"""Which port a unit has on its machine: PADL's, the one that it had, or a free one; and what others call it by."""

from __future__ import annotations

import json
import zlib
from typing import Any

from packer_lib import commands
from packer_lib.errors import DeployFailed
from packer_lib.hosts import Host
from packer_lib.hosts.home import must
from packer_lib.hosts.layout import Layout, program
from packer_lib.plan import Plan, Unit
from packer_lib.release import supervisor
from packer_lib.release.place import placed
from packer_lib.release.records import Records
from packer_lib.settings import Settings

FIRST_PORT, PORTS = 20000, 10000  # below Linux's ports for outgoing connections (32768 and up)
HERE = "127.0.0.1"


def bind(plan: Plan, unit: Unit, settings: Settings) -> str:
    """The address that the unit's port is on. What only we ask, as a stream's, is never open to others elsewhere."""
    if unit.machine is None:
        return settings.bind
    return settings.remote_bind if plan.package_mode == "api" else HERE


def choose(host: Host, plan: Plan, unit: Unit, there: Records, address: str) -> int:
    """`DeployFailed` with the place in the PADL file when the port is somebody else's."""
    port = unit.port or known(unit, there)
    if not port:
        return _free(host, address, program(plan.pipeline, unit.name))
    step = next((step for step in unit.steps if step.port), None) or unit.steps[0]
    _require(host, plan, there, address, port, ("pipeline", step.name, *(["port"] if step.port else [])))
    return port


def admin(host: Host, plan: Plan, unit: Unit, there: Records, address: str) -> int:
    """The unit's admin port, 0 without one; errors as `choose`."""
    if address and unit.admin_port:
        _require(host, plan, there, address, unit.admin_port, ("admin", "port"))
    return unit.admin_port or 0


def _require(host: Host, plan: Plan, there: Records, address: str, port: int, pointer: tuple[str, ...]) -> None:
    """It is free, or ours."""
    holder = _toolbox(host, "port", address, str(port))
    if not holder["free"] and not _is_ours(host, plan, there, port, holder):
        taken = f"port {port} on {host.name} is taken by {_who(holder)}"
        what = "choose another" if pointer[0] == "admin" else "give the step another `port`"
        raise DeployFailed(placed(plan, pointer, taken), f"stop that process, or {what}")


def known(unit: Unit, there: Records) -> int:
    """The port that the unit had on that machine, 0 without one."""
    former = there.newest(unit.name)
    return former.port if former else 0


def _who(holder: dict[str, Any]) -> str:
    return f"process {holder['pid']} ({holder['command']})" if holder["pid"] else "a process of another user"


def _is_ours(host: Host, plan: Plan, there: Records, port: int, holder: dict[str, Any]) -> bool:
    """Whether it is a unit of this pipeline, also one that a killed supervisor left behind. Who publishes the port of a
    container is not to be seen; there the records say it."""
    prefix = f"{supervisor.socket_path(host.home, host.uid)} {program(plan.pipeline, '')}"
    if str(holder["program"]).startswith(prefix):
        return True
    published = not holder["pid"] or "docker-proxy" in str(holder["command"])
    kept = (release for releases in there.history.values() for release in releases)
    return published and any(
        port in (release.port, release.admin_port) for release in kept if release.form == "container"
    )


def _free(host: Host, address: str, name: str) -> int:
    """Here one that differs by home and unit, so that pipelines that are staged at the same time do not meet; elsewhere
    from the first on, so that few ports have to be opened in a firewall."""
    first = FIRST_PORT + (zlib.crc32(f"{host.home} {name}".encode()) % PORTS if host.machine is None else 0)
    port = int(_toolbox(host, "free", address, str(first), host.home)["port"])
    if not port:
        raise DeployFailed(f"no free port on {host.name} from {first} on")
    return port


def _toolbox(host: Host, *words: str) -> Any:
    return json.loads(must(host, commands.toolbox(host.python, Layout(host.home).toolbox, *words)).out)
