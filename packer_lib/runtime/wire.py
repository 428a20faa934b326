"""HTTP/1.1 as uvicorn speaks it, with a short way for a prediction that arrives in one piece. Imports uvicorn.

Per request uvicorn makes a task, an event and the dictionaries of ASGI, and writes head and body one after the other,
which wakes the client twice. A request that is here as a whole needs none of that: it goes to `ShortWay.goes` from the
parser's own call-back, and its answer is one write. What comes in pieces, what does not go that way, and every other
route go the usual way: uvicorn is then told all that the parser had said.
"""

from __future__ import annotations

from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from .front import Front
from .heads import CLOSE, Headers, headers_of
from .patience import Connection
from .predict import Answer


class Turn:
    """A request that is answered the short way; stands where uvicorn keeps the one that a connection is busy with."""

    __slots__ = ("_protocol", "disconnected", "keep_alive", "message_event", "response_complete")

    def __init__(self, protocol: Wire) -> None:
        self._protocol = protocol
        self.disconnected = False  # these four are set and read by uvicorn
        self.response_complete = False
        self.keep_alive = True
        self.message_event = NOBODY_WAITS

    def answer(self, answer: Answer, every: Headers) -> None:
        self.response_complete = True
        if self.disconnected or self._protocol.transport.is_closing():
            return
        headers = headers_of(answer, every)
        if not self.keep_alive and CLOSE not in headers:
            headers.append(CLOSE)
        self._protocol.write(answer.status, headers, answer.body)
        if CLOSE in headers:
            self._protocol.transport.close()
        self._protocol.on_response_complete()


class _NobodyWaits:
    def set(self) -> None:
        pass


NOBODY_WAITS = _NobodyWaits()


class Wire(Connection):
    """`front` answers the requests that go the short way, and is the app of those that do not."""

    def __init__(self, *given: Any, front: Front, **named: Any) -> None:
        super().__init__(*given, **named)
        self._short = front.short
        self._held: list[bytes] | None = None  # the body of a request of which it is still open which way it goes

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._held is not None:
            if self.transport.is_closing():
                self._held = None
            else:
                self._go_the_long_way()

    def on_message_begin(self) -> None:
        self.url = b""
        self.headers = []
        self.expect_100_continue = False

    def on_headers_complete(self) -> None:
        if self._short.has(self.url) and self._may_be_short():
            self._held = []
        else:
            self._begin()

    def on_body(self, body: bytes) -> None:
        if self._held is None:
            super().on_body(body)
        else:
            self._held.append(body)

    def on_message_complete(self) -> None:
        if self._held is not None:
            body = b"".join(self._held)
            turn = Turn(self)
            if self._short.goes(self.url, self.headers, body, turn):
                self._held = None
                self.cycle = cast("Any", turn)
                return
            self._go_the_long_way()
        super().on_message_complete()

    def write(self, status: int, headers: Headers, body: bytes) -> None:
        """An answer, in one piece."""
        lines = [STATUS_LINE[status]]
        for name, value in (*self.server_state.default_headers, *headers):
            lines += (name, b": ", value, b"\r\n")
        lines += (b"\r\n", body)
        self.transport.write(b"".join(lines))

    def _may_be_short(self) -> bool:
        """Whether the connection is free, and the request one that is answered as it is, without being asked to go on,
        and keeps the connection."""
        return (
            self.parser.get_method() == b"POST"
            and (self.cycle is None or self.cycle.response_complete)
            and self.parser.should_keep_alive()
            and self.parser.get_http_version() == "1.1"
            and not self.parser.should_upgrade()
            and not self.expect_100_continue
            and not self.flow.write_paused
        )

    def _begin(self) -> None:
        """The usual way, from the headers on."""
        url, headers, expected = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expected
        self.headers += headers
        super().on_headers_complete()

    def _go_the_long_way(self) -> None:
        held, self._held = self._held or [], None
        self._begin()
        for body in held:
            super().on_body(body)
