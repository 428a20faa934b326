"""A body that comes in parts, or is not wanted; standard library only."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from .predict import Refused
from .room import SMALL, Busy, Room

if TYPE_CHECKING:
    from .front import Message, Receive

DROP_SECONDS = 5.0


async def rest(receive: Receive, message: Message, limit: int, room: Room) -> bytes:
    """All parts from `message` on; from `SMALL` on they take room. Refused, the rest is read and dropped."""
    parts: list[bytes] = []
    size = held = 0
    try:
        while True:
            parts.append(part(message, size, limit))
            size += len(parts[-1])
            if size > SMALL:
                room.expect(size - held)
                held = size
            if not message.get("more_body"):
                return b"".join(parts)
            message = await receive()
    except (Refused, Busy):
        parts.clear()
        if message.get("more_body"):
            await drop(receive, limit)
        raise
    finally:
        room.forget(held)


def part(message: Message, before: int, limit: int) -> bytes:
    """What `message` has of a body that had `before` bytes so far."""
    if message["type"] == "http.disconnect":
        raise Refused(400, "the connection was closed before the body was here")  # nobody gets to read it
    body: bytes = message.get("body", b"")
    if before + len(body) > limit:
        raise too_large(limit)
    return body


async def drop(receive: Receive, limit: int) -> None:
    """Reads `limit` bytes of what is not wanted, so that a client that sends them gets to read why."""
    size, more = 0, True
    with suppress(TimeoutError):
        async with asyncio.timeout(DROP_SECONDS):
            while more and size <= limit:
                message = await receive()
                more = message.get("more_body", False)
                size += len(message.get("body", b""))


def too_large(limit: int) -> Refused:
    return Refused(413, f"the body is larger than {limit} bytes (MLPACKER_MAX_BODY_MIB sets how much may be sent)")
