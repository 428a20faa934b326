"""The versions of a unit's models, by their own names.

GET  /admin/models                          all versions of all steps: number, label, sha256, state, reason
POST /admin/models/STEP/promote             the candidate is live; ?version=NAME: another that is loaded
POST /admin/models/STEP/discard             there is no candidate any more
POST /admin/models/STEP/shadow              {"share": 0.1}: the candidate gets copies of that share of what is asked
GET  /admin/models/STEP/shadow              what came of that
"""

from __future__ import annotations

from typing import Any

from .. import wanted
from ..predict import Answer, Refused, shown
from ..wanted import CANDIDATE, Wanted
from ..worker import Worker
from .asked import Asked
from .models import Models
from .repository import said, wait


class Versions:
    """`info` is what `/info` of this process says."""

    def __init__(self, models: Models, info: dict[str, Any], worker: Worker) -> None:
        self._models, self._info, self._worker = models, info, worker

    async def answer(self, asked: Asked) -> Answer | None:
        match asked.path.strip("/").split("/"):
            case ["admin", "models"]:
                asked.require("GET", "HEAD")
                return shown(200, {"models": self._models.rows(self._info, self._worker.reason)})
            case ["admin", "models", name, "shadow"] if asked.method in ("GET", "HEAD"):
                step = self._models.step(name).name
                return shown(200, {"step": step, **self._worker.shadow_report().get(step, {})})
            case ["admin", "models", name, "promote" | "discard" | "shadow" as action]:
                asked.require("POST")
                return await self._change(asked, name, action)
        return None

    async def _change(self, asked: Asked, name: str, action: str) -> Answer:
        spec, own = self._models.step(name), self._models.own(name)
        version, given = asked.query.get("version", CANDIDATE), await asked.value()
        share = _share(given) if action == "shadow" else 0.0

        def how(want: Wanted) -> Wanted:
            if action == "promote":
                return wanted.promote(want, name, own, spec.versions, version)
            return wanted.discard(want, name) if action == "discard" else wanted.shadow(want, name, share)

        now = await self._models.change(name, how, wait(asked))
        versions = [said(name, one) for one in wanted.versions(now, name, own)]
        return shown(200, {"step": name, "versions": versions, "shadow": now.shadow.get(name, 0)})


def _share(given: dict[str, Any]) -> float:
    share = given.get("share")
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
        raise Refused(400, 'expected {"share": a number from 0 to 1}; 0: no copies')
    return float(share)
