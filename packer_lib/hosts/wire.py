"""One request on one channel of an SSH connection: the near side of `far_run` and `far_put`.

Nothing of a request is on a command line there: program, argv, environment and input go in on standard input.
"""

from __future__ import annotations

import hashlib
import json
import stat
import struct
import threading
import time
import uuid
from collections.abc import Generator, Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packer_lib.hosts import Result

if TYPE_CHECKING:
    import paramiko

MARK = b"\x1emlpacker\x1e"
BEAT_EVERY = 5.0
STALLED = 120.0  # seconds in which the far end takes nothing at all
GRACE = 15.0  # seconds that the far end has to say that a command's time was over
LAST_WORDS = 3.0
PIECE = 131072
TIMED_OUT = 124

Entry = list[Any]  # path, kind (f, d or l), mode, size, sha256 or link


class Cut(Exception):
    """The channel ended before the answer. The text is what was said on standard error, `code` the exit status there,
    -1 without one."""

    def __init__(self, said: str = "", code: int = -1) -> None:
        super().__init__(said)
        self.code = code


class Late(Exception):
    """No answer in time."""


class Refused(Exception):
    """The far end could not do what it was asked; its own words."""


@cache
def _program(name: str) -> bytes:
    return Path(__file__).with_name(f"{name}.py").read_bytes()


def start(channel: paramiko.Channel, program: str) -> None:
    """Starts a Python there that waits for the text of `far_run` or `far_put`. If this fails, nothing has been done."""
    reader = f"io.BufferedReader(io.FileIO(0,closefd=False),1).read({len(_program(program))})"
    channel.settimeout(BEAT_EVERY)
    channel.exec_command(f"exec python3 -X utf8 -I -S -c 'import io;exec({reader})'")


class Wire:
    """Bytes on a channel that `start` was called on; several threads may send. `end` is on `monotonic`'s clock."""

    def __init__(self, channel: paramiko.Channel, program: str, end: float | None = None) -> None:
        self.channel = channel
        self.end = end
        self._beats = program == "far_run"
        self._buffer = b""
        self._begun = False
        self._sending = threading.Lock()
        self.send(_program(program))

    def send(self, data: bytes) -> None:
        """All of `data`; `Cut` when the channel closes before, or nothing was taken for `STALLED` seconds."""
        with self._sending:
            left, moved = memoryview(data), time.monotonic()
            while left:
                try:
                    left = left[self.channel.send(left) :]  # type: ignore[arg-type]  # any buffer
                    moved = time.monotonic()
                except TimeoutError:
                    if time.monotonic() - moved > STALLED:
                        raise self._cut() from None
                except (OSError, EOFError):
                    raise self._cut() from None

    def frame(self, kind: bytes, data: bytes = b"") -> None:
        self.send(struct.pack(">I", len(kind) + len(data)) + kind + data)

    def receive(self, size: int) -> bytes:
        """`size` bytes; `Cut` when the channel ends before, `Late` at the end."""
        self._begin()
        while len(self._buffer) < size:
            self._more()
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data

    def line(self) -> bytes:
        self._begin()
        while b"\n" not in self._buffer:
            self._more()
        data, _, self._buffer = self._buffer.partition(b"\n")
        return data

    def _begin(self) -> None:
        """What a login shell says before the far end does is thrown away."""
        while not self._begun:
            before, mark, rest = self._buffer.partition(MARK)
            if mark:
                self._begun, self._buffer = True, rest
            else:
                self._buffer = before[-len(MARK) :]
                self._more()

    def _more(self) -> None:
        while self.end is None or time.monotonic() < self.end:
            try:
                data = self.channel.recv(PIECE)
            except TimeoutError:
                self._beat()
            except (OSError, EOFError):
                raise self._cut() from None
            else:
                if not data:
                    raise self._cut()
                self._buffer += data
                return
        raise Late

    def _beat(self) -> None:
        """Says that somebody is still here; what is just being sent says it too."""
        if self._beats and not self._sending.locked():
            self.frame(b"b")

    def _cut(self) -> Cut:
        transport, said = self.channel.get_transport(), b""
        if transport is not None and transport.is_active():
            self.channel.status_event.wait(LAST_WORDS)  # the code comes after the end of its output
        while self.channel.recv_stderr_ready():
            said += self.channel.recv_stderr(PIECE)
        code = self.channel.recv_exit_status() if self.channel.exit_status_ready() else -1
        return Cut(said.decode("utf-8", "replace").strip(), code)


def about(channel: paramiko.Channel) -> dict[str, Any]:
    """What the machine says of itself, see `far_run.about`."""
    wire = Wire(channel, "far_run", time.monotonic() + GRACE)
    wire.frame(b"", b"{}")
    answer: dict[str, Any] = json.loads(_frame(wire)[1])
    return answer


