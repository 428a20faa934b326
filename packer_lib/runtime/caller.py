"""A client for one address, as small as calls between units need: kept connections, one answer at a time on each.

Why not aiohttp or httpx, which BentoML brings: either takes 0.3 s and 15 MB to import, and neither tells a request that
was never sent from one whose answer was lost, which decides whether it may be sent again. httptools, the parser, is
uvicorn's.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httptools

CONNECT_SECONDS = 3.0
IDLE_MOST = 16


class NotSent(Exception):
    """The other end never saw the request; it can be sent again. The text says why."""


class Lost(Exception):
    """The connection broke after the request was sent: nobody knows whether it was worked on."""


@dataclass(frozen=True, slots=True)
class Response:
    """`after`: the seconds of its `Retry-After`, 0 when it has none."""

    status: int
    body: bytes
    after: int = 0


class Caller:
    """Calls `url`, a base such as `http://cloud_1:20123`. Used on one event loop; no time limit but for connecting."""

    def __init__(self, url: str, keep: bool) -> None:
        parts = urlsplit(url)
        self._host, self._tls = parts.hostname or "", parts.scheme == "https"
        self._port = parts.port or (443 if self._tls else 80)
        self._base = parts.path.rstrip("/")
        self._keep = keep
        self._idle: list[_Connection] = []
        host = f"[{self._host}]" if ":" in self._host else self._host
        self.place = f"{host}:{self._port}"

    async def ask(self, method: str, path: str, headers: Iterable[str], body: bytes = b"") -> Response:
        """The answer, or `NotSent` or `Lost`. Cancelled, it closes the connection."""
        lines = [f"{method} {self._base}{path} HTTP/1.1", f"Host: {self.place}", *headers]
        lines += [f"Content-Length: {len(body)}"] if body else []
        lines += [] if self._keep else ["Connection: close"]
        connection = self._kept() or await self._connect()
        try:
            response = await connection.ask("\r\n".join([*lines, "", ""]).encode() + body)
        except BaseException:
            connection.close()
            raise
        if self._keep and connection.reusable and len(self._idle) < IDLE_MOST:
            self._idle.append(connection)
        else:
            connection.close()
        return response

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()

    def _kept(self) -> _Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.reusable:
                return connection
        return None

    async def _connect(self) -> _Connection:
        loop = asyncio.get_running_loop()
        context = ssl.create_default_context() if self._tls else None
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                _transport, connection = await loop.create_connection(_Connection, self._host, self._port, ssl=context)
        except TimeoutError:
            raise NotSent(f"cannot be reached: no connection within {CONNECT_SECONDS:g} s") from None
        except OSError as error:
            raise NotSent(f"cannot be reached: {error.strerror or error}") from None
        return connection


class _Connection(asyncio.Protocol):
    """httptools calls the `on_…` methods."""

    def __init__(self) -> None:
        self.reusable = True
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[Response] | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._body: list[bytes] = []
        self._after = 0

    async def ask(self, request: bytes) -> Response:
        if self._transport is None or self._transport.is_closing():
            raise NotSent("closed the connection")
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def close(self) -> None:
        self.reusable = False
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.close()

    def eof_received(self) -> bool:
        return False  # closes

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self.reusable = False
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(Lost("closed the connection without an answer"))

    def on_message_begin(self) -> None:
        self._body = []
        self._after = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"retry-after" and value.isdigit() and len(value) < 6:
            self._after = int(value)

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        self.reusable = self.reusable and self._parser.should_keep_alive()
        if status >= 200 and self._answer is not None and not self._answer.done():  # 1xx: the answer is still to come
            self._answer.set_result(Response(status, b"".join(self._body), self._after))
