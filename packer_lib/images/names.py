"""Names and labels of images, containers, volumes and the network. Pure; no two units ever share one.

A pipeline's id may hold dots, a unit's name never does, and neither has a capital letter: `<pipeline>.<unit>` can be
taken apart again. An image's name allows less (no `a..b`, no `a-`): what does not fit is cleaned and given its hash.
"""

from __future__ import annotations

import hashlib
import json
import re

from packer_lib.bundle import Bundle
from packer_lib.images.model import Registry
from packer_lib.plan import Plan, Unit
from packer_lib.settings import Settings

OURS = "io.mlpacker."
OCI = "org.opencontainers.image."
# only containers have this one: images give theirs on to whatever is run from them
KIND, RELEASE, REPLICA, RUN = f"{OURS}kind", f"{OURS}release", f"{OURS}replica", f"{OURS}run"
PIPELINE, UNIT, BUNDLE = f"{OURS}pipeline", f"{OURS}unit", f"{OURS}bundle"
MODELS, LOCK = f"{OURS}models", f"{OURS}lock"
BASE, BASE_DIGEST = f"{OCI}base.name", f"{OCI}base.digest"
PLAIN = re.compile(r"[a-z0-9]+(?:[-._][a-z0-9]+)*")
LONGEST = 63
NETWORK = "mlpacker"
DOOR_FOLDER = "/run/mlpacker"  # in every container
PORT, ADMIN_PORT = 8080, 8081  # in every container


def slug(name: str) -> str:
    """`name` as part of an image's name: itself where that may be, else cleaned and with its hash behind `__`."""
    if PLAIN.fullmatch(name) and len(name) <= LONGEST:
        return name
    cleaned = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40].strip("-") or "x"
    return f"{cleaned}__{hashlib.sha256(name.encode()).hexdigest()[:12]}"


def image(pipeline: str, unit: str) -> str:
    """Of the unit's images here, without a registry and without a tag."""
    return f"mlpacker/{slug(pipeline)}.{slug(unit)}"


def pushed(registry: Registry, name: str) -> str:
    """`name` (with its tag) in the registry. Our own folder would be one too many where there is a prefix."""
    return f"{registry.host}/{name.removeprefix('mlpacker/') if '/' in registry.host else name}"


def tag(bundle: Bundle, settings: Settings) -> str:
    """By all that goes into an image: another base or platform is another image of the same bundle."""
    recipe = json.dumps([bundle.digest, settings.base_image, settings.platform])
    return hashlib.sha256(recipe.encode()).hexdigest()[:12]


def labels(bundle: Bundle, plan: Plan, unit: Unit, settings: Settings) -> dict[str, str]:
    """The same for the same image: nothing of the hour or the run, or no rebuild would ever be the same image."""
    base, _, digest = settings.base_image.partition("@")
    return {
        f"{OCI}title": f"{plan.pipeline}/{unit.name}",
        f"{OCI}version": bundle.digest[:12],
        BASE: base,
        **({BASE_DIGEST: digest} if digest else {}),
        PIPELINE: plan.pipeline,
        UNIT: unit.name,
        BUNDLE: bundle.digest,
        LOCK: bundle.lock_digest,
        MODELS: json.dumps(dict(bundle.models), separators=(",", ":")),
    }


def container(pipeline: str, unit: str, process: str) -> str:
    """Of one process, `<release>` or `<release>.<replica>`. No release is as short as a replica."""
    return f"mlpacker.{pipeline}.{unit}.{process}"


def door(pipeline: str, unit: str) -> str:
    """Of the container that has the unit's public port; also its address on the machine's network."""
    return container(pipeline, unit, "door")


def volume(pipeline: str, unit: str) -> str:
    """Of the folder that a unit's door and releases share."""
    return f"mlpacker.{pipeline}.{unit}"
