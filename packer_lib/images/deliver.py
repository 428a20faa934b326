"""An image to the machine that is to run it: pulled by digest, or poured over the connection that there is anyway."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path
from typing import IO

from packer_lib.build import Progress, quiet, telling
from packer_lib.errors import DeployFailed
from packer_lib.hosts import Host, Result
from packer_lib.hosts.local import LocalHost
from packer_lib.images import failures, saved, words
from packer_lib.images.client import docker, environment, logged_in
from packer_lib.images.model import Image, Registry
from packer_lib.settings import Settings

BRING_WITHIN = 3600.0


def deliver(host: Host, image: Image, registry: Registry | None, settings: Settings, progress: Progress = quiet) -> int:
    """`image` on the machine, named, so that nobody's `docker image prune` takes it; nothing is done when it is there.

    Returns the bytes that went over our connection (what a machine pulls does not). `DeployFailed`: another
    architecture, what the engine or the registry said.
    """
    _same_kind(host, image)
    if present(host, image):
        return 0
    if image.digest:
        _pull(host, image, registry, settings, progress)
        sent = 0
    else:
        sent = _pour(host, image, settings, progress)
    if not present(host, image):
        raise DeployFailed(
            f"{host.name} took {image.name} and has another id for it",
            "its engine keeps images in containerd's store: use a registry (MLPACKER__REGISTRY__HOST) for it",
        )
    return sent


def present(host: Host, image: Image) -> bool:
    """Whether the machine has exactly this image, under our name for it."""
    found = docker(host, words.tag(host.docker, image.reference, _name(image)))
    return found.ok


def _name(image: Image) -> str:
    """The tag beside the digest."""
    repository, at, _digest = image.reference.partition("@")
    return f"{repository}:{image.name.rpartition(':')[2]}" if at else image.name


def _same_kind(host: Host, image: Image) -> None:
    asked = docker(host, words.server(host.docker))
    if not asked.ok:
        raise _failed(host, asked, "its engine does not answer", "")
    kind = asked.out.split()[0]
    if kind != image.arch:
        raise DeployFailed(
            f"{image.name} is built for {image.arch}, {host.name} is {kind}",
            f"set MLPACKER__BUILD__PLATFORM={kind} (and a base image that has it), then deploy again",
        )


def _failed(host: Host, result: Result, what: str, registry: str) -> DeployFailed:
    advice = failures.hint(result.out + result.err, failures.HINTS, machine=host.name, registry=registry)
    return DeployFailed(f"{host.name}: {what}: {failures.said(result)}", advice or "the lines above are its engine's")


def _pull(host: Host, image: Image, registry: Registry | None, settings: Settings, progress: Progress) -> None:
    with telling(progress, f"{host.name} pulls {image.name}"), logged_in(host, registry) as env:
        result = host.run(words.pull(host.docker, image.reference), env=env, timeout=BRING_WITHIN)
    if not result.ok:
        server = registry.server if registry else image.reference.partition("/")[0]
        result = Result(result.code, result.out, failures.without_secrets(result.err, settings))
        raise _failed(host, result, f"{image.reference} cannot be pulled", server)


def _pour(host: Host, image: Image, settings: Settings, progress: Progress) -> int:
    """Only the layers that the machine lacks; all of them when its engine wants to see what it has."""
    settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    sent: list[int] = []
    with (
        tempfile.TemporaryFile(dir=settings.home) as file,  # has no name: gone with this process, however that ends
        telling(progress, f"{host.name} gets the layers of {image.name} that it lacks, over its connection"),
    ):
        what = _save(image, settings, file)
        known = saved.shared(what.chain, _chains(host))
        result = _load(host, what, known, sent)
        if not result.ok and known:
            result = _load(host, what, 0, sent)
    if not result.ok:
        raise _failed(host, result, f"{image.name} cannot be loaded", "the registry")
    progress(f"  {len(what.layers) - known} of {len(what.layers)} layers, {sum(sent) / 1e6:.1f} MB")
    return sum(sent)


def _load(host: Host, what: saved.Saved, known: int, sent: list[int]) -> Result:
    return host.pour(words.load(host.docker), saved.squeezed(what.chunks(known), sent), timeout=BRING_WITHIN)


def _chains(host: Host) -> list[list[str]]:
    """Of the images that the machine has; one that goes meanwhile is no reason to fail."""
    ids = sorted(set(docker(host, words.images(host.docker)).out.split()))
    if not ids:
        return []
    return saved.known_chains(docker(host, words.chains(host.docker, *ids)).out.splitlines())


def _save(image: Image, settings: Settings, file: IO[bytes]) -> saved.Saved:
    here = LocalHost(settings)
    argv, env = words.save(here.docker, image.name), environment(here)
    try:
        done = subprocess.run(argv, stdout=file, stderr=subprocess.PIPE, env=env, timeout=BRING_WITHIN, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DeployFailed(f"{image.name} cannot be saved: {error}") from None
    if done.returncode:
        result = Result(done.returncode, err=done.stderr.decode("utf-8", "replace"))
        raise _failed(here, result, f"{image.name} cannot be saved below {Path(settings.home)}", "the registry")
    file.seek(0)
    what = saved.read(file)
    if what.id != image.id:
        raise DeployFailed(f"{image.name} is another image by now", "deploy again")
    return what
