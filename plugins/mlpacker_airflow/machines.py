"""The machines and the registry of a plan by way of Airflow's own hooks and connections.

The hooks say who logs in; the connection itself is `packer_lib`'s: it knows host keys that the PADL file or our
`known_hosts` pins, shows an unknown one's fingerprint, and waits its turn where sshd would drop it (the hook tries an
unknown key three times, and a command of its own ends after 10 s of silence).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from packer_lib.hosts import Host
from packer_lib.padl.model import Machine
from packer_lib.plan import Plan
from packer_lib.settings import Settings

if TYPE_CHECKING:
    import paramiko

    from packer_lib.hosts.fleet import Fleet
    from packer_lib.secrets import Login

Place = tuple[Machine, str]


class Machines:
    """`machines["m1"]` by the id in the PADL file, `machines[None]` this one; each connected at its first use, once."""

    def __init__(self, fleets: dict[str | None, Fleet]) -> None:
        self._fleets = fleets

    def __getitem__(self, machine: str | None) -> Host:
        return self._fleets[machine][machine]


@contextmanager
def opened(places: Sequence[Place], settings: Settings) -> Iterator[Machines]:
    """The machines, closed afterwards. Each comes with the PADL text in which its secret may stand."""
    from packer_lib.hosts.fleet import Fleet

    texts = {text for _, text in places} or {""}
    with ExitStack() as stack:
        fleets: dict[str | None, Fleet] = {}
        for text in sorted(texts):
            here = [machine for machine, of in places if of == text]
            fleet = stack.enter_context(Fleet(here, settings, text, connect=lambda login: connect(login, settings)))
            fleets |= dict.fromkeys([None, *(machine.id for machine in here)], fleet)
        yield Machines(fleets)


def of_plan(plan: Plan, text: str, settings: Settings) -> list[Place]:
    """The plan's machines, and those that the pipeline was on before."""
    own = [(machine, text) for machine in plan.machines] if plan.deploy_mode == "remote" else []
    known = {machine.id for machine, _ in own}
    return [*own, *(place for place in of_pipeline(plan.pipeline, settings) if place[0].id not in known)]


def of_pipeline(pipeline: str, settings: Settings) -> list[Place]:
    """The machines that the pipeline was deployed to from here."""
    from packer_lib import kept

    return [(place.machine, place.text) for place in kept.read(pipeline, settings).machines]


def connect(login: Login, settings: Settings) -> paramiko.SSHClient:
    """A connection for `packer_lib.hosts.fleet.Fleet`; what an Airflow connection holds comes from there."""
    from packer_lib import secrets
    from packer_lib.hosts.connect import connect as directly

    logging.getLogger("paramiko").setLevel(logging.WARNING)  # it tells every login twice
    if not login.conn:
        return directly(login, settings)
    from airflow.providers.ssh.hooks.ssh import SSHHook

    found = SSHHook.get_connection(login.conn)
    given = {name: getattr(found, name) for name in ("host", "port", "login", "password", "extra")}
    return directly(secrets.connection(login, given), settings)


def with_connections(settings: Settings, plan: Plan) -> Settings:
    """`settings` with the passwords of the connections that the PADL file names for its key and its token."""
    wanted = [plan.key, plan.admin.token if plan.admin else None]
    named = [secret.where for secret in wanted if secret is not None and secret.kind == "conn"]
    if not named:
        return settings
    from airflow.sdk import BaseHook

    from packer_lib.secrets import CONNECTIONS

    ours = [name for name in named if name.startswith(CONNECTIONS)]  # any other one is refused where it is asked for
    return replace(settings, connections=tuple((name, BaseHook.get_connection(name).password or "") for name in ours))


def with_registry(settings: Settings, plan: Plan) -> Settings:
    """`settings` with what the registry's Airflow connection holds, where the PADL file or a setting names one."""
    name = settings.registry_conn if plan.registry is None else plan.registry
    if not plan.containerized or not name or name == "none":
        return settings
    from airflow.providers.docker.hooks.docker import DockerHook

    found = DockerHook.get_connection(name)
    host = (found.host or "").partition("://")[2] or found.host or ""
    server = f"{host}:{found.port}" if found.port and ":" not in host else host
    prefixed = settings.registry if settings.registry.partition("/")[0] == server else server
    return replace(settings, registry=prefixed, registry_user=found.login or "", registry_password=found.password or "")
