"""Several worker processes of one REST unit (`MLPACKER_WORKERS`), and the parent that this process is then. Standard
library only: the parent loads no model and reads no request.

    parent: own address, public port (ports.py), accepts ─▶ a connection, over a socket pair ─▶ worker with the fewest
    worker: what a unit of one process is, but for its listening, see given.py

Who accepts decides who works: workers that all listen on one socket, or on one port (SO_REUSEPORT), get what the kernel
wakes them for, and what waits at a dead one is lost. So the parent gives each connection to the worker that has the
fewest, the dead one's share to others, and starts that anew, later each time. The unit is ready when all of them are;
until it was, the end of one ends the unit, as it does where there is one. A worker never outlives its parent.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import shutil
import signal
import socket
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from . import logs
from . import manifest as manifests
from .manifest import Settings
from .ports import Doorway, listen
from .posts import LINE, WORKER, Intake, Post, fitting

log = logging.getLogger("mlpacker.workers")

METRICS = "PROMETHEUS_MULTIPROC_DIR"
TICK = 0.1
END_SECONDS = 28.0  # for workers to end in order; a machine waits 30 s
FILES = 128  # descriptors that a worker needs beside its connections


def lead(folder: Path) -> None:
    """Returns at once, unless the unit of `folder` is to have several workers and this is not one of them: then this
    process is their parent, and ends here."""
    settings = manifests.settings()
    if settings.workers > 1 and LINE not in os.environ and "--check" not in sys.argv:
        sys.exit(main(folder, settings))


def follow() -> None:
    """Under `bentoml serve`, which starts the processes itself: which of them this is."""
    index = getattr(getattr(sys.modules.get("bentoml"), "server_context", None), "worker_index", None)
    if index and manifests.settings().workers > 1:
        os.environ[WORKER] = str(index - 1)


def main(folder: Path, settings: Settings) -> int:
    """The exit code: 0 after SIGTERM or SIGINT."""
    manifest = manifests.load(folder)
    logs.to_stderr(settings.log_level, f"{manifest.pipeline}/{manifest.unit}")
    if reason := manifests.objection(settings):
        log.error("%s", reason)
        return 1
    try:
        own = listen(settings.host, settings.port)
    except OSError as error:
        where = f"{settings.host}:{settings.port}"
        log.error("cannot listen on %s: %s (set MLPACKER_PORT to a free port)", where, error.strerror)
        return 1
    log.info("listening on http://%s:%d/predict, for %d workers", *own.getsockname()[:2], settings.workers)
    numbers = fresh(manifests.state_folder(settings, folder))
    try:
        failed = asyncio.run(Parent(settings, own, numbers).live())
    finally:
        shutil.rmtree(numbers, ignore_errors=True)
    log.info("stopped" if failed else "stopped in order")
    return 1 if failed else 0


class Leaving:
    """What every worker is told of leaving, as a value."""

    def __init__(self, parent: Parent) -> None:
        self._parent, self._now = parent, False

    @property
    def now(self) -> bool:
        return self._now

    @now.setter
    def now(self, value: bool) -> None:
        self._now = value
        self._parent.tell({"leaving": value})


class Parent:
    """Of `settings.workers` processes, whose metrics are in the folder `numbers`; `own` is the unit's own address."""

    def __init__(self, settings: Settings, own: socket.socket, numbers: Path) -> None:
        self._own, self._numbers = own, numbers
        self._posts = tuple(Post(number, self._heard) for number in range(settings.workers))
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._most = sys.maxsize if files == resource.RLIM_INFINITY else files - FILES
        self._intake = Intake(self._pick)
        self._leaving = Leaving(self)
        self._started = datetime.now(UTC).isoformat(timespec="seconds")
        self._unit: dict[str, Any] = {}
        self._died: list[int] = []
        self._was_ready = self._failed = self._ending = False
        self._stop = asyncio.Event()
        self._doorway: Doorway | None = None
        if settings.door:
            port = own.getsockname()[1]
            self._doorway = Doorway(settings.door, settings.release, port, self.reason, self._leaving)

    async def live(self) -> bool:
        """Until told to end, or there is no use in going on: True then."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGCHLD, self._reap)
        await self._intake.listen(self._own)
        for post in self._posts:
            self._start(post)
        while not self._stop.is_set():
            if self._doorway is not None:
                await self._doorway.look(self._intake.listen)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TICK if self._doorway else None):
                    await self._stop.wait()
        await self._end()
        return self._failed

    def tell(self, message: dict[str, Any]) -> None:
        for post in self._posts:
            post.say(message)

    def reason(self) -> str:
        """Why the unit is not ready, "" when it is."""
        reasons = {post.number: post.reason for post in self._posts if post.reason}
        if len(reasons) == len(self._posts) and len(set(reasons.values())) == 1:
            return self._posts[0].reason
        return next((f"worker {number}: {reason}" for number, reason in reasons.items()), "")

    def _pick(self) -> Post | None:
        """Who gets the next connection: of those that are ready, else of those that are here, the one with fewest."""
        here = [post for post in self._posts if post.here and not post.going and post.open < self._most]
        ready = [post for post in here if not post.reason]
        return min(ready or here, key=lambda post: (post.open, post.turn), default=None)

    def _start(self, post: Post) -> None:
        if self._stop.is_set():
            return
        try:
            post.start({METRICS: str(self._numbers)})
        except OSError as error:
            log.error("worker %d cannot be started: %s", post.number, error.strerror)
            post.bury()
            self._again(post)

    def _heard(self, post: Post, message: dict[str, Any]) -> None:
        post.open -= message.get("closed", 0)
        post.going = post.going or "going" in message
        if "reason" in message:
            post.reason, post.has = message.pop("reason"), message
            new, post.here = not post.here, True
            self._consider()
            if new:
                post.say({"leaving": self._leaving.now})
                post.say({"unit": self._unit})

    def _consider(self) -> None:
        """What the unit is now, told to all when it was something else."""
        here = [post for post in self._posts if post.here]
        rows = {key: of_all([post.has.get(key, []) for post in here]) for key in ("models", "versions")}
        processes = [os.getpid(), *(post.process.pid for post in here if post.process)]
        unit = fitting({"reason": self.reason(), **rows, "started": self._started, "processes": processes})
        if unit != self._unit:
            self._unit = unit
            self.tell({"unit": unit})
        if not unit["reason"] and not self._was_ready:
            self._was_ready = True
            log.info("ready, with %d workers", len(self._posts))
        while self._died and here:
            here[0].say({"died": self._died.pop()})

    def _reap(self) -> None:
        for post in self._posts:
            if post.process is not None and post.process.poll() is not None:
                self._lost(post, post.process.returncode)

    def _lost(self, post: Post, code: int) -> None:
        rest = post.bury()
        self._forget(post.number)
        self._intake.take_back(rest)
        if self._ending:
            return
        if not self._was_ready:
            log.error("worker %d ended with code %d before the unit was ready", post.number, code)
            self._failed = True
            self._stop.set()
            return
        log.error("worker %d ended with code %d", post.number, code)
        self._again(post)
        self._died.append(post.number)
        self._consider()

    def _again(self, post: Post) -> None:
        pause = post.pause()
        log.warning("worker %d starts again in %.2f s", post.number, pause)
        asyncio.get_running_loop().call_later(pause, self._start, post)

    def _forget(self, number: int) -> None:
        from . import metrics  # not before it is needed: 7 MB

        metrics.forget(str(self._numbers), str(number))

    async def _end(self) -> None:
        """Nothing new is taken; workers answer what they have and end."""
        self._ending = True
        if self._doorway is not None:
            await self._doorway.close()
        self._intake.close()
        self.tell({"end": True})
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(END_SECONDS):
                while any(post.process for post in self._posts):
                    await asyncio.sleep(TICK / 4)
        for post in self._posts:
            if post.process is not None:
                log.error("worker %d does not end, and is killed", post.number)
                post.process.kill()
                post.process.wait()


def of_all(told: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Of each model the row of those that all processes have, or that of the first one that does not have it ready."""
    rows = [{(row["step"], row["sha256"]): row for row in each} for each in told]
    found: list[dict[str, Any]] = []
    for key in dict.fromkeys(key for each in rows for key in each):
        of_key = [each[key] for each in rows if key in each]
        not_ready = [row for row in of_key if row.get("state", "READY") != "READY"]
        if not_ready or len(of_key) == len(rows):
            found.append((not_ready or of_key)[0])
    return found


def fresh(state: Path) -> Path:
    """An empty folder for the workers' metrics, in the unit's own if that can be written; those of parents that are
    no more are removed."""
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        for former in state.glob("metrics.*"):
            if former.suffix == f".{os.getpid()}" or not _lives(former.suffix[1:]):
                shutil.rmtree(former, ignore_errors=True)
        made = state / f"metrics.{os.getpid()}"
        made.mkdir(mode=0o700)
    except OSError:
        return Path(tempfile.mkdtemp(prefix="mlpacker-metrics-"))
    return made


def _lives(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (OSError, ValueError):
        return False
    return True
