"""A release on its machine, complete and not live: its record, what it is started with, and what its form needs."""

from __future__ import annotations

import getpass
import hashlib
import hmac
import json
import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from packer_lib import build, commands, kept
from packer_lib.build import Environment, entry
from packer_lib.bundle import Bundle
from packer_lib.errors import BuildFailed, DeployFailed, PolicyRefused
from packer_lib.hosts import Host
from packer_lib.hosts.home import must, prepare, put_text
from packer_lib.hosts.layout import DOOR, Layout
from packer_lib.plan import Plan, Unit
from packer_lib.release import control, ports, records, supervisor
from packer_lib.release.fleets import Machines
from packer_lib.release.forms import Launch, form_of
from packer_lib.release.model import Release
from packer_lib.release.place import blamed, placed
from packer_lib.settings import STALL_SECONDS, Settings

if TYPE_CHECKING:
    from packer_lib.images import Image

INSIDE = {"MLPACKER_HOST": "0.0.0.0", "MLPACKER_PORT": "8080"}  # noqa: S104  in a container, as its image is made
INSIDE_DOOR = {"MLPACKER_DOOR": "/run/mlpacker"}


def check(host: Host, plan: Plan, unit: Unit, bundle: Bundle, environment: Environment) -> None:
    """`build.check` with the environment that the PADL file gives the unit; what fails has its place in that file."""
    with told_with_place(plan, unit):
        build.check(host, bundle, environment, variables(plan, unit))


@contextmanager
def told_with_place(plan: Plan, unit: Unit) -> Iterator[None]:
    try:
        yield
    except BuildFailed as failed:
        pointer = blamed(plan, unit, failed.message)
        raise BuildFailed(placed(plan, pointer, failed.message), failed.hint) from None


def stage(  # noqa: PLR0913  the last stage before the machine: everything comes together here
    fleet: Machines,
    plan: Plan,
    unit: Unit,
    bundle: Bundle,
    made: Environment | Image,
    settings: Settings,
    run: str = "",
    text: str | None = None,
) -> Release:
    """The unit's next release on its machine; the same release again when nothing is different.

    Units are staged in the order of `plan.units`, so that one that calls another knows where that will be.
    `DeployFailed` when its port is somebody else's, or a secret it needs is not set here. `text`: as in `deploy`.
    """
    kept.expect(plan, text, settings)
    host = fleet[unit.machine]
    layout, there = Layout(host.home), records.read(host, plan.pipeline)
    prepare(host, layout)
    if not plan.containerized:
        supervisor.configure(host, layout)
    where = made if isinstance(made, Environment) else made.reference
    release, launch = draft(fleet, plan, unit, bundle, where, settings, run)
    known = [one for one in there.of(unit.name) if one.id == release.id]
    if known:
        return replace(known[0], models=bundle.models, own=bundle.models, frame=release.frame, replicas=unit.replicas)
    return _write(host, layout, release, launch)


def draft(  # noqa: PLR0913
    fleet: Machines, plan: Plan, unit: Unit, bundle: Bundle, made: Environment | str, settings: Settings, run: str
) -> tuple[Release, Launch]:
    """What the unit's release would be on its machine, and what it would be started with; `made` is its environment, or
    the reference of its image. Nothing is put there but the machine's own key."""
    env = {**variables(plan, unit), **_secrets(plan, unit, settings), **_links(fleet, plan, unit, settings)}
    env |= {**_watched(plan, settings), **control.variables(plan, unit, settings)}
    host = fleet[unit.machine]
    layout, there = Layout(host.home), records.read(host, plan.pipeline)
    address = ports.bind(plan, unit, settings)
    release = Release(
        pipeline=plan.pipeline,
        unit=unit.name,
        id="",
        bundle=bundle.digest,
        lock=bundle.lock_digest,
        mode=plan.package_mode,
        host=address,
        port=ports.choose(host, plan, unit, there, address),
        models=bundle.models,
        run=run,
        by=f"{getpass.getuser()}@{socket.gethostname()}",
        machine=unit.machine,
        form="container" if plan.containerized else "native",
        image="" if isinstance(made, Environment) else made,
        address=host.address if plan.package_mode == "api" else address,
        replicas=unit.replicas,
        own=bundle.models,
        frame=frame(plan, bundle, settings),
        admin_host=control.address(plan, unit, settings),
        admin_port=ports.admin(host, plan, unit, there, control.address(plan, unit, settings)),
    )
    launch = _launch(host, plan, unit, release, made, env)
    return replace(release, id=_identity(_key(host, layout), release, launch)), launch


def frame(plan: Plan, bundle: Bundle, settings: Settings) -> str:
    """The bundle's; for a container with all else that its image is made of. Empty where it is not known."""
    if not bundle.frame:
        return ""
    image = [settings.base_image, settings.platform] if plan.containerized else []
    return hashlib.sha256(json.dumps([bundle.frame, image]).encode()).hexdigest()


def _write(host: Host, layout: Layout, release: Release, launch: Launch) -> Release:
    """The record last: with it, the release is complete."""
    folder = layout.history(release.pipeline, release.unit, release.id)
    state = layout.state(release.pipeline, release.unit, release.id)
    own = {"MLPACKER_RELEASE": release.id, "MLPACKER_STATE": state, "PYTHONUNBUFFERED": "1"}
    told = replace(launch, env={**launch.env, **own})
    must(host, commands.make_folders(folder))
    put_text(host, told.to_json(), f"{folder}/launch.json")
    form_of(release).create(host, release, told)
    put_text(host, release.to_json(), f"{folder}/release.json")
    return release


