"""What is wanted of the unit, changed: one change at a time, by whichever process, and back when it is refused.

A change is there when every process of the unit says so; see wanted.py and swap.py, which do what is wanted.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
import os
import time
import uuid
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .. import wanted
from ..front import Leaving
from ..predict import Refused
from ..wanted import Wanted

log = logging.getLogger("mlpacker.admin")

LOCK = "changing.lock"
REFUSED = "refused.json"  # step → the last model of it that was refused, and why
LOOK_EVERY = 0.02
TURN_SECONDS = 120.0  # for who comes before


class Overtaken(Refused):
    """What is wanted now is another's, and stays."""


@dataclass(frozen=True, slots=True)
class Changes:
    """Of the unit of `workers` processes whose state folder is `state`."""

    state: Path
    workers: int
    leaving: Leaving

    def wanted(self) -> Wanted:
        """`Refused` where the file is not one that we know."""
        try:
            return wanted.read(self.state)
        except ValueError as error:
            raise Refused(409, f"{error}; nothing has changed") from None

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[Wanted]:
        """What is wanted now, which no other change touches in the block; `Refused` when the turn does not come."""
        await asyncio.to_thread(self.state.mkdir, 0o700, True, True)
        lock = os.open(self.state / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            await self._turn(lock)
            yield self.wanted()
        finally:
            os.close(lock)

    async def _turn(self, lock: int) -> None:
        end = time.monotonic() + TURN_SECONDS
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                self._require_staying()
                if time.monotonic() > end:
                    raise Refused(503, "another change has not come to an end; try again later") from None
            await asyncio.sleep(LOOK_EVERY)

    async def make(self, before: Wanted, after: Wanted, seconds: float, names: Iterable[str]) -> Wanted:
        """`after` instead of `before`, in every process within `seconds`; `names` are the steps it is about. `Refused`
        says why it is not, and then `before` is wanted again."""
        after = replace(after, id=uuid.uuid4().hex[:12])
        await asyncio.to_thread(wanted.write, self.state / wanted.WANTED, after.to_json())
        try:
            await self._come_true(after.id, seconds)
        except BaseException as error:
            if not isinstance(error, Overtaken):
                self._put_back(before)
            if isinstance(error, Refused) and error.status == 422:
                self._note(dict.fromkeys(names, str(error)), before, after)
            raise
        self._note(dict.fromkeys(names, ""), before, after)
        return after

    async def _come_true(self, wish: str, seconds: float) -> None:
        end = time.monotonic() + seconds
        while True:
            said = [wanted.told(self.state, worker) for worker in range(self.workers)]
            states = [told.get("state") for told in said if told.get("id") == wish]
            if "refused" in states:
                reason = next(told.get("reason") for told in said if told.get("state") == "refused")
                raise Refused(422, str(reason))
            if len(states) == self.workers and set(states) == {"live"}:
                return
            if self.wanted().id != wish:
                raise Overtaken(409, "something else is wanted by now (mlpacker swap, or a deployment)")
            if time.monotonic() > end:
                raise Refused(504, f"not live in all processes after {seconds:.0f} s; what was wanted before is again")
            self._require_staying()
            await asyncio.sleep(LOOK_EVERY)

    def _require_staying(self) -> None:
        if self.leaving.now:
            raise Refused(503, "the unit stops, or another release takes over; ask that one")

    def _put_back(self, before: Wanted) -> None:
        if before == Wanted():
            (self.state / wanted.WANTED).unlink(missing_ok=True)
        else:
            wanted.write(self.state / wanted.WANTED, before.to_json())

    # ── what was refused ─────────────────────────────────────────────────────────────────────────────────────────────

    def refused(self) -> dict[str, dict[str, Any]]:
        """By step the last model that was refused, unless one came live since: {"sha256", "number", "reason"}."""
        try:
            found = json.loads((self.state / REFUSED).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def _note(self, reasons: dict[str, str], before: Wanted, after: Wanted) -> None:
        noted = {step: told for step, told in self.refused().items() if step not in reasons}
        for step, reason in reasons.items():
            if reason and (model := _fresh(before, after, step)):
                noted[step] = {"sha256": model.sha256, "number": model.number, "reason": reason}
        if noted or (self.state / REFUSED).exists():
            wanted.write(self.state / REFUSED, json.dumps(noted))


def _fresh(before: Wanted, after: Wanted, step: str) -> wanted.Staged | None:
    """The model of `step` that the one names and the other does not."""
    known = {model.sha256 for model in _named(before, step)}
    return next((model for model in _named(after, step) if model.sha256 not in known), None)


def _named(want: Wanted, step: str) -> list[wanted.Staged]:
    return [*([want.models[step]] if step in want.models else []), *want.others.get(step, ())]
