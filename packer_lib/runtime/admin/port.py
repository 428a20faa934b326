"""Where the admin app listens: on one address, as long as this process is to be reached; standard library only."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Any

from ..front import Leaving

log = logging.getLogger("mlpacker.admin")

AGAIN_SECONDS = 1.0

Listen = Callable[[Any, socket.socket], Awaitable[asyncio.AbstractServer]]


class AdminPort:
    """`app` on `host:port`, by the event loop of the unit's own server.

    Where several processes are to have it, such as two releases of which one takes over from the other, one has it and
    the others try again: whoever answers, all of them do what is wanted.
    """

    def __init__(self, app: Any, host: str, port: int, leaving: Leaving) -> None:
        self._app, self._host, self._port, self._leaving = app, host, port, leaving
        self._bound: socket.socket | None = None
        self._server: asyncio.AbstractServer | None = None
        self._next = 0.0
        self._complained = False

    @property
    def listens(self) -> bool:
        return self._server is not None

    def bind(self) -> None:
        """Has the address from now on; `OSError` when that cannot be."""
        bound = socket.socket(socket.AF_INET6 if ":" in self._host else socket.AF_INET)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind((self._host, self._port))
            bound.listen()  # two sockets may be bound to one address as long as neither listens
        except OSError:
            bound.close()
            raise
        self._bound = bound

    async def look(self, listen: Listen) -> None:
        """Every now and then: listens when it does not and should, and leaves the address to others when told to."""
        if self._leaving.now:
            self.close()
        elif self._server is None and time.monotonic() >= self._next:
            self._next = time.monotonic() + AGAIN_SECONDS
            try:
                if self._bound is None:
                    self.bind()
            except OSError as error:
                if not self._complained:
                    log.warning("the admin port %s:%d is not free yet: %s", self._host, self._port, error.strerror)
                self._complained = True
                return
            bound, self._bound = self._bound, None
            assert bound is not None  # noqa: S101  or there was an error
            self._server = await listen(self._app, bound)
            log.info("admin routes on http://%s:%d", *bound.getsockname()[:2])

    def close(self) -> None:
        """What is in hand is answered still."""
        if self._server is not None:
            self._server.close()
            self._server = None
            self._next = time.monotonic() + AGAIN_SECONDS
        if self._bound is not None:
            self._bound.close()
            self._bound = None