def _launch(
    host: Host, plan: Plan, unit: Unit, release: Release, made: Environment | str, env: dict[str, str]
) -> Launch:
    if isinstance(made, Environment):
        return Launch((made.python, entry(release.mode)), made.folder, {**env, **_listens(host, release)})
    inside = {**INSIDE, **(INSIDE_DOOR if release.has_door else {})}
    limits = unit.resources
    served = [queue for queue in plan.queues if queue.id in _queues(unit) and queue.options.get("role") == "server"]
    return Launch(
        env={**env, **inside},
        memory=limits.memory,
        cpus=limits.cpus,
        names=_names(plan, unit, env),
        ports=tuple(queue.port for queue in served),
    )


def _listens(host: Host, release: Release) -> dict[str, str]:
    """With a door, the unit's own port is for the door and for us; it says which it has."""
    if not release.has_door:
        return {"MLPACKER_HOST": release.host, "MLPACKER_PORT": str(release.port)}
    door = Layout(host.home).door(release.pipeline, release.unit, host.uid)
    return {"MLPACKER_HOST": ports.HERE, "MLPACKER_PORT": "0", "MLPACKER_DOOR": door}


def _names(plan: Plan, unit: Unit, env: dict[str, str]) -> tuple[str, ...]:
    """Hosts that the unit talks to."""
    links = json.loads(env.get("MLPACKER_LINKS", "{}"))
    called = [urlsplit(link["url"]).hostname or "" for link in links.values()]
    return tuple(dict.fromkeys([*(queue.server for queue in plan.queues if queue.id in _queues(unit)), *called]))


def _queues(unit: Unit) -> set[str]:
    return {*unit.sources, *unit.sinks, *(step.dead_letter for step in unit.steps if step.dead_letter)}


def _identity(key: bytes, release: Release, launch: Launch) -> str:
    """Keyed with the machine's own key, or whoever sees a release's name could guess at a weak password in its
    `env`.
    """
    told = asdict(launch)
    place = [release.machine, release.form, release.address, release.host, release.port]
    place += [release.admin_host, release.admin_port] if release.admin_port else []
    content = json.dumps([release.bundle, release.image, place, told], sort_keys=True)
    return hmac.new(key, content.encode(), hashlib.sha256).hexdigest()[:12]


def _key(host: Host, layout: Layout) -> bytes:
    found = host.run(commands.read(layout.key))
    if not found.ok:
        put_text(host, secrets.token_hex(32), layout.key)
    return (found if found.ok else must(host, commands.read(layout.key))).out.encode()


def variables(plan: Plan, unit: Unit) -> dict[str, str]:
    """The environment that the PADL file gives the unit; a step's own values before the pipeline's."""
    own = {name: value for step in unit.steps for name, value in step.env.items()}
    return {**dict(plan.env), **own}


def _watched(plan: Plan, settings: Settings) -> dict[str, str]:
    """After how long a stream that stands still is ended, where the installation says so."""
    told = plan.package_mode == "stream" and settings.stall_seconds != STALL_SECONDS
    return {"MLPACKER_STALL_SECONDS": f"{settings.stall_seconds:g}"} if told else {}


def _secrets(plan: Plan, unit: Unit, settings: Settings) -> dict[str, str]:
    """Values of the environment variables that the unit's queues name (`pass_env`), from the deployer's environment."""
    used = [queue for queue in plan.queues if queue.id in _queues(unit) and queue.options.get("pass_env")]
    needed = {str(queue.options["pass_env"]): queue.id for queue in used}
    for name, queue in needed.items():
        if not any(fnmatchcase(name, pattern) for pattern in settings.secret_env):
            raise PolicyRefused(
                f"{plan.pipeline}.{unit.name}: {name} (queue {queue}) is not a variable that a PADL file may name here",
                f"name one that matches {', '.join(settings.secret_env)} (MLPACKER__SECURITY__SECRET_ENV)",
            )
    missing = [f"{name} (queue {queue})" for name, queue in needed.items() if name not in os.environ]
    if missing:
        raise DeployFailed(
            f"{plan.pipeline}.{unit.name}: not set in the environment: {', '.join(missing)}",
            "export it before you deploy",
        )
    return {name: os.environ[name] for name in needed}


def _links(fleet: Machines, plan: Plan, unit: Unit, settings: Settings) -> dict[str, str]:
    """Where the units that this one calls are, for its `MLPACKER_LINKS`."""
    if plan.package_mode != "api" or not unit.links:
        return {}
    called = {name: _link(fleet, plan, unit, plan.unit(name), settings) for name in unit.links}
    return {"MLPACKER_LINKS": json.dumps(called, sort_keys=True)}


def _link(fleet: Machines, plan: Plan, unit: Unit, other: Unit, settings: Settings) -> dict[str, Any]:
    return {
        "url": _url(fleet, plan, unit, other, settings),
        "machine": other.machine,
        "timeout": plan.link_timeout,
        "retries": plan.link_retries,
        "idempotent": other.idempotent,
    }


def _url(fleet: Machines, plan: Plan, unit: Unit, other: Unit, settings: Settings) -> str:
    """By the door's name between containers of one machine, by the loopback between its processes, else by the name of
    the machine."""
    near = other.machine == unit.machine
    if near and plan.containerized:
        return f"http://mlpacker.{plan.pipeline}.{other.name}.{DOOR}:8080"
    host = fleet[other.machine]
    port = other.port or ports.known(other, records.read(host, plan.pipeline))
    if not port:
        raise DeployFailed(
            f"{plan.pipeline}.{unit.name} calls {other.name}, which is not staged yet", "stage that first"
        )
    address = ports.bind(plan, other, settings) if near else host.address
    place = Release(plan.pipeline, other.name, "", "", "", "api", address, port)
    return place.local if near else place.endpoint
