"""Those who call while there is nobody to answer them: they are told so, rather than left waiting for ever."""

from __future__ import annotations

import contextlib
import selectors
import socket
import time

MOST = 256
SECONDS = 2.0  # for a caller to read its answer
LARGEST = 1 << 16
AWAY = b'{"error":"no release of this unit is running; try again later"}'
ANSWER = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\nconnection: close\r\n"
    b"content-length: %d\r\n\r\n%s" % (len(AWAY), AWAY)
)


class Callers:
    """Takes connections from a listener while it is told to, and answers each with 503."""

    def __init__(self, selector: selectors.BaseSelector) -> None:
        self.listening: socket.socket | None = None
        self._selector = selector
        self._until: dict[socket.socket, float] = {}

    def answer(self, listener: socket.socket | None) -> None:
        """From now on those who come to `listener`; None: nobody any more. Lets go of who had time enough."""
        if listener is not self.listening:
            if self.listening is not None:
                self._selector.unregister(self.listening)
            if listener is not None:
                self._selector.register(listener, selectors.EVENT_READ, self._accept)
            self.listening = listener
        for caller, until in list(self._until.items()):
            if time.monotonic() >= until:
                self._dismiss(caller)

    def deadlines(self) -> list[float]:
        return list(self._until.values())

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while self.listening is listener and len(self._until) < MOST:
                caller, _address = listener.accept()
                caller.setblocking(False)
                self._until[caller] = time.monotonic() + SECONDS
                self._selector.register(caller, selectors.EVENT_READ, self._read)
                self._refuse(caller)

    def _refuse(self, caller: socket.socket) -> None:
        try:
            caller.sendall(ANSWER)
            caller.shutdown(socket.SHUT_WR)
        except OSError:
            self._dismiss(caller)

    def _read(self, caller: socket.socket) -> None:
        """To the end: closing on what is unread would take the answer away again."""
        try:
            if caller in self._until and not caller.recv(LARGEST):
                self._dismiss(caller)
        except BlockingIOError:
            pass
        except OSError:
            self._dismiss(caller)

    def _dismiss(self, caller: socket.socket) -> None:
        del self._until[caller]
        self._selector.unregister(caller)
        caller.close()