def run(
    channel: paramiko.Channel, request: dict[str, Any], chunks: Iterable[bytes] | None, timeout: float | None
) -> Result:
    """Runs a command; `Cut` when the channel ends before it does, which ends it too. What `chunks` raises is raised."""
    wire = Wire(channel, "far_run", None if timeout is None else time.monotonic() + timeout + GRACE)
    wire.frame(b"", json.dumps({**request, "reads": chunks is not None, "timeout": timeout}).encode())
    failed: list[BaseException] = []
    feeder = threading.Thread(target=_feed, args=(wire, chunks, failed), daemon=True)
    if chunks is not None:
        feeder.start()
    try:
        return _follow(wire)
    except Cut:
        if failed:
            raise failed[0] from None
        raise
    finally:
        channel.close()
        if chunks is not None:
            feeder.join()


def listen(channel: paramiko.Channel, request: dict[str, Any]) -> Generator[str, None, None]:
    """Lines of what a command says, as they come; when the channel closes, it is killed."""
    wire = Wire(channel, "far_run")
    wire.frame(b"", json.dumps({**request, "reads": False, "timeout": None}).encode())
    kind, said = b"", b""
    while kind != b"x":
        kind, body = _frame(wire)
        *lines, said = (said + body).split(b"\n") if kind != b"x" else (said, b"")
        for line in lines:
            if line or kind != b"x":
                yield line.decode("utf-8", "replace")


def _feed(wire: Wire, chunks: Iterable[bytes], failed: list[BaseException]) -> None:
    try:
        for chunk in chunks:
            for start in range(0, len(chunk), PIECE):
                wire.frame(b"d", chunk[start : start + PIECE])
        wire.frame(b"e")
    except Cut:
        pass  # the other thread knows more
    except BaseException as error:
        failed.append(error)
        wire.channel.close()


def _follow(wire: Wire) -> Result:
    said: dict[bytes, list[bytes]] = {b"o": [], b"e": []}
    kind, body = b"", b""
    try:
        while kind != b"x":
            kind, body = _frame(wire)
            said.setdefault(kind, []).append(body)
    except Late:
        body = str(TIMED_OUT).encode()
    out, err = (b"".join(said[of]).decode("utf-8", "replace") for of in (b"o", b"e"))
    return Result(int(body), out, err)


def _frame(wire: Wire) -> tuple[bytes, bytes]:
    data = wire.receive(struct.unpack(">I", wire.receive(4))[0])
    return data[:1], data[1:]


# Files


def put(channel: paramiko.Channel, source: Path, target: str, entries: list[Entry]) -> None:
    """`target` there becomes `source`, whose `entries` these are. `Refused` with the machine's words, `Cut`."""
    folder = source.is_dir()
    small = not folder and entries[0][3] <= PIECE
    known = json.dumps([target, entries]).encode()
    name = f"once-{uuid.uuid4().hex}" if small else hashlib.sha256(known).hexdigest()[:32]
    request = {"target": target, "folder": folder, "entries": entries, "name": name}
    wire = Wire(channel, "far_put")
    line = json.dumps(request).encode()
    wire.send(b"%012d" % len(line) + line)
    try:
        if small:  # nothing of it can be there: one round less
            _send_file(wire, source, 0, entries[0][3])
        answer = json.loads(wire.line())
        if "have" in answer:
            if not small:
                _send_rest(wire, source, entries, answer["have"])
            answer = json.loads(wire.line())
    except Cut as cut:
        answer = _last_words(wire, cut)
    finally:
        channel.close()
    if "error" in answer:
        raise Refused(answer["error"])


def _last_words(wire: Wire, cut: Cut) -> Any:
    """A far end that gives up says why, and does not read on."""
    try:
        while True:
            answer = json.loads(wire.line())
            if "have" not in answer:
                return answer
    except Cut:
        raise cut from None


def _send_rest(wire: Wire, source: Path, entries: list[Entry], have: list[int]) -> None:
    files = [entry for entry in entries if entry[1] == "f"]
    for (path, _, _, size, _), begin in zip(files, have, strict=True):
        _send_file(wire, source / path if source.is_dir() else source, begin, size)


def _send_file(wire: Wire, path: Path, begin: int, size: int) -> None:
    with path.open("rb") as file:
        file.seek(begin)
        while begin < size:
            data = file.read(min(PIECE, size - begin))
            if not data:
                raise OSError(f"{path} became shorter while it was sent")
            wire.send(data)
            begin += len(data)


def entries(source: Path, mode: int | None) -> list[Entry]:
    """What is in a folder, parents first; a file is the only entry, of the name `file`."""
    if not source.is_dir():
        return [_entry("file", source.resolve(), mode)]
    found = sorted(source.rglob("*"))
    return [["", "d", source.stat().st_mode & 0o777, 0, ""], *(_entry(str(p.relative_to(source)), p) for p in found)]


def _entry(name: str, path: Path, mode: int | None = None) -> Entry:
    there = path.lstat()
    if stat.S_ISLNK(there.st_mode):
        return [name, "l", 0, 0, str(path.readlink())]
    bits = there.st_mode & 0o777 if mode is None else mode
    if stat.S_ISDIR(there.st_mode):
        return [name, "d", bits, 0, ""]
    with path.open("rb") as file:
        return [name, "f", bits, there.st_size, hashlib.file_digest(file, "sha256").hexdigest()]
