"""How a REST unit of one process serves: on its own address, and on the public port while its door lends it that, see
ports.py. Imports uvicorn.

After "leave", and when told to end, nothing new is accepted, what is in flight is answered, and every further answer on
a kept connection says `Connection: close`, so that its client comes back to whoever has the port then.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import uvicorn

from .admin.port import AdminPort
from .front import Front, Leaving
from .patience import Connection, Patience
from .ports import Doorway
from .wire import Wire

BACKLOG = 4096
GRACE_SECONDS = 20
KEEP_ALIVE_SECONDS = 65  # longer than the intermediaries and pools that would otherwise send on what we just close
LINGER_SECONDS = 1.0  # told to end: for requests that are on their way on kept connections


class Server(uvicorn.Server):
    """Runs `app` on `own`, if there is that; with a `doorway`, on the port it is lent as well; on `admin`, if set, what
    that has."""

    admin: AdminPort | None = None

    def __init__(self, app: Front, own: socket.socket | None, leaving: Leaving, doorway: Doorway | None) -> None:
        super().__init__(_config(app, partial(Wire, front=app)))
        self._own = own
        self._leaving = leaving
        self._doorway = doorway
        self._patience = Patience()

    def serve_until_told(self) -> None:
        """Until `should_exit`; returns when all that was accepted is answered, or `GRACE_SECONDS` later."""
        self.run(sockets=[self._own] if self._own else [])

    async def on_tick(self, counter: int) -> bool:
        """Every 100 ms."""
        if self._doorway is not None and not self.should_exit:
            await self._doorway.look(self._listen)
        if self.admin is not None and not self.should_exit:
            await self.admin.look(self._listen_beside)
        if counter % 10 == 0:
            self._patience.look(self.server_state.connections, time.monotonic())
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stops accepting, and gives kept connections a moment to bring what is on its way."""
        self._leaving.now = True
        if self._doorway is not None:
            await self._doorway.close()
        if self.admin is not None:
            self.admin.close()
        for server in self.servers:
            server.close()
        until = time.monotonic() + LINGER_SECONDS
        while self.server_state.connections and time.monotonic() < until:
            await asyncio.sleep(0.02)
        await super().shutdown(sockets)

    async def _listen(self, lent: socket.socket) -> asyncio.AbstractServer:
        return await asyncio.get_running_loop().create_server(self.protocol, sock=lent, backlog=BACKLOG)

    async def _listen_beside(self, app: Any, bound: socket.socket) -> asyncio.AbstractServer:
        """Another `app` by the same event loop; its connections are ended in order with all others."""
        config = _config(app, Connection)
        config.load()

        def protocol() -> Any:
            kind: Any = config.http_protocol_class
            return kind(config=config, server_state=self.server_state, app_state={})

        return await asyncio.get_running_loop().create_server(protocol, sock=bound)

    def protocol(self) -> Any:
        """Of a new connection."""
        kind: Any = self.config.http_protocol_class
        return kind(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)


def _config(app: Any, http: Callable[..., Connection]) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        loop="uvloop",
        http=cast("Any", http),
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
