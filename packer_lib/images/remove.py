"""Images that nothing needs any more."""

from __future__ import annotations

from collections.abc import Collection

from packer_lib import commands
from packer_lib.hosts import Host
from packer_lib.hosts.local import LocalHost
from packer_lib.images import names, words
from packer_lib.images.client import docker, inspected
from packer_lib.settings import Settings


def remove(host: Host, reference: str) -> None:
    """No name of that image is left on the machine, nor the image itself unless something still runs from it; then
    `sweep` takes it later. Fine when there is none."""
    found = inspected(docker(host, words.inspect_image(host.docker, reference)))
    if found is None:
        return
    called = [*(found.get("RepoTags") or ()), *(found.get("RepoDigests") or ())] or [found["Id"]]
    if not docker(host, words.remove_image(host.docker, *called)).ok:
        docker(host, words.remove_image(host.docker, *called, force=True))
    host.run(commands.remove(f"{host.home}/checked/{found['Id'].removeprefix('sha256:')}"))


def sweep(host: Host, pipeline: str, unit: str) -> None:
    """Removes the unit's images that lost their names and that nothing runs from."""
    docker(host, words.sweep_images(host.docker, {names.PIPELINE: pipeline, names.UNIT: unit}))


def forget(settings: Settings, pipeline: str, keep: Collection[str] = ()) -> None:
    """No image of the pipeline is left on this machine, where images are built, but those named in `keep`, by id or
    digest. Fine when there is no engine here."""
    host = LocalHost(settings)
    label = {names.PIPELINE: pipeline}
    for identity in dict.fromkeys(docker(host, words.images(host.docker, label)).out.split()):
        found = inspected(docker(host, words.inspect_image(host.docker, identity))) or {}
        if not {identity, *(found.get("RepoDigests") or ())} & set(keep):
            remove(host, identity)
