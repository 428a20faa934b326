"""A unit behind REST: what the generated `service.py`, a BentoML service, stands on.

    python service.py ──▶ Front ─▶ BentoML's app, built when somebody first asks for a route that only it has
    bentoml serve     ──▶ BentoML's app ─▶ Front, as a middleware of it
    Front ─▶ Worker (one thread) ─▶ Chain

BentoML and its app take more than a second to import and 50 MB to keep; a unit that only predicts needs neither.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from . import chain, links, logs, posts
from . import manifest as manifests
from .admin.port import AdminPort
from .contract import Replica
from .documented import Documented
from .door import Line
from .front import App, Front, Leaving, Message, Receive, Send
from .given import Given, die_with_parent
from .invocations import Invocations
from .keys import Keys
from .modelrunner.routes import Backing, ModelRunner
from .oip import OpenInference
from .ports import Doorway, listen
from .predict import final, run
from .room import Room
from .serving import Server
from .worker import Worker

__all__ = ["Front", "Unit", "unit_in"]

log = logging.getLogger("mlpacker.rest")

os.environ.setdefault("BENTOML_DO_NOT_TRACK", "true")  # read when bentoml is imported: no unit reports to anyone

# Of BentoML's service: the front has its own metrics and no time limit, BentoML's would only cost time per request.
OPTIONS: dict[str, Any] = {
    "metrics": {"enabled": False},
    "logging": {"access": {"enabled": False}},
    "traffic": {"timeout": 24 * 3600},
}


class Unit:
    """The unit in the bundle `folder`. `front` are the arguments of `Front`, `options` those of the BentoML service."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._manifest = manifests.load(folder)
        self._settings = manifests.settings()
        self._server: Server | None = None
        self._failed = False
        self._info = info = manifests.describe(self._manifest, self._settings, datetime.now(UTC))
        self._state = manifests.state_folder(self._settings, folder)
        process = Replica(self._settings.worker, self._settings.workers)
        self._worker = Worker(self._manifest, folder, self._fail, self._state, info.update, process)
        line = os.environ.get(posts.LINE)  # to the parent of several workers
        self._line = Line(socket.socket(fileno=int(line))) if line else None
        self.options = {"name": self._manifest.unit, "workers": self._settings.workers, **OPTIONS}
        limit = self._settings.max_body_mib << 20
        keys = Keys(self._settings.api_key)
        self._onward = onward(self._manifest, self._settings.links, keys.header())
        inference = OpenInference(self._manifest, self._worker, self._onward, info)
        self.front: dict[str, Any] = {
            "worker": self._worker,
            "info": {**info} if line else info,
            "max_body": limit,
            "onward": self._onward,
            "short": inference.short(),
            "interfaces": (
                inference,
                Invocations(self._manifest, self._worker, self._onward),
                ModelRunner(self._backing()),
                Documented(self._manifest, self._worker, info, bool(keys)),
            ),
            "room": Room(self._settings.max_waiting_mib << 20),
            "keys": keys,
        }
        name = f"{self._manifest.pipeline}/{self._manifest.unit}"
        logs.to_stderr(self._settings.log_level, f"{name}#{process.number}" if line else name)

    def _backing(self) -> Backing:
        """What Acumos' routes predict with."""
        names = {step.name for step in self._manifest.steps}
        first = [step for step in self._manifest.steps if not names.intersection(step.inputs)]
        plain = all(step.kind == "model" for step in first)
        return Backing(self._worker, self._onward, self._folder, self._state, plain, self._info)

    def start(self) -> None:
        """Loads in the background; `/readyz` says when that is done."""
        if self._settings.admin_port and self._server is None:
            log.warning("there is no admin port under `bentoml serve`; run `python service.py`")
        self._worker.start()

    def stop(self) -> None:
        self._worker.stop()

    async def predict(self, data: list[Any]) -> list[Any]:
        """What `POST /predict` answers, for callers inside BentoML; `StepFailed` where that says 400 or 500, and
        `LinkFailed` where the next unit does not answer."""
        outcomes = await run(self._worker, self._onward, data)
        for outcome in outcomes:
            if outcome.error:
                raise outcome.error
        return [final(outcome) for outcome in outcomes]

    def main(self, argv: Sequence[str]) -> int:
        """`python service.py [--check]`; returns the exit code: 0 after SIGTERM or SIGINT."""
        if "--check" in argv:
            return chain.check_command(self._folder, self._manifest)
        if reason := manifests.objection(self._settings):
            log.error("%s", reason)
            return 1
        if self._line is not None:
            return self._serve_given(self._line)
        try:
            listening = listen(self._settings.host, self._settings.port)
        except OSError as error:
            where = f"{self._settings.host}:{self._settings.port}"
            log.error("cannot listen on %s: %s (set MLPACKER_PORT to a free port)", where, error.strerror)
            return 1
        with listening:
            leaving = Leaving()
            doorway = self._doorway(listening.getsockname()[1], leaving)
            server = Server(self._app(leaving), listening, leaving, doorway)
            log.info("listening on http://%s:%d/predict", *listening.getsockname()[:2])
            return self._serve(server, leaving)

    def _serve_given(self, line: Line) -> int:
        die_with_parent()
        leaving = Leaving()
        given = Given(self._app(leaving), line, leaving, self._worker, self._info, self.front["info"])
        return self._serve(given, leaving)

    def _app(self, leaving: Leaving) -> Front:
        return Front(Behind(self._folder / "service.py"), **self.front, leaving=leaving)

    def _serve(self, server: Server, leaving: Leaving) -> int:
        try:
            server.admin = self._admin(leaving)
        except OSError as error:
            where = f"{self._settings.admin_host}:{self._settings.admin_port}"
            log.error("cannot listen on %s: %s (set MLPACKER_ADMIN_PORT to a free port)", where, error.strerror)
            return 1
        self._server = server
        for number in (signal.SIGTERM, signal.SIGINT):  # uvicorn raises the signal again when it is done
            signal.signal(number, lambda _number, _frame: self._leave())
        self.start()
        server.serve_until_told()
        self.stop()
        log.info("stopped" if self._failed else "stopped in order")
        return 1 if self._failed else 0

    def _admin(self, leaving: Leaving) -> AdminPort | None:
        """Where the routes are that change this unit; None: nowhere. `OSError` when the port is somebody else's."""
        settings = self._settings
        if not settings.admin_port:
            return None
        from .admin.unit import admin_app

        app = admin_app(settings, self._manifest, self._backing(), self._info, leaving)
        port = AdminPort(app, settings.admin_host, settings.admin_port, leaving)
        if not settings.door and self._line is None:  # or another release, or another worker, may have it for now
            port.bind()
        return port

    def _doorway(self, port: int, leaving: Leaving) -> Doorway | None:
        settings = self._settings
        if not settings.door:
            return None
        return Doorway(settings.door, settings.release, port, lambda: self._worker.reason, leaving)

    def _leave(self) -> None:
        if self._server is not None:
            self._server.should_exit = True

    def _fail(self) -> None:
        """Nothing to serve: `python service.py` ends. `bentoml serve` would start it again for ever; there it stays,
        and `/readyz` says why it is not ready."""
        self._failed = True
        self._leave()


