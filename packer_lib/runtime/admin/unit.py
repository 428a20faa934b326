"""The admin app of one unit, from what the unit is told."""

from __future__ import annotations

import time
from collections.abc import Iterable
from importlib import import_module
from threading import Thread
from typing import Any

from ..front import Leaving
from ..heads import release_header
from ..manifest import Manifest, Settings
from ..modelrunner.routes import Backing
from ..worker import Worker
from .acumos import Acumos
from .app import Admin
from .changes import Changes
from .models import Models
from .repository import Repository
from .versions import Versions

LOOK_EVERY = 0.2
READERS = {"scikit-learn": "skops.io"}  # what a safe format needs beside what the bundle's own model does


def admin_app(
    settings: Settings, manifest: Manifest, backing: Backing, info: dict[str, Any], leaving: Leaving
) -> Admin:
    """`info` is what `/info` of this process says, `backing` what predicts."""
    changes = Changes(backing.state, settings.workers, leaving)
    models = Models(manifest, changes, settings.unsafe_uploads)
    largest, in_memory = settings.max_model_mib << 20, settings.max_body_mib << 20
    routes = (
        Repository(models, info, backing.worker, largest),
        Versions(models, info, backing.worker),
        Acumos(models, backing, largest),
    )
    frameworks = {step.framework for step in models.steps().values()}
    Thread(target=_prepare, args=(backing.worker, frameworks), name="admin", daemon=True).start()
    return Admin(settings.token, routes, in_memory, release_header(str(info["release"])), leaving)


def _prepare(worker: Worker, frameworks: Iterable[str]) -> None:
    """Imports what uploads need, once the unit is ready, so that the first one does not wait a second for that."""
    while worker.reason:
        time.sleep(LOOK_EVERY)
    for framework in frameworks:
        if framework in READERS:
            import_module(READERS[framework])
