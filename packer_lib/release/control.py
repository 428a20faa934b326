"""Who may call an API unit, and who may change it: the variables of its process that hold the key and the token."""

from __future__ import annotations

import re

from packer_lib import secrets
from packer_lib.errors import DeployFailed
from packer_lib.images import names
from packer_lib.padl.model import SecretRef
from packer_lib.plan import Plan, Unit
from packer_lib.release import ports
from packer_lib.runtime import manifest
from packer_lib.settings import Settings

INSIDE = "0.0.0.0"  # noqa: S104  a container's own; which address of the machine leads there its door says


def variables(plan: Plan, unit: Unit, settings: Settings) -> dict[str, str]:
    """For `launch.json`, which its owner alone can read; `DeployFailed` and `PolicyRefused` where a secret is not to be
    had, or is none."""
    if plan.package_mode != "api":
        return {}
    who = f"{plan.pipeline}.{unit.name}"
    env = {"MLPACKER_WORKERS": str(unit.workers)} if unit.workers > 1 else {}
    if plan.key is not None:
        env["MLPACKER_API_KEY"] = _key(plan.key, who, settings)
    if plan.admin is not None and plan.admin.token is not None and unit.admin_port:
        host, port = (
            (INSIDE, names.ADMIN_PORT) if plan.containerized else (address(plan, unit, settings), unit.admin_port)
        )
        token = secrets.value(plan.admin.token, f"{who}: admin", settings)
        env |= {"MLPACKER_TOKEN": token, "MLPACKER_ADMIN_PORT": str(port), "MLPACKER_ADMIN_HOST": host}
        if why := manifest.objection(manifest.Settings(token=token, admin_port=port)):
            raise DeployFailed(f"{who}: {why}", "for example: openssl rand -hex 16")
    return env


def address(plan: Plan, unit: Unit, settings: Settings) -> str:
    """The address of the machine that its admin port is on; empty without one."""
    if plan.admin is None or not unit.admin_port:
        return ""
    return ports.bind(plan, unit, settings) if plan.admin.expose else ports.HERE


def _key(where: SecretRef, who: str, settings: Settings) -> str:
    key = secrets.value(where, f"{who}: key", settings)
    if not re.fullmatch(r"[\x21-\x7e]+", key) or not all(key.split(",")):
        raise DeployFailed(f"{who}: the key has other characters than visible ones of ASCII", "letters and digits do")
    return key
