"""A worker process's side of several (workers.py): serves the connections that its parent gives it. Imports uvicorn."""

from __future__ import annotations

import asyncio
import ctypes
import signal
import socket
from collections.abc import Mapping
from typing import Any

from . import metrics
from .door import Line
from .front import Leaving
from .posts import fitting
from .serving import Server
from .worker import Worker

PR_SET_PDEATHSIG = 1  # of prctl(2)


class Given(Server):
    """Serves `app` on what comes over `line`, until told to end there. What `worker` is and `info` has of its models is
    told to the parent; what the parent says of all of them goes to `worker.others` and into `unit`."""

    def __init__(
        self, app: Any, line: Line, leaving: Leaving, worker: Worker, info: Mapping[str, Any], unit: dict[str, Any]
    ) -> None:
        super().__init__(app, None, leaving, None)
        self._line, self._worker, self._info, self._unit = line, worker, info, unit
        self._told: dict[str, Any] = {}
        self._closed = 0
        self._opening: set[asyncio.Task[None]] = set()
        worker.others = "loading"  # until the parent says otherwise

    def handle_exit(self, sig: int, frame: Any) -> None:
        """SIGINT comes from a terminal, to the parent as well, which sees to it."""
        if sig != signal.SIGINT:
            super().handle_exit(sig, frame)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        asyncio.get_running_loop().add_reader(self._line.connection.fileno(), self._hear)

    async def on_tick(self, counter: int) -> bool:
        """Every 100 ms."""
        models = {key: self._info[key] for key in ("models", "versions") if key in self._info}
        told = fitting({"reason": self._worker.reason, **models})
        if told != self._told and self._say(told):
            self._told = told
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """What is still in the line is another worker's."""
        asyncio.get_running_loop().remove_reader(self._line.connection.fileno())
        self._say({"going": True})
        if self._opening:
            await asyncio.wait(self._opening)
        await super().shutdown(sockets)

    def protocol(self) -> Any:
        """The parent is told when its connection is closed."""
        made = super().protocol()
        lost = made.connection_lost

        def connection_lost(error: Exception | None) -> None:
            lost(error)
            self._count_closed()

        made.connection_lost = connection_lost
        return made

    def _hear(self) -> None:
        try:
            for message in self._line.receive():
                self._heed(message)
        except EOFError:  # the parent is no more
            asyncio.get_running_loop().remove_reader(self._line.connection.fileno())
            self.should_exit = True

    def _heed(self, message: dict[str, Any]) -> None:
        if "serve" in message and (connection := self._line.lent()) is not None:
            task = asyncio.get_running_loop().create_task(self._take(connection))
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)
        elif "unit" in message:
            self._worker.others = message["unit"].pop("reason")
            metrics.PROCESSES[:] = message["unit"].pop("processes")
            self._unit.update(message["unit"])
        elif "leaving" in message:
            self._leaving.now = message["leaving"]
        elif "died" in message:
            metrics.WORKER_DEATHS.labels(str(message["died"])).inc()
        elif "end" in message:
            self.should_exit = True

    async def _take(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        try:
            await asyncio.get_running_loop().connect_accepted_socket(self.protocol, connection)
        except OSError:  # it has gone by now
            connection.close()
            self._count_closed()

    def _count_closed(self) -> None:
        """Those of one turn of the event loop are told together."""
        if not self._closed:
            asyncio.get_running_loop().call_soon(self._tell_closed)
        self._closed += 1

    def _tell_closed(self) -> None:
        if self._say({"closed": self._closed}):
            self._closed = 0
        else:
            asyncio.get_running_loop().call_later(0.1, self._tell_closed)

    def _say(self, message: dict[str, Any]) -> bool:
        """Whether it fits into the line."""
        try:
            self._line.send(message)
        except OSError:
            return False
        return True


def die_with_parent() -> None:
    """On Linux even when this process stands still; elsewhere it ends when it finds the line closed."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
