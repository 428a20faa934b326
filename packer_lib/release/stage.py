"""A release on the machine, complete and not live: its record, what it runs, and its program section."""

from __future__ import annotations

import getpass
import hashlib
import hmac
import json
import os
import secrets
import socket
import zlib
from collections.abc import Mapping
from typing import Any

from packer_lib import build, commands
from packer_lib.build import Environment, entry
from packer_lib.bundle import Bundle
from packer_lib.errors import BuildFailed, DeployFailed
from packer_lib.hosts import Host
from packer_lib.hosts.home import must, prepare, put_text
from packer_lib.hosts.layout import Layout, program
from packer_lib.plan import Plan, Unit
from packer_lib.release import records, supervisor
from packer_lib.release.model import Release
from packer_lib.release.place import blamed, placed
from packer_lib.settings import Settings

FIRST_PORT, PORTS = 20000, 10000  # below Linux's ports for outgoing connections (32768 and up)


def check(host: Host, plan: Plan, unit: Unit, bundle: Bundle, environment: Environment) -> None:
    """`build.check` with the environment that the PADL file gives the unit; what fails has its place in that file."""
    try:
        build.check(host, bundle, environment, variables(plan, unit))
    except BuildFailed as failed:
        pointer = blamed(plan, unit, failed.message)
        raise BuildFailed(placed(plan, pointer, failed.message), failed.hint) from None


def stage(  # noqa: PLR0913  the last stage before the machine: everything comes together here
    host: Host, plan: Plan, unit: Unit, bundle: Bundle, environment: Environment, settings: Settings, run: str = ""
) -> Release:
    """The unit's next release on the machine; the same release again when nothing is different.

    `DeployFailed` when its port is somebody else's, or a secret it needs is not set here.
    """
    layout = Layout(str(settings.home))
    prepare(host, layout)
    supervisor.configure(host, layout)
    port = _port(host, layout, plan, unit, settings.bind)
    env = {**variables(plan, unit), **_secrets(plan, unit), "MLPACKER_HOST": settings.bind, "MLPACKER_PORT": str(port)}
    identity = _identity(_key(host, layout), bundle.digest, environment.python, env)
    known = [release for release in records.history(host, layout, plan.pipeline, unit.name) if release.id == identity]
    release = Release(
        pipeline=plan.pipeline,
        unit=unit.name,
        id=identity,
        bundle=bundle.digest,
        lock=bundle.lock_digest,
        mode=plan.package_mode,
        host=settings.bind,
        port=port,
        models=bundle.models,
        run=run,
        by=f"{getpass.getuser()}@{socket.gethostname()}",
    )
    return known[0] if known else _write(host, layout, release, environment, env)


def _write(host: Host, layout: Layout, release: Release, environment: Environment, env: Mapping[str, str]) -> Release:
    """The record last: with it, the release is complete."""
    folder = layout.history(release.pipeline, release.unit, release.id)
    must(host, commands.make_folders(folder))
    launch = {
        "argv": [environment.python, entry(release.mode)],
        "cwd": environment.folder,
        "env": {**env, "MLPACKER_RELEASE": release.id, "PYTHONUNBUFFERED": "1"},
    }
    put_text(host, json.dumps(launch, indent=2, ensure_ascii=False), f"{folder}/launch.json")
    put_text(host, supervisor.unit_conf(host, layout, release), f"{folder}/unit.conf")
    put_text(host, release.to_json(), f"{folder}/release.json")
    return release


def _identity(key: bytes, bundle: str, python: str, env: Mapping[str, str]) -> str:
    """Keyed with the machine's own key, or whoever sees a release's name could guess at a weak password in its
    `env`.
    """
    content = json.dumps([bundle, python, dict(sorted(env.items()))])
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


def _secrets(plan: Plan, unit: Unit) -> dict[str, str]:
    """Values of the environment variables that the unit's queues name (`pass_env`), from the deployer's environment."""
    dead = [step.dead_letter for step in unit.steps if step.dead_letter]
    needed = {
        str(queue.options["pass_env"]): queue.id
        for queue in plan.queues
        if queue.id in {*unit.sources, *unit.sinks, *dead} and queue.options.get("pass_env")
    }
    missing = [f"{name} (queue {queue})" for name, queue in needed.items() if name not in os.environ]
    if missing:
        raise DeployFailed(
            f"{plan.pipeline}.{unit.name}: not set in the environment: {', '.join(missing)}",
            "export it before you deploy",
        )
    return {name: os.environ[name] for name in needed}


def _port(host: Host, layout: Layout, plan: Plan, unit: Unit, address: str) -> int:
    """PADL's port, or the one the unit had, or a free one that is the same on every machine as far as possible."""
    kept = [release.port for release in records.history(host, layout, plan.pipeline, unit.name)]
    port = unit.port or next(iter(kept), 0) or _free(host, layout, address, program(plan.pipeline, unit.name))
    holder = _toolbox(host, layout, "port", address, str(port))
    if not holder["free"] and not _is_ours(layout, plan.pipeline, holder):
        step = next((step for step in unit.steps if step.port), None) or unit.steps[0]
        taken = f"port {port} on {host.name} is taken by {_who(holder)}"
        pointer = ("pipeline", step.name, *(["port"] if step.port else []))
        raise DeployFailed(placed(plan, pointer, taken), "stop that process, or give the step another `port`")
    return port


def _who(holder: dict[str, Any]) -> str:
    return f"process {holder['pid']} ({holder['command']})" if holder["pid"] else "a process of another user"


def _is_ours(layout: Layout, pipeline: str, holder: dict[str, Any]) -> bool:
    """Whether it is a unit of this pipeline, also one that a killed supervisor left behind."""
    prefix = f"{supervisor.socket_path(layout.home)} {program(pipeline, '')}"
    return str(holder["program"]).startswith(prefix)


def _free(host: Host, layout: Layout, address: str, name: str) -> int:
    first = FIRST_PORT + zlib.crc32(f"{layout.home} {name}".encode()) % PORTS
    port = int(_toolbox(host, layout, "free", address, str(first), layout.home)["port"])
    if not port:
        raise DeployFailed(f"no free port on {host.name} from {first} on")
    return port


def _toolbox(host: Host, layout: Layout, *words: str) -> Any:
    return json.loads(must(host, commands.toolbox(host.python, layout.toolbox, *words)).out)
