"""The addresses of a REST unit; standard library only, for whoever is to listen: the unit, or the parent of several.

own address (MLPACKER_HOST, MLPACKER_PORT)   from start to end; probes and golden requests come here
public port                                  from the door's "take" to its "leave", see door/
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from . import door

log = logging.getLogger("mlpacker.ports")

DOOR_EVERY = 0.2


def listen(host: str, port: int) -> socket.socket:
    """A socket bound to `host:port` (0: any free one); `OSError` when that cannot be."""
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
    except OSError:
        bound.close()
        raise
    return bound


class Closes(Protocol):
    def close(self) -> None: ...


class Leaves(Protocol):
    """`now`: whether nothing new is taken any more, see front.py."""

    now: bool


Listen = Callable[[socket.socket], Awaitable[Closes]]


class Doorway:
    """The unit's end of the line to the door of `folder`: comes again when that is gone, with the port if it holds it.

    `reason` is why the unit cannot take the port, "" when it can. Used on the event loop only.
    """

    def __init__(self, folder: str, release: str, port: int, reason: Callable[[], str], leaving: Leaves) -> None:
        self._folder, self._release, self._port = folder, release, port
        self._reason = reason
        self._leaving = leaving
        self._line: door.Line | None = None
        self._lent: socket.socket | None = None
        self._wanted: socket.socket | None = None  # what was lent last and not asked back
        self._server: Closes | None = None
        self._listen: Listen | None = None
        self._told = ""
        self._next = 0.0
        self._complained = False
        self._work: asyncio.Task[None] | None = None

    async def look(self, listen: Listen) -> None:
        """Goes to the door when there is none, and tells it when the unit's readiness has changed."""
        self._listen = listen
        reason = self._reason()
        try:
            if self._line is None:
                self._enter(reason)
            elif reason != self._told:
                self._line.send({"reason": reason})
                self._told = reason
        except OSError:
            self._lose()

    async def close(self) -> None:
        """Leaves the port, if it has it, and the door."""
        self._stop_accepting()
        if self._line is not None:
            with contextlib.suppress(OSError):
                self._line.send({"did": "left", "reason": "stopping"})
            self._lose()

    def _enter(self, reason: str) -> None:
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + DOOR_EVERY
        try:
            line = door.connect(self._folder)
        except OSError as error:
            if not self._complained:
                log.warning("no door in %s yet: %s", self._folder, error)
            self._complained = True
            return
        self._line, self._told, self._complained = line, reason, False
        asyncio.get_running_loop().add_reader(line.connection.fileno(), self._hear)
        line.send({"unit": self._release, "port": self._port, "reason": reason}, self._lent)
        log.info("at the door in %s", self._folder)

    def _hear(self) -> None:
        line = self._line
        if line is None:
            return
        try:
            for message in line.receive():
                self._heed(line, message)
        except (EOFError, OSError):
            self._lose()

    def _heed(self, line: door.Line, message: dict[str, Any]) -> None:
        if message.get("do") == "leave":
            self._stop_accepting()
            self._leaving.now = True
            log.info("left the public port: another release has it")
            line.send({"did": "left"})
        elif message.get("do") == "take" and (lent := line.lent()) is not None:
            if reason := self._reason():
                lent.close()
                line.send({"did": "refused", "reason": reason})
            else:
                self._stop_accepting()
                self._leaving.now = False
                self._wanted = lent
                self._work = asyncio.get_running_loop().create_task(self._take(line, lent))

    async def _take(self, line: door.Line, lent: socket.socket) -> None:
        """A copy is listened on; what was lent is kept, to be shown to the next door."""
        assert self._listen is not None  # noqa: S101  it came with the first look
        server = await self._listen(lent.dup())
        if self._wanted is not lent:  # asked back meanwhile
            server.close()
            lent.close()
            return
        self._server, self._lent = server, lent
        log.info("has the public port %d", lent.getsockname()[1])
        try:
            line.send({"did": "took", "reason": ""})
        except OSError:
            self._lose()

    def _stop_accepting(self) -> None:
        """The socket itself stays open, at the door; connections that nobody has accepted wait there."""
        self._wanted = None
        if self._server is not None:
            self._server.close()
            self._server = None
        if self._lent is not None:
            self._lent.close()
            self._lent = None

    def _lose(self) -> None:
        if self._line is not None:
            asyncio.get_running_loop().remove_reader(self._line.connection.fileno())
            self._line.close()
            self._line = None
            self._told = ""
