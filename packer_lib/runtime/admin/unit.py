"""The admin app of one unit, from what the unit is told."""

from __future__ import annotations

from typing import Any

from ..front import Leaving, release_header
from ..manifest import Manifest, Settings
from ..modelrunner.routes import Backing
from .acumos import Acumos
from .app import Admin
from .changes import Changes
from .models import Models
from .repository import Repository
from .versions import Versions


def admin_app(
    settings: Settings, manifest: Manifest, backing: Backing, info: dict[str, Any], leaving: Leaving
) -> Admin:
    """`info` is what `/info` of this process says, `backing` what predicts."""
    changes = Changes(backing.state, settings.workers, leaving)
    models = Models(manifest, changes, settings.unsafe_uploads)
    largest, in_memory = settings.max_model_mib << 20, settings.max_body_mib << 20
    routes = (
        Repository(models, info, largest),
        Versions(models, info, backing.worker),
        Acumos(models, backing, largest),
    )
    return Admin(settings.token, routes, in_memory, release_header(str(info["release"])), leaving)
