"""How a REST unit listens: on its own address, and on the public port while its door lends it that. Imports uvicorn.

    own address (MLPACKER_HOST, MLPACKER_PORT)   from start to end; probes and golden requests come here
    public port                                  from the door's "take" to its "leave", see door/

After "leave", and when told to end, nothing new is accepted, what is in flight is answered, and every further answer on
a kept connection says `Connection: close`, so that its client comes back to whoever has the port then.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import socket
import time
from collections.abc import Callable
from typing import Any

import uvicorn

from . import door
from .front import Leaving
from .patience import Connection, Patience

log = logging.getLogger("mlpacker.serving")

BACKLOG = 4096
GRACE_SECONDS = 20
KEEP_ALIVE_SECONDS = 65  # longer than the intermediaries and pools that would otherwise send on what we just close
LINGER_SECONDS = 1.0  # told to end: for requests that are on their way on kept connections
DOOR_EVERY = 0.2


class Server(uvicorn.Server):
    """Runs `app` on `own`; with a `doorway`, on the port it is lent as well."""

    def __init__(self, app: Any, own: socket.socket, leaving: Leaving, doorway: Doorway | None) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                loop="uvloop",
                http=Connection,
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                backlog=BACKLOG,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=GRACE_SECONDS,
            )
        )
        self._own = own
        self._leaving = leaving
        self._doorway = doorway
        self._patience = Patience()

    def serve_until_told(self) -> None:
        """Until `should_exit`; returns when all that was accepted is answered, or `GRACE_SECONDS` later."""
        allow_connections()
        self.run(sockets=[self._own])

    async def on_tick(self, counter: int) -> bool:
        """Every 100 ms."""
        if self._doorway is not None and not self.should_exit:
            await self._doorway.look(self._listen)
        if counter % 10 == 0:
            self._patience.look(self.server_state.connections, time.monotonic())
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stops accepting, and gives kept connections a moment to bring what is on its way."""
        self._leaving.now = True
        if self._doorway is not None:
            await self._doorway.close()
        for server in self.servers:
            server.close()
        until = time.monotonic() + LINGER_SECONDS
        while self.server_state.connections and time.monotonic() < until:
            await asyncio.sleep(0.02)
        await super().shutdown(sockets)

    async def _listen(self, lent: socket.socket) -> asyncio.AbstractServer:
        def protocol() -> Any:
            kind: Any = self.config.http_protocol_class
            return kind(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)

        return await asyncio.get_running_loop().create_server(protocol, sock=lent, backlog=BACKLOG)


def allow_connections() -> None:
    """As many as this process may have: with the usual 1024 open files, a thousand who dribble would be all."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


Listen = Callable[[socket.socket], Any]


class Doorway:
    """The unit's end of the line to the door of `folder`: comes again when that is gone, with the port if it holds it.

    `reason` is why the unit cannot take the port, "" when it can. Used on the event loop only.
    """

    def __init__(self, folder: str, release: str, port: int, reason: Callable[[], str], leaving: Leaving) -> None:
        self._folder, self._release, self._port = folder, release, port
        self._reason = reason
        self._leaving = leaving
        self._line: door.Line | None = None
        self._lent: socket.socket | None = None
        self._wanted: socket.socket | None = None  # what was lent last and not asked back
        self._server: asyncio.AbstractServer | None = None
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