def onward(manifest: manifests.Manifest, given: str, key: Sequence[str] = ()) -> links.Onward | None:
    """Where the outcomes of this unit go; `given` is `MLPACKER_LINKS`. An API unit has one link at most, to a unit of
    the same pipeline, which asks for the same `key`, if for any."""
    if not manifest.links:
        return None
    try:
        found = links.parse(given, manifest.links)
    except ValueError as error:
        raise SystemExit(str(error)) from None
    return links.Next(found[0], manifest.steps[-1].name, key) if found else links.Nowhere(manifest.links[0])


@cache
def unit_in(folder: Path) -> Unit:
    """The one unit of this process, however often its `service.py` is imported."""
    return Unit(folder)


class Behind:
    """The ASGI app of the BentoML service in `file`, built at the first request (documentation, as a rule)."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._app: App | None = None
        self._lock = asyncio.Lock()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        async with self._lock:
            if self._app is None:
                self._app = await asyncio.to_thread(self._build)
        await self._app(scope, receive, send)

    def _build(self) -> App:
        """By its path: a step may have a `service.py` of its own."""
        found = spec_from_file_location("mlpacker_service", self._file)
        if found is None or found.loader is None:
            raise RuntimeError(f"{self._file} is not a Python file")
        module = module_from_spec(found)
        found.loader.exec_module(module)
        app: App = module.Service.to_asgi()
        return app
