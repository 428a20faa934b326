"""An image into a registry, and its name there by digest."""

from __future__ import annotations

import re
from dataclasses import replace

from packer_lib.build import Progress, quiet, telling
from packer_lib.errors import PushFailed
from packer_lib.hosts.local import LocalHost
from packer_lib.images import failures, names, words
from packer_lib.images.client import docker, logged_in
from packer_lib.images.model import Image, Registry
from packer_lib.settings import Settings

PUSH_WITHIN = 3600.0
DIGEST = re.compile(r"digest: (sha256:[0-9a-f]{64}) size: \d+")


def push(image: Image, registry: Registry | None, settings: Settings, progress: Progress = quiet) -> Image:
    """`image` as the registry has it; layers that are there already are not sent. The image itself without a registry.

    `PushFailed` with the registry's words; what has no digest is never given on.
    """
    if registry is None:
        return image
    host, name = LocalHost(settings), names.pushed(registry, image.name)
    tagged = docker(host, words.tag(host.docker, image.id, name))
    if not tagged.ok:
        raise PushFailed(f"{image.name} cannot be named {name}: {failures.said(tagged)}", "is it still there?")
    with telling(progress, f"pushing {name}"), logged_in(host, registry) as env:
        result = host.run(words.push(host.docker, name), env=env, timeout=PUSH_WITHIN)
    found = DIGEST.search(result.out)
    if not result.ok or found is None:
        said = failures.without_secrets(failures.said(result), settings)
        advice = failures.hint(result.out + result.err, failures.HINTS, machine=host.name, registry=registry.server)
        raise PushFailed(f"{name} cannot be pushed: {said}", advice or "the lines above are the registry's")
    return replace(image, reference=f"{name.rpartition(':')[0]}@{found[1]}", digest=found[1])
