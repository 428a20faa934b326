"""Users of a unit: a steady number of requests a second, and what became of each one. Standard library only.

    python -m tests.faults.prober URL BODY RATE ANSWER…     until its stdin ends; then one line of JSON

A process of its own, so that nothing of a test slows it down. It asks on time whether earlier answers have come or not.
Every other request has a connection of its own; the rest share connections that stay open, as browsers and clients
with a pool do. Nothing is asked twice: a refused, reset or unanswered request and any status but 200 is lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

PATIENCE = 10.0  # seconds for one answer
KEPT = 20  # losses that are told in full


@dataclass
class Account:
    """`sent` and `lost` requests, `answers` by text, `losses` as [seconds, connection, why], `slowest` in seconds."""

    sent: int = 0
    lost: int = 0
    fresh: int = 0
    slowest: float = 0.0
    answers: Counter[str] = field(default_factory=Counter)
    why: Counter[str] = field(default_factory=Counter)
    losses: list[tuple[float, str, str]] = field(default_factory=list)

    def lose(self, at: float, connection: str, why: str) -> None:
        self.lost += 1
        self.why[why] += 1
        if len(self.losses) < KEPT:
            self.losses.append((round(at, 2), connection, why))


class Prober:
    """Asks `url` `rate` times a second, at fixed times."""

    def __init__(self, url: str, body: str, rate: float) -> None:
        where = urlsplit(url)
        self.host, self.port, self.rate = where.hostname or "", where.port or 80, rate
        self.account = Account()
        self.idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self.request = (
            f"POST {where.path} HTTP/1.1\r\nHost: {where.netloc}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nConnection: %s\r\n\r\n{body}"
        )
        self.began = time.monotonic()

    async def run(self, end: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as tasks:
            while not end.is_set():
                kept = bool(self.account.sent % 2)
                self.account.sent += 1
                self.account.fresh += not kept
                tasks.create_task(self.ask(kept))
                late = self.began + self.account.sent / self.rate - time.monotonic()
                await asyncio.sleep(max(0.0, late))
        for _, writer in self.idle:
            writer.close()

    async def ask(self, kept: bool) -> None:
        begin = time.monotonic()
        try:
            async with asyncio.timeout(PATIENCE):
                status, body = await self.exchange(kept)
        except (OSError, EOFError, ValueError, TimeoutError) as error:
            self.account.lose(begin - self.began, _name(kept), f"{type(error).__name__} {error}"[:80].strip())
            return
        self.account.slowest = max(self.account.slowest, time.monotonic() - begin)
        if status != 200:
            self.account.lose(begin - self.began, _name(kept), f"status {status}: {body[:200]}")
        else:
            self.account.answers[body] += 1

    async def exchange(self, kept: bool) -> tuple[int, str]:
        reader, writer = (self.open_one() if kept else None) or await asyncio.open_connection(self.host, self.port)
        keep = False
        try:
            writer.write((self.request % ("keep-alive" if kept else "close")).encode())
            status, headers = await _head(reader)
            body = await _body(reader, headers)
            keep = kept and headers.get("connection", "").lower() != "close"
            return status, body
        finally:
            if keep:
                self.idle.append((reader, writer))
            else:
                writer.close()

    def open_one(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        """A connection that is open and unused; those that the server has closed meanwhile are dropped."""
        while self.idle:
            reader, writer = self.idle.pop()
            if not reader.at_eof() and not writer.is_closing():
                return reader, writer
            writer.close()
        return None


async def _head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    first, *rest = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in rest if line)
    return int(first.split()[1]), {name.lower(): value.strip() for name, _, value in pairs}


async def _body(reader: asyncio.StreamReader, headers: dict[str, str]) -> str:
    if headers.get("transfer-encoding", "").lower() == "chunked":
        return (await _chunks(reader)).decode()
    return (await reader.readexactly(int(headers["content-length"]))).decode()


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    whole = b""
    while size := int(await reader.readline(), 16):
        whole += await reader.readexactly(size)
        await reader.readline()
    await reader.readline()
    return whole


def _name(kept: bool) -> str:
    return "kept open" if kept else "own"


async def main(url: str, body: str, rate: float) -> None:
    end, loop = asyncio.Event(), asyncio.get_running_loop()
    loop.add_reader(sys.stdin, lambda: None if sys.stdin.buffer.read1() else end.set())
    prober = Prober(url, body, rate)
    with _told(prober):
        await prober.run(end)


@contextlib.contextmanager
def _told(prober: Prober) -> Iterator[None]:
    try:
        yield
    finally:
        print(json.dumps(vars(prober.account)), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], float(sys.argv[3])))
