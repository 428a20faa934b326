"""Bodies as they come: into memory, or into a file in the state folder, which is gone when nobody took it away.

Files are written by threads, a mebibyte at a time, so that the event loop goes on answering.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from ..front import Receive
from ..predict import Refused

if TYPE_CHECKING:
    from ..modelrunner.multipart import Part

FOLDER = "arriving"  # in the state folder
BLOCK = 1 << 20
IDLE_SECONDS = 30.0  # without a byte
MOST_SECONDS = 600.0
FORGOTTEN_SECONDS = 2 * MOST_SECONDS  # of files whose process was killed


class Arriving:
    """A file that is being written; `sha256` and `size` are of what has come."""

    def __init__(self, file: BinaryIO, path: Path, most: int) -> None:
        self.path, self.size = path, 0
        self._file, self._most, self._hash = file, most, hashlib.sha256()

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def write(self, data: bytes) -> None:
        """`Refused` when it is too large; `OSError` when there is no room."""
        self.size += len(data)
        if self.size > self._most:
            raise too_large(self._most)
        self._file.write(data)
        self._hash.update(data)

    def flush(self) -> None:
        """On the disk, so that a machine that stops now does not forget what was told to be there."""
        self._file.flush()
        os.fsync(self._file.fileno())


def too_large(most: int) -> Refused:
    return Refused(413, f"the model is larger than {most} bytes (MLPACKER_MAX_MODEL_MIB sets how large one may be)")


async def blocks(receive: Receive) -> AsyncIterator[bytes]:
    """A body, a mebibyte at a time; `Refused` when it ends early or is not here in time."""
    end, waiting, more = time.monotonic() + MOST_SECONDS, bytearray(), True
    while more:
        try:
            async with asyncio.timeout(min(IDLE_SECONDS, end - time.monotonic())):
                message = await receive()
        except TimeoutError:
            raise Refused(408, "the body did not come in time") from None
        if message["type"] == "http.disconnect":
            raise Refused(400, "the body ended early")
        waiting += message.get("body", b"")
        more = message.get("more_body", False)
        if len(waiting) >= BLOCK or (waiting and not more):
            yield bytes(waiting)
            waiting.clear()


async def in_memory(receive: Receive, most: int) -> bytes:
    """The whole body; `Refused` when it is over `most` bytes."""
    parts = bytearray()
    async for block in blocks(receive):
        parts += block
        if len(parts) > most:
            raise Refused(413, f"the body is larger than {most} bytes (MLPACKER_MAX_BODY_MIB sets how large)")
    return bytes(parts)


async def dropped(receive: Receive, most: int) -> None:
    """Reads what is still sent, as far as `most` bytes, and forgets it."""
    size = 0
    try:
        async with asyncio.timeout(IDLE_SECONDS):
            async for block in blocks(receive):
                size += len(block)
                if size > most:
                    return
    except (Refused, TimeoutError):
        return


@asynccontextmanager
async def file_in(state: Path, most: int) -> AsyncIterator[Arriving]:
    """A new file of at most `most` bytes; whoever wants to keep it renames it before the block ends."""
    descriptor, name = await asyncio.to_thread(_create, state / FOLDER)
    path = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield Arriving(file, path, most)
    finally:
        path.unlink(missing_ok=True)


def _create(folder: Path) -> tuple[int, str]:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for old in folder.iterdir():
        with suppress(FileNotFoundError):  # another process sees to it as well
            if time.time() - old.stat().st_mtime > FORGOTTEN_SECONDS:
                old.unlink()
    return tempfile.mkstemp(dir=folder)


async def raw(receive: Receive, file: Arriving) -> None:
    """The body is the file."""
    await _fed(receive, file.write)
    await asyncio.to_thread(file.flush)


async def form(receive: Receive, kind: bytes, file: Arriving, most: int) -> dict[str, Part]:
    """The parts of a form by name, at most `most` bytes in memory; the data of one called `model` goes into `file`.

    `Refused` for a form that is none. Imports what reads forms.
    """
    from ..modelrunner.multipart import BadForm, Form

    try:
        reading = Form(kind, most, {"model": file.write})
        await _fed(receive, reading.write)
        await asyncio.to_thread(file.flush)
        return reading.parts()
    except BadForm as error:
        raise Refused(400, str(error)) from None


async def _fed(receive: Receive, write: Callable[[bytes], None]) -> None:
    async for block in blocks(receive):
        await asyncio.to_thread(write, block)


def require_sha256(file: Arriving, expected: str) -> None:
    """`Refused` when it is another one; "" is any."""
    if expected and expected.removeprefix("sha256:").lower() != file.sha256:
        raise Refused(422, f"the sha256 of what came is {file.sha256}, not {expected[:80]}; nothing has changed")
