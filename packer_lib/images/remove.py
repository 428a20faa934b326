"""Images that nothing needs any more."""

from __future__ import annotations

from collections.abc import Collection

from packer_lib import commands
from packer_lib.hosts import Host
from packer_lib.images import names, words
from packer_lib.images.client import docker, inspected


def remove(host: Host, reference: str, needed: Collection[str] = ()) -> None:
    """No name of that image is left on the machine, nor the image itself unless something still runs from it; then
    `sweep` takes it later. Fine when there is none.

    One of those `needed` may be the same image, which came another way: then only the names of this way go.
    """
    found = inspected(docker(host, words.inspect_image(host.docker, reference)))
    if found is None:
        return
    called = [*(found.get("RepoTags") or ()), *(found.get("RepoDigests") or ())] or [found["Id"]]
    same = {_registry(one) for one in needed if _id(host, one) == found["Id"]}
    if same:
        mine = [name for name in called if _registry(name) == _registry(reference) not in same]
        if mine:
            docker(host, words.remove_image(host.docker, *mine))
        return
    if not docker(host, words.remove_image(host.docker, *called)).ok:
        docker(host, words.remove_image(host.docker, *called, force=True))
    host.run(commands.remove(f"{host.home}/checked/{found['Id'].removeprefix('sha256:')}"))


def _id(host: Host, reference: str) -> str:
    found = inspected(docker(host, words.inspect_image(host.docker, reference))) or {}
    return str(found.get("Id", ""))


def _registry(name: str) -> str:
    """The server in an image's name or reference; none in what was streamed."""
    first, slash, _ = name.partition("/")
    return first if slash and (set(first) & {".", ":"} or first == "localhost") else ""


def sweep(host: Host, pipeline: str, unit: str) -> None:
    """Removes the unit's images that lost their names and that nothing runs from."""
    docker(host, words.sweep_images(host.docker, {names.PIPELINE: pipeline, names.UNIT: unit}))


def forget(host: Host, pipeline: str) -> None:
    """No image of the pipeline is left on the machine, whether or not it ever went live. Fine without an engine."""
    for identity in dict.fromkeys(docker(host, words.images(host.docker, {names.PIPELINE: pipeline})).out.split()):
        remove(host, identity)
