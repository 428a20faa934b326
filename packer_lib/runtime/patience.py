"""HTTP connections that are waited for, and for how long; imports uvicorn.

Bodies have a time limit of their own (front.py). Here are the others: connections that send nothing, or a head that
does not end, after their former answer too, and those who do not read what they asked for. All are looked at once a
second: a request that behaves costs nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_SECONDS = 20.0
READ_SECONDS = 30.0  # within which `READ_LEAST` of an answer must be taken
READ_LEAST = 64 << 10


class Connection(HttpToolsProtocol):
    """Its own errors are as all others of a unit."""

    def send_400_response(self, msg: str) -> None:
        self.refuse(b"400 Bad Request", msg)

    def refuse(self, status: bytes, text: str) -> None:
        """The last answer of this connection."""
        body = json.dumps({"error": text}).encode()
        head = b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
        self.transport.write(head % (status, len(body)) + body)
        self.transport.close()

    def waits_for(self) -> object | None:
        """What its client is to send before anything can be answered, a head or what is left of a request that is
        answered already: the same object as long as it is the same one. None: a body, or nothing, it rests."""
        answered = self.cycle is None or self.cycle.response_complete
        if not answered or self.timeout_keep_alive_task is not None:
            return None
        headers: Any = self.headers  # another list with each head, none before the first
        return self.transport if headers is None else headers


class Patience:
    """Its `look` at all connections ends those who have been waited for too long."""

    def __init__(self) -> None:
        self._waited: dict[Any, tuple[object, float]] = {}
        self._unread: dict[Any, tuple[object, int, float]] = {}

    def look(self, connections: Iterable[Any], now: float) -> None:
        """`now`: of a clock that never goes back."""
        waited, unread = self._waited, self._unread
        self._waited, self._unread = {}, {}
        for each in list(connections):
            if not isinstance(each, Connection) or each.transport is None:
                continue
            if left := each.transport.get_write_buffer_size():
                self._reads(each, left, unread.get(each), now)
            elif not each.transport.is_closing() and (thing := each.waits_for()) is not None:
                self._sends(each, thing, waited.get(each), now)

    def _sends(self, connection: Connection, thing: object, before: tuple[object, float] | None, now: float) -> None:
        since = before[1] if before is not None and before[0] is thing else now
        if now - since < HEAD_SECONDS:
            self._waited[connection] = thing, since
        else:
            connection.refuse(b"408 Request Timeout", f"the request was not here within {HEAD_SECONDS:.0f} s")

    def _reads(self, connection: Connection, left: int, before: tuple[object, int, float] | None, now: float) -> None:
        if before is None or before[0] is not connection.cycle or left + READ_LEAST <= before[1]:
            before = connection.cycle, left, now
        if now - before[2] < READ_SECONDS:
            self._unread[connection] = before
        else:
            connection.transport.abort()
