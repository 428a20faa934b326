"""The docker client on a host: its environment, its logins, the lines that units get their environment by."""

from __future__ import annotations

import base64
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from packer_lib import commands
from packer_lib.errors import DeployFailed
from packer_lib.hosts import Host, Result
from packer_lib.hosts.home import put_text
from packer_lib.images.model import Registry

# where this machine's engine is, when that is not the usual socket
ENGINE = ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH", "DOCKER_API_VERSION")
HUB = "https://index.docker.io/v1/"
ANSWER_WITHIN = 60.0


def docker(host: Host, argv: commands.Argv, *, input: str | None = None, timeout: float = ANSWER_WITHIN) -> Result:
    """One small command, without a login."""
    return host.run(argv, env=environment(host), input=input, timeout=timeout)


def environment(host: Host, config: str = "") -> dict[str, str]:
    """The client's whole environment; `config` is a folder with logins."""
    engine = {name: os.environ[name] for name in ENGINE if name in os.environ} if host.machine is None else {}
    return {**host.environ, **engine, "DOCKER_BUILDKIT": "1", **({"DOCKER_CONFIG": config} if config else {})}


def inspected(result: Result) -> dict[str, Any] | None:
    """The one thing that was inspected; None when there is none."""
    found = json.loads(result.out or "[]") if result.ok else []
    return found[0] if found else None


def env_lines(env: Mapping[str, str]) -> str:
    """As `--env-file` reads it: everything behind the first `=` is the value, whatever it is; a line is a value."""
    for name, value in env.items():
        if "\n" in value or "\r" in value or "\0" in value:
            raise DeployFailed(
                f"the value of {name} has a line break, which no container's environment file can hold",
                "encode it (base64) and let the unit decode it",
            )
    return "".join(f"{name}={value}\n" for name, value in env.items())


@contextmanager
def logged_in(host: Host, registry: Registry | None) -> Iterator[dict[str, str]]:
    """The client's environment with a login for `registry` that is gone afterwards; nobody's own logins change.

    This machine's own configuration holds beside it: contexts, plug-ins and logins for other registries.
    """
    if registry is None or not registry.user:
        yield environment(host)
    elif host.machine is None:
        with tempfile.TemporaryDirectory(prefix="mlpacker-docker-") as folder:
            own = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
            (Path(folder) / "config.json").touch(0o600)
            (Path(folder) / "config.json").write_text(json.dumps(_beside(own, Path(folder), registry)))
            yield environment(host, folder)
    else:
        yield from _far_login(host, registry)


def _far_login(host: Host, registry: Registry) -> Iterator[dict[str, str]]:
    folder = f"{host.home}/.docker-{os.urandom(6).hex()}"
    try:
        put_text(host, json.dumps({"auths": _auths(registry)}), f"{folder}/config.json")
        yield environment(host, folder)
    finally:
        host.run(commands.remove(folder))


def _beside(own: Path, folder: Path, registry: Registry) -> dict[str, Any]:
    for entry in own.iterdir() if own.is_dir() else ():
        if entry.name != "config.json":
            (folder / entry.name).symlink_to(entry)
    try:
        config: dict[str, Any] = json.loads((own / "config.json").read_text())
    except (OSError, ValueError):
        config = {}
    helpers = {server: name for server, name in config.get("credHelpers", {}).items() if server != registry.server}
    auths = {**config.get("auths", {}), **_auths(registry)}
    if config.pop("credsStore", ""):  # it would be asked instead of `auths`, for every registry
        auths = {server: login for server, login in auths.items() if login}
    return {**config, "credHelpers": helpers, "auths": auths}


def _auths(registry: Registry) -> dict[str, dict[str, str]]:
    server = HUB if registry.server in ("docker.io", "index.docker.io") else registry.server
    return {server: {"auth": base64.b64encode(f"{registry.user}:{registry.password}".encode()).decode()}}
