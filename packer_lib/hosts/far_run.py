# ruff: noqa: PTH123, PTH208
"""Runs one command at the far end of an SSH connection: standard library only, Python ≥3.8, nothing of ours imported.

Its text is sent over with every request (`wire`), so that a machine needs nothing but `python3` and keeps nothing of
it. Frames go both ways, a length of 4 bytes (big-endian) before each. To the far end: a request as JSON, then `d` data,
`e` end of data, `b` a beat. From it: `a` an answer as JSON, `o` and `e` what a command says, `x` its exit code.

A command runs in a session of its own. It and everything it started are killed when its time is over, when the
connection closes, and when nothing came for a minute: the other side beats every few seconds.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import struct
import sys
import time

MARK = b"\x1emlpacker\x1e"  # what a login shell says before this is its own
SILENT = 60.0  # seconds without a beat after which nobody is there any more
PATIENCE = 5000  # milliseconds
PIECE = 65536
TIMED_OUT, NOT_FOUND = 124, 127


def main() -> None:
    os.write(1, MARK)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    request = json.loads(frame())
    if request:
        run(**request)
    else:
        about()


def exactly(size: int) -> bytes:
    """`EOFError` when the other side is gone, or silent for too long."""
    got = b""
    while len(got) < size:
        if not select.select([0], [], [], SILENT)[0]:
            raise EOFError
        piece = os.read(0, size - len(got))
        if not piece:
            raise EOFError
        got += piece
    return got


def frame() -> bytes:
    return exactly(struct.unpack(">I", exactly(4))[0])


def tell(kind: bytes, data: bytes) -> None:
    left = struct.pack(">I", len(data) + 1) + kind + data
    while left:
        left = left[os.write(1, left) :]


def answer(value: object) -> None:
    tell(b"a", json.dumps(value).encode())


def about() -> None:
    import platform
    import pwd

    user = pwd.getpwuid(os.getuid())
    answer(
        {
            "uid": os.getuid(),
            "user": user.pw_name,
            "home": os.environ.get("HOME") or user.pw_dir,
            "path": os.environ.get("PATH", os.defpath),
            "timezone": os.environ.get("TZ", ""),
            "python": sys.executable,
            "version": list(sys.version_info[:2]),
            "arch": os.uname().machine,
            "libc": " ".join(platform.libc_ver()),
        }
    )


# Commands


def run(argv: list[str], env: dict[str, str] | None, reads: bool, timeout: float | None) -> None:
    """Runs `argv`; `env` is its whole environment. What it reads comes in frames, when it `reads` at all."""
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    command = Command(argv, env, reads)
    try:
        code = command.follow(woken, None if timeout is None else time.monotonic() + timeout)
    except (EOFError, OSError):  # nobody is there to be told
        command.kill()
        raise
    if code is None:
        command.kill()
        tell(b"e", f"\nstopped after {timeout:g} s".encode())
    tell(b"x", str(TIMED_OUT if code is None else code).encode())


class Command:
    """A process with its three pipes."""

    def __init__(self, argv: list[str], env: dict[str, str] | None, reads: bool) -> None:
        self.code: int | None = None
        self.buffer = b""  # frames that are not complete yet
        self.waiting = b""  # what it has not read yet
        self.finished = not reads
        self.heard = time.monotonic()
        given, self.stdin = os.pipe()
        self.out, out = os.pipe()
        self.err, err = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            become(argv, env, (given, out, err))
        for end in (given, out, err):
            os.close(end)
        os.set_blocking(self.stdin, False)
        self.open = {self.out: b"o", self.err: b"e"}
        self.feed()

    def follow(self, woken: int, end: float | None) -> int | None:
        """Its exit code, once it has ended and nothing more can come of it; None at `end`."""
        while self.open or self.code is None:
            left = PATIENCE if end is None else int(1000 * (end - time.monotonic()))
            if left <= 0:
                return None
            ready = dict(self.poll(woken).poll(min(left, PATIENCE)))
            if woken in ready:
                os.read(woken, 512)
            self.speak(ready)
            self.listen(ready)
            self.feed()
            self.reap()
        return self.code

    def poll(self, woken: int) -> select.poll:
        """With much waiting, no more is taken, so that the sender waits too; that he is gone is seen all the same."""
        polled = select.poll()
        for end in (woken, *self.open):
            polled.register(end, select.POLLIN)
        polled.register(0, select.POLLRDHUP if self.is_full() else select.POLLIN)
        if self.waiting:
            polled.register(self.stdin, select.POLLOUT)
        return polled

    def is_full(self) -> bool:
        return len(self.waiting) > PIECE

    def speak(self, ready: dict[int, int]) -> None:
        for end in [end for end in self.open if end in ready]:
            data = os.read(end, PIECE)
            if data:
                tell(self.open[end], data)
            else:
                del self.open[end]

    def listen(self, ready: dict[int, int]) -> None:
        if self.is_full():
            self.heard = time.monotonic()  # it is we who do not listen
        elif 0 in ready:
            data = os.read(0, PIECE)
            if not data:
                raise EOFError
            self.heard = time.monotonic()
            self.buffer += data
            self.unpack()
        gone = ready.get(0, 0) & (select.POLLHUP | select.POLLRDHUP | select.POLLERR) and self.is_full()
        if gone or time.monotonic() - self.heard > SILENT:
            raise EOFError

    def unpack(self) -> None:
        while len(self.buffer) >= 4:
            end = 4 + struct.unpack(">I", self.buffer[:4])[0]
            if len(self.buffer) < end:
                return
            kind, body, self.buffer = self.buffer[4:5], self.buffer[5:end], self.buffer[end:]
            if kind == b"d" and self.stdin >= 0:
                self.waiting += body
            elif kind == b"e":
                self.finished = True

    def feed(self) -> None:
        try:
            if self.waiting:
                self.waiting = self.waiting[os.write(self.stdin, self.waiting) :]
        except BlockingIOError:
            return
        except OSError:  # it reads no more: its code will say why
            self.waiting, self.finished = b"", True
        if self.finished and not self.waiting and self.stdin >= 0:
            os.close(self.stdin)
            self.stdin = -1

    def reap(self) -> None:
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status)

    def kill(self) -> None:
        """Its session, and its descendants also when they made a session of their own."""
        for pid in (-self.pid, *descendants(self.pid)):
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)


def become(argv: list[str], env: dict[str, str] | None, pipes: tuple[int, int, int]) -> None:
    try:
        os.setsid()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for target, source in enumerate(pipes):
            os.dup2(source, target)
        os.execvpe(argv[0], argv, dict(os.environ) if env is None else env)  # noqa: S606  no shell, on purpose
    except OSError as error:
        os.write(2, f"{argv[0]}: {error.strerror}".encode("utf-8", "replace"))
    finally:
        os._exit(NOT_FOUND)


def descendants(pid: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open("/proc/" + name + "/stat", encoding="utf-8", errors="replace") as stat:
                    parent = int(stat.read().rpartition(")")[2].split()[1])
            except (OSError, IndexError):
                continue
            children.setdefault(parent, []).append(int(name))
    found = [pid]
    for one in found:
        found.extend(children.get(one, ()))
    return found


try:
    main()
except (EOFError, BrokenPipeError):
    sys.exit(1)
