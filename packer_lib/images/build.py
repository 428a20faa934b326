"""Bundle → image on this machine's engine, and the check that the image's unit loads."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from packer_lib import commands
from packer_lib.build import Progress, quiet, telling
from packer_lib.bundle import Bundle
from packer_lib.errors import BuildFailed
from packer_lib.hosts import Host, Result
from packer_lib.hosts.local import LocalHost
from packer_lib.images import failures, names, words
from packer_lib.images.client import docker, env_lines, environment, inspected, logged_in
from packer_lib.images.model import Image, registry_of
from packer_lib.plan import Plan, Unit
from packer_lib.settings import Settings

BUILD_WITHIN = 3600.0
CHECK_WITHIN = 300.0


def build(bundle: Bundle, plan: Plan, unit: Unit, settings: Settings, progress: Progress = quiet) -> Image:
    """The image of `bundle`: the one that is there when it was made of the same, without asking the builder.

    `BuildFailed` has what the failing command said. The CA bundle and the index are secrets of the build: no layer, no
    history and no label has them.
    """
    host, name = LocalHost(settings), f"{names.image(plan.pipeline, unit.name)}:{names.tag(bundle, settings)}"
    labels = names.labels(bundle, plan, unit, settings)
    there = inspected(docker(host, words.inspect_image(host.docker, name)))
    if there is not None and labels.items() <= (there["Config"].get("Labels") or {}).items():
        progress(f"the image of this bundle is there already ({name})")
        return _image(there, name)
    with telling(progress, f"building {name}"):
        _run(host, bundle, name, labels, settings)
    made = inspected(docker(host, words.inspect_image(host.docker, name)))
    if made is None:
        raise BuildFailed(f"{name} was built and is not there", "does something remove images on this machine?")
    return _image(made, name)


def inspect(host: Host, reference: str) -> Image | None:
    """The image of that name, id or digest on a machine; None when it has none."""
    found = inspected(docker(host, words.inspect_image(host.docker, reference)))
    return None if found is None else _image(found, reference)


def _image(found: dict[str, Any], name: str) -> Image:
    return Image(found["Id"], found["Id"], f"{found['Os']}/{found['Architecture']}", found["Size"], "", name)


def _run(host: LocalHost, bundle: Bundle, name: str, labels: Mapping[str, str], settings: Settings) -> None:
    with _secrets(settings) as secrets, logged_in(host, registry_of(settings)) as env:
        what = words.Build(str(bundle.path), name, settings.base_image, labels, secrets, settings.platform)
        result = host.run(words.build(host.docker, what), env=env, timeout=BUILD_WITHIN)
    if not result.ok:
        whole = failures.without_secrets(result.out + result.err, settings)
        advice = failures.hint(whole, failures.BUILD_HINTS, machine=host.name, base=settings.base_image, registry="")
        lines = failures.without_secrets(failures.build_lines(result), settings)
        raise BuildFailed(f"{name} cannot be built: {lines}", advice or "the lines above are the failing command's")


@contextmanager
def _secrets(settings: Settings) -> Iterator[dict[str, str]]:
    """Files with the build's secrets; those of ours are gone afterwards and nobody else's to read meanwhile."""
    if settings.ca_bundle is not None and not settings.ca_bundle.is_file():
        raise BuildFailed(f"{settings.ca_bundle} is not a file", "set MLPACKER__BUILD__CA_BUNDLE to one, or unset it")
    with tempfile.TemporaryDirectory(prefix="mlpacker-build-") as folder:
        index = Path(folder) / "index"
        index.touch(0o600)
        index.write_text(settings.index_url)
        yield {
            **({"ca": str(settings.ca_bundle)} if settings.ca_bundle else {}),
            **({"index": str(index)} if settings.index_url else {}),
        }


def check(image: Image, settings: Settings, variables: Mapping[str, str] | None = None) -> None:
    """Loads every model and handler in a container as the unit will have it, but without a network, and runs its golden
    requests; `BuildFailed` with what was said. `variables` are the plan's own; no secret is there.

    An image that has passed is not checked again.
    """
    host = LocalHost(settings)
    passed = _passed(host, image.id)
    if host.run(commands.exists(passed)).ok:
        return
    name = f"mlpacker-check-{image.id.removeprefix('sha256:')[:12]}"
    what = words.Container(name, image.id, {names.KIND: "check"}, env=True, command=("--check",), healthcheck=False)
    docker(host, words.remove_container(host.docker, name))
    try:
        argv = words.check(host.docker, what)
        result = host.run(argv, env=environment(host), input=env_lines(variables or {}), timeout=CHECK_WITHIN)
    finally:
        docker(host, words.remove_container(host.docker, name))
    if not result.ok:
        advice = failures.hint(result.err, failures.HINTS, machine=host.name, registry="the registry")
        raise BuildFailed(
            f"the unit does not start: {_finding(result)}", advice or "nothing was switched; mend it and deploy again"
        )
    host.run(commands.make_folders(str(Path(passed).parent)))
    host.run(commands.make_file(passed))


def _passed(host: Host, image_id: str) -> str:
    return f"{host.home}/checked/{image_id.removeprefix('sha256:')}"


def _finding(result: Result) -> str:
    """What the check found; when it did not get as far as saying that, the last lines."""
    _, found, said = result.out.partition("check failed: ")
    return said.strip() if found else result.tail(12)
