"""A TCP proxy between a unit and its peer: passes everything on, until it is told to be a network that fails."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from threading import Thread

CHUNK = 65_536


@dataclass(eq=False)
class Pair:
    """Both halves of one connection through the proxy."""

    writers: tuple[asyncio.StreamWriter, asyncio.StreamWriter]
    swallows: bool = False


@dataclass
class Proxy:
    """`port` passes on to `target`. The faults concern the connections that are open when they are asked for."""

    target: int
    port: int = 0
    pairs: set[Pair] = field(default_factory=set)
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    _stalled: asyncio.Event = field(default_factory=asyncio.Event)  # set: passes

    async def listen(self) -> None:
        server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = server.sockets[0].getsockname()[1]
        self._stalled.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.close()
            return
        pair = Pair((writer, far_writer))
        self.pairs.add(pair)
        ways = (self._pass(pair, reader, far_writer), self._pass(pair, far_reader, writer))
        await asyncio.gather(*ways, return_exceptions=True)
        self.pairs.discard(pair)

    async def _pass(self, pair: Pair, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Of a pair that swallows, not even the end is passed on."""
        with suppress(ConnectionError):
            while data := await reader.read(CHUNK):
                if not pair.swallows:
                    await self._stalled.wait()
                    writer.write(data)
                    await writer.drain()
        if not pair.swallows:
            writer.close()

    def swallow(self) -> int:
        """What comes on the open connections vanishes from now on, both ways (half-open); how many that are."""
        for pair in self.pairs:
            pair.swallows = True
        return len(self.pairs)

    def cut(self) -> int:
        """Resets the open connections."""
        pairs = [pair for pair in self.pairs if not pair.swallows]
        for pair in pairs:
            for writer in pair.writers:
                self._loop.call_soon_threadsafe(writer.transport.abort)
        return len(pairs)

    def stall(self) -> None:
        """Takes nothing any more from anybody, so that who sends has to wait."""
        self._loop.call_soon_threadsafe(self._stalled.clear)

    def resume(self) -> None:
        self._loop.call_soon_threadsafe(self._stalled.set)

    def run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def start(self) -> Thread:
        thread = Thread(target=self.run, name="proxy", daemon=True)
        thread.start()
        asyncio.run_coroutine_threadsafe(self.listen(), self._loop).result(10)
        return thread

    def stop(self, thread: Thread) -> None:
        for pair in list(self.pairs):
            for writer in pair.writers:
                self._loop.call_soon_threadsafe(writer.transport.abort)
        self._loop.call_soon_threadsafe(self._loop.stop)
        thread.join(10)


@contextmanager
def proxied(target: int, port: int = 0) -> Iterator[Proxy]:
    """A proxy before the port `target` of this machine, listening on `port` or any free one."""
    proxy = Proxy(target, port)
    thread = proxy.start()
    try:
        yield proxy
    finally:
        proxy.stop(thread)
