"""The connection, or the listening and its connections, of one end of a WebSocket queue; the websockets library."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from threading import Condition, Thread
from typing import Any

from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.headers import build_authorization_basic
from websockets.http11 import Request, Response
from websockets.sync.client import connect
from websockets.sync.connection import Connection
from websockets.sync.server import Server, ServerConnection, basic_auth, serve

from ..contract import ConnectionFailed
from ..manifest import QueueSpec

DEFAULTS: dict[str, Any] = {
    "ping_interval": 20,
    "ping_timeout": 20,
    "open_timeout": 5,
    "close_timeout": 2,
    "max_size": 16 * 1024 * 1024,
    "max_queue": 1000,
    "compression": None,
}
# The library's own chatter; what matters of it arrives as exceptions.
quiet = logging.getLogger("mlpacker.websocket.library")
quiet.setLevel(logging.CRITICAL)


@dataclass(eq=False, slots=True)
class Peer:
    """Who is at the other end of one connection, and how many frames of it were sent and confirmed."""

    connection: Connection
    address: str
    sent: int = 0
    acked: int = 0
    gone: bool = False

    @property
    def settled(self) -> bool:
        return self.gone or self.acked == self.sent


class Link:
    """`read` is run for every connection in a thread of its own, until that ends. `changed` guards what they share."""

    def __init__(self, queue: QueueSpec, read: Callable[[Peer], None]) -> None:
        self.changed = Condition()
        self.options = {**DEFAULTS, **queue.options.get("config", {})}
        self.is_open = False
        self._queue, self._read = queue, read
        self._lost = ""
        self._peers: list[Peer] = []
        self._threads: list[Thread] = []
        self._server: Server | None = None

    @property
    def place(self) -> str:
        return f"websocket {self._queue.server}:{self._queue.port} {self._path}"

    @property
    def trouble(self) -> str:
        """Why this end is of no use, or "". A listener is never in trouble for who leaves it."""
        return self._lost if self.is_open else f"{self.place}: not connected"

    def peers(self) -> list[Peer]:
        return list(self._peers)

    def open(self) -> None:
        self._lost, self._peers = "", []
        if self._queue.options.get("role") == "server":
            self._listen()
        else:
            self._dial()

    @property
    def _path(self) -> str:
        return "/" + self._queue.topic.lstrip("/")

    def _dial(self) -> None:
        queue, (host, port) = self._queue, (self._queue.server, self._queue.port)
        scheme = "wss" if queue.options.get("tls") else "ws"
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        headers = _authorization(self._credentials())
        try:
            connection = connect(
                f"{scheme}://{address}{self._path}", additional_headers=headers, proxy=None, **self._limits()
            ).__enter__()
        except InvalidHandshake as error:
            raise ConnectionFailed(f"{self.place} refuses us: {error}") from None
        except (OSError, EOFError, ConnectionClosed) as error:  # the last when the peer hangs up on our first word
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise ConnectionFailed(
                f"cannot reach websocket {host}:{port}: {reason} (is it running? is the address right?)"
            ) from None
        peer = self._join(connection, f"{host}:{port}")
        self.is_open = True
        self._threads = [Thread(target=self._serve_peer, args=(peer,), name=f"websocket {address}", daemon=True)]
        self._threads[0].start()

    def _listen(self) -> None:
        host, port = self._queue.server, self._queue.port
        if self._queue.options.get("tls"):
            raise ConnectionFailed(f"{self.place}: who listens has no certificate: put a TLS proxy before it")
        try:
            self._server = serve(
                self._serve, host, port, origins=[None], process_request=self._admit(), **self._limits()
            )
        except OSError as error:
            raise ConnectionFailed(f"cannot listen on {host}:{port}: {error.strerror or error}") from None
        self.is_open = True
        self._threads = [Thread(target=self._server.serve_forever, name=f"websocket {host}:{port}", daemon=True)]
        self._threads[0].start()

    def _limits(self) -> dict[str, Any]:
        return {**self.options, "max_queue": 16, "logger": quiet}

    def _credentials(self) -> tuple[str, str] | None:
        user, name = self._queue.options.get("username"), self._queue.options.get("pass_env", "")
        if not user:
            return None
        if name not in os.environ:
            raise ConnectionFailed(f"{self.place}: no password: environment variable {name!r} (pass_env) is not set")
        return user, os.environ[name]

    def _admit(self) -> Callable[[ServerConnection, Request], Response | None]:
        """Only our path, and only who knows the password where there is one."""
        credentials = self._credentials()
        ask = basic_auth("mlpacker", credentials) if credentials else lambda _connection, _request: None

        def admit(connection: ServerConnection, request: Request) -> Response | None:
            if request.path.partition("?")[0] != self._path:
                return connection.respond(HTTPStatus.NOT_FOUND, f"there is {self._path}\n")
            return ask(connection, request)

        return admit

    def _serve(self, connection: ServerConnection) -> None:
        self._serve_peer(self._join(connection, "{}:{}".format(*connection.remote_address[:2])))

    def _join(self, connection: Connection, address: str) -> Peer:
        peer = Peer(connection, address)
        with self.changed:
            self._peers.append(peer)
            self.changed.notify_all()
        return peer

    def _serve_peer(self, peer: Peer) -> None:
        reason = ""
        try:
            self._read(peer)
        except ConnectionClosed as error:
            reason = str(error)
        with self.changed:
            peer.gone = True
            self._peers.remove(peer)
            if self._server is None:
                self._lost = f"{self.place}: connection lost: {reason}"
            self.changed.notify_all()

    def close(self) -> None:
        """Says goodbye to everybody; what a reader still holds is dropped."""
        with self.changed:
            self.is_open = False
            self.changed.notify_all()
        for peer in self.peers():
            with suppress(ConnectionClosed):
                peer.connection.close()
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
        for thread in self._threads:
            thread.join()
        self._threads = []


def _authorization(credentials: tuple[str, str] | None) -> dict[str, str]:
    return {"Authorization": build_authorization_basic(*credentials)} if credentials else {}
