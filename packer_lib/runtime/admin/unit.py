"""The admin app of one unit, from what the unit is told."""

from __future__ import annotations

from typing import Any

from ..front import Leaving, release_header
from ..manifest import Manifest, Settings
from ..modelrunner.routes import Backing
from .acumos import Acumos
from .app import SHORTEST, Admin
from .changes import Changes
from .models import Models
from .repository import Repository
from .versions import Versions

ASKED = "MLPACKER_TOKEN, which every admin route asks for"


def check_token(token: str) -> None:
    """`ValueError` for one that keeps nobody out, or that no header can carry."""
    if not token:
        raise ValueError(f"MLPACKER_ADMIN_PORT is set, and not {ASKED}; set both or neither")
    if len(token) < SHORTEST:
        raise ValueError(f"{ASKED}, is {len(token)} characters long; make it {SHORTEST} at least")
    if not token.isascii() or not token.isprintable() or " " in token:
        raise ValueError(f"{ASKED}, has other characters than visible ones of ASCII")


def admin_app(
    settings: Settings, manifest: Manifest, backing: Backing, info: dict[str, Any], leaving: Leaving, workers: int = 1
) -> Admin:
    """`info` is what `/info` of this process says, `backing` what predicts, `workers` the processes of the unit."""
    changes = Changes(backing.state, workers, leaving)
    models = Models(manifest, changes, settings.unsafe_uploads)
    largest, in_memory = settings.max_model_mib << 20, settings.max_body_mib << 20
    routes = (
        Repository(models, info, largest),
        Versions(models, info, backing.worker),
        Acumos(models, backing, largest),
    )
    return Admin(settings.token, routes, in_memory, release_header(str(info["release"])), leaving)
