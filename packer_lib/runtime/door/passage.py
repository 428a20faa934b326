"""A second port, for a container: its connections are passed on to the release that is current, at a port of its own.

In a container two releases side by side cannot have one port of the machine, and what is asked there is little.
"""

from __future__ import annotations

import contextlib
import socket
import threading

from .place import read_current, say

MOST = 32  # at once
CONNECT_SECONDS = 5.0
LARGEST = 1 << 16
AWAY = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class Passage:
    """From `host:port` to `target`, such as `mlpacker.plant.score.{}:8081`, where {} is the current release of
    `folder`. Bytes go as they come, in threads of their own: they hold up nobody at the door."""

    def __init__(self, folder: str, host: str, port: int, target: str) -> None:
        self.folder = folder
        self.name, _, self.port = target.rpartition(":")
        self.listener = socket.create_server((host, port), backlog=MOST)
        self.room = threading.BoundedSemaphore(MOST)
        threading.Thread(target=self._take, daemon=True).start()
        say(f"{host}:{port} leads to {target}")

    def _take(self) -> None:
        while True:
            self.room.acquire()
            try:
                caller, _address = self.listener.accept()
            except OSError:
                self.room.release()
                continue
            threading.Thread(target=self._pass, args=(caller,), daemon=True).start()

    def _pass(self, caller: socket.socket) -> None:
        try:
            with caller, contextlib.suppress(OSError):
                unit = self._reach()
                if unit is None:
                    caller.sendall(AWAY)
                    return
                with unit:
                    back = threading.Thread(target=_copy, args=(unit, caller), daemon=True)
                    back.start()
                    _copy(caller, unit)
                    back.join()
        finally:
            self.room.release()

    def _reach(self) -> socket.socket | None:
        current = read_current(self.folder)
        try:
            unit = socket.create_connection((self.name.replace("{}", current), int(self.port)), CONNECT_SECONDS)
        except OSError:
            return None
        unit.settimeout(None)
        return unit


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(LARGEST):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
