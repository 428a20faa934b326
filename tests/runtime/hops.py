"""A TCP proxy of our own between two units, which can be slow, refuse, go silent, or break what it carries."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import Literal

Mood = Literal["pass", "silent", "break", "break once"]


class Hop:
    """Listens on `port` and passes on to `target`.

    `mood`: "silent" takes requests and never answers, "break" closes when a request comes, "break once" only the first
    time. `requests` counts what came in, `connections` those who came, `seen` is what they sent.
    """

    def __init__(self, target: int) -> None:
        self.mood: Mood = "pass"
        self.requests = self.connections = 0
        self.seen = bytearray()
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Whoever comes now is refused, whoever is connected is cut off."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept
        self._listener.close()
        for each in self._open:
            _cut(each)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _address = self._listener.accept()
                self.connections += 1
                self._open.append(client)
                threading.Thread(target=self._carry, args=(client,), daemon=True).start()

    def _carry(self, client: socket.socket) -> None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self._target)) as target:
            self._open.append(target)
            threading.Thread(target=_copy, args=(target, client), daemon=True).start()
            while data := client.recv(65536):
                self.requests += data.count(b" HTTP/1.1\r\n")
                self.seen += data
                if self.mood.startswith("break"):
                    self.mood = "pass" if self.mood == "break once" else self.mood
                    break
                if self.mood == "pass":
                    target.sendall(data)
        _cut(client)


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    _cut(target)


def _cut(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
