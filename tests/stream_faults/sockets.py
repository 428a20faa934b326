"""The peers of a unit with WebSocket queues: one that sends until it is confirmed, one that confirms what it takes."""

from __future__ import annotations

import json
import socket
from collections import deque
from collections.abc import Callable
from itertools import islice
from threading import Condition, Event, Thread

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import Server, ServerConnection, serve

from tests.stream_faults.ledger import Ledger
from tests.stream_faults.outside import Text, plain

BIG = 16 << 20


class Peer:
    """Listens on `port`; every connection is `handle`d in a thread of its own."""

    def __init__(self, port: int = 0) -> None:
        self.port, self.connections = port, 0
        self._open: set[ServerConnection] = set()
        self._server: Server | None = None
        self.up()

    def up(self) -> None:
        self._server = serve(self._serve, "127.0.0.1", self.port, max_size=BIG, compression=None, close_timeout=1)
        self.port = self._server.socket.getsockname()[1]
        Thread(target=self._server.serve_forever, name="peer", daemon=True).start()

    def down(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
        self.drop(orderly=False)

    def _serve(self, connection: ServerConnection) -> None:
        self.connections += 1
        self._open.add(connection)
        try:
            self.handle(connection)
        except (ConnectionClosed, OSError):
            pass
        finally:
            self._open.discard(connection)

    def handle(self, connection: ServerConnection) -> None:
        raise NotImplementedError

    def drop(self, *, orderly: bool) -> int:
        """Closes what is open, by the protocol or by just being gone; how many that were."""
        found = list(self._open)
        for connection in found:
            if orderly:
                connection.close()
            else:
                connection.socket.shutdown(socket.SHUT_RDWR)
        return len(found)


class Sender(Peer):
    """A `Feed`: what was not confirmed on a connection is sent again on the next."""

    def __init__(self, ledger: Ledger, text: Text = plain) -> None:
        self._ledger, self._text = ledger, text
        self._changed = Condition()
        self._waiting: deque[tuple[int, bytes]] = deque()
        self._turn = 0  # number of the connection that is served
        self._confirmed = 0  # frames of it that are done
        super().__init__()

    def send(self) -> None:
        number, _, value = self._ledger.send()
        with self._changed:
            self._waiting.append((number, self._text(number, value)))
            self._changed.notify_all()

    def handle(self, connection: ServerConnection) -> None:
        """The newest connection only; an older one that seems open still must confirm nothing any more."""
        with self._changed:
            self._turn += 1
            turn, self._confirmed = self._turn, 0
            self._changed.notify_all()
        ended = Event()
        Thread(target=self._hear, args=(connection, turn, ended), daemon=True).start()
        sent = 0
        while turn == self._turn and not ended.is_set():
            for value in self._next(sent):
                connection.send(value, text=True)
                sent += 1

    def _next(self, sent: int) -> list[bytes]:
        """Some of those that come after the first `sent` of this connection; waits a moment for them."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._waiting) > sent - self._confirmed, 0.2)
            ahead = sent - self._confirmed
            return [value for _, value in islice(self._waiting, ahead, ahead + 50)]

    def _hear(self, connection: ServerConnection, turn: int, ended: Event) -> None:
        try:
            while True:
                count = json.loads(connection.recv())["ack"]
                with self._changed:
                    if turn != self._turn:
                        return
                    for _ in range(count - self._confirmed):
                        self._ledger.confirm(self._waiting.popleft()[0])
                    self._confirmed = count
        except (ConnectionClosed, OSError):
            ended.set()

    def close(self) -> None:
        self.down()


class Receiver(Peer):
    """Confirms every frame that `take` has."""

    def __init__(self, take: Callable[[bytes], None]) -> None:
        self._take = take
        super().__init__()

    def handle(self, connection: ServerConnection) -> None:
        count = 0
        while True:
            payload = connection.recv(decode=False)
            self._take(payload)
            count += 1
            connection.send(json.dumps({"ack": count}))
