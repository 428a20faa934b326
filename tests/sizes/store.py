"""What the lab's registry holds of an image: its blobs with their sizes, which are what is pushed and pulled."""

from __future__ import annotations

import json
import re
import urllib.request

from tests.lab import lab
from tests.lab.place import docker

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


def push(name: str, repository: str) -> str:
    """A local image into the lab's registry; its reference by digest."""
    there = f"{lab.registry().host}/{repository}"
    docker("tag", name, f"{there}:latest")
    said = docker("push", f"{there}:latest")
    found = re.search(r"digest: (sha256:[0-9a-f]{64})", said)
    assert found, said
    return f"{there}@{found[1]}"


def blobs(reference: str) -> dict[str, int]:
    """Digest → compressed bytes of all that a machine without anything would pull."""
    server, _, rest = reference.partition("/")
    repository, _, digest = rest.partition("@")
    request = urllib.request.Request(
        f"http://{server}/v2/{repository}/manifests/{digest}", headers={"Accept": MANIFEST}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        text = answer.read()
    found = json.loads(text)
    return {digest: len(text), **{blob["digest"]: blob["size"] for blob in (found["config"], *found["layers"])}}


def added(reference: str, before: dict[str, int]) -> int:
    """Bytes that were not there."""
    return sum(size for digest, size in blobs(reference).items() if digest not in before)


def pulled(reference: str, said: str) -> int:
    """Bytes that `docker pull` fetched, by what it `said`: the layers that were not there, the manifest, the config."""
    found = blobs(reference)
    manifest, config, *layers = found.items()
    fetched = re.findall(r"^([0-9a-f]{12}): Pull complete", said, re.MULTILINE)
    wanted = [size for digest, size in layers if digest.removeprefix("sha256:")[:12] in fetched]
    assert len(wanted) == len(fetched), said
    return manifest[1] + config[1] + sum(wanted)


def remove(reference: str) -> None:
    server, _, rest = reference.partition("/")
    repository, _, digest = rest.partition("@")
    url = f"http://{server}/v2/{repository}/manifests/{digest}"
    with urllib.request.urlopen(urllib.request.Request(url, method="DELETE"), timeout=30):
        pass
