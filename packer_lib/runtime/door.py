"""The door of an API unit: keeps the unit's public port and lends it to the release that is current.

One file, standard library only, Python ≥3.8, nothing of ours imported: a bundle has it, and a machine can be sent it.

    python door.py hold FOLDER HOST PORT           run; `FOLDER/door.sock` is where units and askers come to
    python door.py ask FOLDER status [SECONDS]     {"current", "holding", "waiting": {release: private port}, "port", …}
    python door.py ask FOLDER switch ID [SECONDS]  the same, once ID has the port and the former one has left it;
                                                   {"error": "…"} and exit code 1 when nothing was changed

The listening socket itself is lent (SCM_RIGHTS): a unit accepts on it, no byte of a request passes through here. While
nobody has it, connections wait in the kernel's queue: for `PATIENCE` seconds after a release left or died, then they
are told 503 at once, as they are while no release was ever current. Whoever dies, the others go on: units serve on
what they hold and come back to a new door with it; `FOLDER/current` says who is to have it.
"""

# ruff: noqa: PTH101, PTH103, PTH105, PTH108, PTH118, PTH123
# (pathlib would double the start time)
from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import selectors
import signal
import socket
import stat
import struct
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

PATIENCE = 30.0
COME_BACK = 2.0  # seconds in which a release that just lost its door is back
SEIZED = 15.0  # seconds for the units to bring back the port to a new door, when another process seems to have it
BACKLOG = 4096
LARGEST = 1 << 16
CALLERS = 256
CALLER_SECONDS = 2.0
CREDENTIALS = struct.Struct("3i")  # pid, uid, gid, see unix(7)
AWAY = b'{"error":"no release of this unit is running; try again later"}'
AWAY_ANSWER = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\nconnection: close\r\n"
    b"content-length: %d\r\n\r\n%s" % (len(AWAY), AWAY)
)


class Line:
    """One end of a connection over the Unix socket: JSON lines, with descriptors beside them."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self.connection = connection
        self.descriptors: list[int] = []
        self._rest = b""

    def send(self, message: dict[str, Any], lend: socket.socket | None = None) -> None:
        """`OSError` when the other end is gone or does not read."""
        rights = [] if lend is None else [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", lend.fileno()))]
        self.connection.sendmsg([json.dumps(message).encode() + b"\n"], rights)

    def receive(self) -> list[dict[str, Any]]:
        """The messages that are there; `EOFError` when the other end is gone or talks nonsense."""
        try:
            flags = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
            data, ancillary, _flags, _address = self.connection.recvmsg(LARGEST, socket.CMSG_SPACE(16), flags)
        except BlockingIOError:
            return []
        except OSError as error:
            raise EOFError from error
        for level, kind, payload in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                self.descriptors += [number for (number,) in struct.iter_unpack("i", payload)]
        *lines, self._rest = (self._rest + data).split(b"\n")
        try:
            messages = [json.loads(line) for line in lines]
        except ValueError as error:
            raise EOFError from error
        if not data or len(self._rest) > LARGEST or not all(isinstance(message, dict) for message in messages):
            raise EOFError
        return messages

    def lent(self) -> socket.socket | None:
        """The socket that came with a message."""
        return socket.socket(fileno=self.descriptors.pop(0)) if self.descriptors else None

    def close(self) -> None:
        for descriptor in self.descriptors:
            os.close(descriptor)
        self.descriptors = []
        self.connection.close()


def connect(folder: str) -> Line:
    """To the door of `folder`; `OSError` when it is not there or another user's."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(os.path.join(folder, "door.sock"))
        if not trusted(connection):
            raise PermissionError(errno.EPERM, "the door belongs to another user")
    except OSError:
        connection.close()
        raise
    return Line(connection)


def trusted(connection: socket.socket) -> bool:
    """Whether this user or root is at the other end; where the system does not say, the folder's mode has to do."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return True
    _pid, uid, _gid = CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, option, CREDENTIALS.size))
    return uid in (0, os.geteuid())


class Guest:
    """Who came in: a unit, once it has said its release, or somebody who asks."""

    def __init__(self, line: Line) -> None:
        self.line = line
        self.release = ""
        self.port = 0
        self.reason = ""
        self.holds = False
        self.asked = False  # to take the port, and has not answered
        self.gone = False


class Door:
    """`folder` is ours and private; `host:port` is bound now, or brought back by a unit that still holds it."""

    def __init__(self, folder: str, host: str, port: int) -> None:
        self.folder, self.host, self.port = folder, host, port
        self.current = read_current(folder)
        self.listener: socket.socket | None = None
        self.holder: Guest | None = None
        self.guests: list[Guest] = []
        self.callers: dict[socket.socket, float] = {}
        self.left = time.monotonic()
        self.give_up = self.left + (SEIZED if self.current else 0.0)
        self.switching = self.turning_away = False
        self.selector = selectors.DefaultSelector()
        self.inlet = open_inlet(folder)
        self.selector.register(self.inlet, selectors.EVENT_READ, self._come_in)
        self._bind()

    def serve(self) -> None:
        """Until the process is told to end."""
        while True:
            self._turn(None)

    # ── the loop ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _turn(self, until: float | None) -> None:
        """What happened by now, or the next that happens before `until`."""
        times = [until] if until is not None else []
        if self.listener is None:
            times.append(time.monotonic() + 0.1)
        elif self.holder is None and not self.turning_away:
            times.append(self.left + PATIENCE)
        times += self.callers.values()
        timeout = max(0.0, min(times) - time.monotonic()) if times else None
        for key, _events in self.selector.select(timeout):
            key.data(key.fileobj)
        if self.listener is None:
            self._bind()
        self._give()
        self._turn_away()

    def _wait(self, condition: Callable[[], Any], until: float) -> Any:
        """The first true value of `condition`, or the last one; everybody else is served meanwhile."""
        while not condition() and time.monotonic() < until:
            self._turn(until)
        return condition()

    def _bind(self) -> None:
        if self.listener is not None:
            return
        listener = socket.socket(socket.AF_INET6 if ":" in self.host else socket.AF_INET)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((self.host, self.port))
            listener.listen(BACKLOG)
        except OSError as error:
            listener.close()
            if error.errno != errno.EADDRINUSE or time.monotonic() > self.give_up:
                raise
        else:
            self._own(listener)

    def _own(self, listener: socket.socket) -> None:
        listener.setblocking(False)
        self.listener = listener
        self.port = listener.getsockname()[1]
        say(f"the port is {self.host}:{self.port}")

    # ── units ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _come_in(self, _inlet: socket.socket) -> None:
        with contextlib.suppress(OSError):
            connection, _address = self.inlet.accept()
            if not trusted(connection):
                connection.close()
                return
            guest = Guest(Line(connection))
            self.guests.append(guest)
            self.selector.register(connection, selectors.EVENT_READ, lambda _connection: self._hear(guest))

    def _hear(self, guest: Guest) -> None:
        try:
            for message in [] if guest.gone else guest.line.receive():
                if not guest.gone:
                    self._heed(guest, message)
        except (EOFError, OSError, KeyError, TypeError, ValueError):
            self._lose(guest)

    def _heed(self, guest: Guest, message: dict[str, Any]) -> None:
        if "ask" in message:
            self._reply(guest, message)
        elif "unit" in message:
            self._greet(guest, message)
        elif "did" in message:
            self._note(guest, message)
        else:
            guest.reason = str(message["reason"])

    def _greet(self, guest: Guest, message: dict[str, Any]) -> None:
        """Another process of the same release is no more, even if a child of it keeps its connection open."""
        guest.release, guest.port, guest.reason = str(message["unit"]), int(message["port"]), str(message["reason"])
        for former in [other for other in self.guests if other.release == guest.release and other is not guest]:
            self._lose(former)
        say(f"release {guest.release} is here")
        brought = guest.line.lent()
        if brought is None:
            return
        guest.holds = self._is_ours(brought)
        self.current = self.current or guest.release
        if guest.holds and guest.release == self.current:
            self._enter(guest)
        elif guest.release != self.current:
            guest.line.send({"do": "leave"})

    def _is_ours(self, brought: socket.socket) -> bool:
        """Whether a unit's socket is the one of this door; a door without one makes it so."""
        if self.listener is None and brought.getsockname()[1] == self.port:
            self._own(brought)
            return True
        with brought:
            return self.listener is not None and os.path.sameopenfile(brought.fileno(), self.listener.fileno())

    def _note(self, guest: Guest, message: dict[str, Any]) -> None:
        guest.asked = False
        guest.reason = str(message.get("reason", guest.reason))
        guest.holds = message["did"] == "took"
        if not guest.holds and guest is self.holder:
            self._vacate(f"release {guest.release} has left the port")
        elif guest.holds and self.holder is None and guest.release == self.current:
            self._enter(guest)

    def _give(self) -> None:
        """The port to the current release, once that is here and ready: after a start, or after its death."""
        guest = self._guest(self.current) if self.holder is None and not self.switching else None
        if guest is not None and not guest.reason and not guest.asked:
            self._lend(guest)

    def _lend(self, guest: Guest) -> None:
        if self.listener is None:
            return
        try:
            guest.line.send({"do": "take"}, self.listener)
            guest.asked = True
        except OSError:
            self._lose(guest)

    def _enter(self, guest: Guest) -> None:
        self.holder = guest
        say(f"release {guest.release} has the port")

    def _vacate(self, text: str) -> None:
        self.holder = None
        self.left = time.monotonic()
        say(text)

    def _guest(self, release: str) -> Guest | None:
        return next((guest for guest in self.guests if release and guest.release == release), None)

    def _lose(self, guest: Guest) -> None:
        if guest.gone:
            return
        guest.gone, guest.holds = True, False
        self.guests.remove(guest)
        self.selector.unregister(guest.line.connection)
        guest.line.close()
        if guest is self.holder:
            self._vacate(f"release {guest.release} is gone")

    # ── askers ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _reply(self, guest: Guest, message: dict[str, Any]) -> None:
        if message["ask"] == "switch":
            answer = self._switch(str(message["release"]), float(message["seconds"]))
        else:
            answer = self.status()
        with contextlib.suppress(OSError):
            if not guest.gone:
                guest.line.send(answer)
        self._lose(guest)

    def status(self) -> dict[str, Any]:
        units = [guest for guest in self.guests if guest.release]
        return {
            "current": self.current or None,
            "holding": self.holder.release if self.holder else None,
            "waiting": {guest.release: guest.port for guest in units if guest is not self.holder},
            "ports": {guest.release: guest.port for guest in units},
            "reasons": {guest.release: guest.reason for guest in units if guest.reason},
            "port": self.port,
            "pid": os.getpid(),
        }

    def _switch(self, release: str, seconds: float) -> dict[str, Any]:
        if self.switching:
            return {"error": "another switch is going on"}
        self.switching = True
        try:
            error = self._hand_over(release, time.monotonic() + seconds)
        finally:
            self.switching = False
        return {"error": error} if error else self.status()

    def _hand_over(self, release: str, until: float) -> str:
        """Why it could not be, or "". The new one takes the port before the old one leaves it."""
        guest = self._wait(lambda: self._guest(release), min(until, time.monotonic() + COME_BACK))
        if guest is None:
            here = ", ".join(guest.release for guest in self.guests if guest.release)
            return f"release {release} is not at the door; there is {here or 'none'}"
        if not self._wait(lambda: self.listener, until):
            return f"port {self.port} is still another process's"
        if guest is not self.holder:
            self._lend(guest)
            self._wait(lambda: not guest.asked or guest.gone, until)
            if guest.asked or not guest.holds:
                return self._refused(guest)
        write_current(self.folder, release)
        self.current = release
        self._enter(guest)
        self._clear(guest, until)
        return ""

    def _clear(self, chosen: Guest, until: float) -> None:
        """All but `chosen` leave the port; one that does not answer in time still will when it wakes up."""
        others = [guest for guest in self.guests if guest.holds and guest is not chosen]
        for other in others:
            self._tell_to_leave(other)
        self._wait(lambda: not any(other.holds for other in others), until)

    def _tell_to_leave(self, guest: Guest) -> None:
        try:
            guest.line.send({"do": "leave"})
        except OSError:
            self._lose(guest)

    def _refused(self, guest: Guest) -> str:
        if guest.gone:
            return f"release {guest.release} ended when it was to take the port"
        if guest.asked:
            self._tell_to_leave(guest)
            return f"release {guest.release} did not take the port in time"
        return f"release {guest.release} is not ready: {guest.reason}"

    # ── callers, when there is nobody to answer them ─────────────────────────────────────────────────────────────

    def _turn_away(self) -> None:
        away = self.holder is None and not (self.current and time.monotonic() < self.left + PATIENCE)
        if self.listener is not None and away != self.turning_away:
            self.turning_away = away
            if away:
                self.selector.register(self.listener, selectors.EVENT_READ, self._answer_the_door)
            else:
                self.selector.unregister(self.listener)
        for caller, until in list(self.callers.items()):
            if time.monotonic() >= until:
                self._dismiss(caller)

    def _answer_the_door(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while self.turning_away and self.holder is None and len(self.callers) < CALLERS:
                caller, _address = listener.accept()
                caller.setblocking(False)
                self.callers[caller] = time.monotonic() + CALLER_SECONDS
                self.selector.register(caller, selectors.EVENT_READ, self._refuse)
                self._refuse(caller, first=True)

    def _refuse(self, caller: socket.socket, first: bool = False) -> None:
        """Reads on after its answer: closing on what is unread would take the answer away again."""
        if caller not in self.callers:
            return
        try:
            if first:
                caller.sendall(AWAY_ANSWER)
                caller.shutdown(socket.SHUT_WR)
            elif not caller.recv(LARGEST):
                self._dismiss(caller)
        except BlockingIOError:
            pass
        except OSError:
            self._dismiss(caller)

    def _dismiss(self, caller: socket.socket) -> None:
        del self.callers[caller]
        self.selector.unregister(caller)
        caller.close()


def open_inlet(folder: str) -> socket.socket:
    """The Unix socket of the one door of `folder`, which is made, ours, and closed to others."""
    with contextlib.suppress(FileExistsError):
        os.makedirs(folder, 0o700)
    found = os.lstat(folder)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise PermissionError(errno.EPERM, "is not a folder of this user", folder)
    os.chmod(folder, 0o700)
    lock = os.open(os.path.join(folder, "door.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # kept by this process until it ends
    except OSError:
        raise FileExistsError(errno.EEXIST, "another door is running", folder) from None
    path = os.path.join(folder, "door.sock")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    inlet = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    inlet.bind(path)
    inlet.listen(64)
    inlet.setblocking(False)
    return inlet


def read_current(folder: str) -> str:
    try:
        with open(os.path.join(folder, "current"), encoding="utf-8") as file:
            return file.read().strip()
    except OSError:
        return ""


def write_current(folder: str, release: str) -> None:
    path = os.path.join(folder, "current")
    with open(path + ".new", "w", encoding="utf-8") as file:
        file.write(release + "\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(path + ".new", path)


def say(text: str) -> None:
    print(time.strftime("%Y-%m-%dT%H:%M:%S%z"), "door:", text, file=sys.stderr, flush=True)


def hold(folder: str, host: str, port: str) -> int:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: sys.exit(0))
    try:
        Door(folder, host, int(port)).serve()
    except OSError as error:
        say(f"ended: {error.strerror} ({error.filename or f'{host}:{port}'})")
    return 1


def ask(folder: str, word: str, *rest: str) -> int:
    """Prints the door's answer. SECONDS is how long a switch may take, or `status` may try to reach the door."""
    release = rest[0] if word == "switch" else ""
    given = rest[1:] if word == "switch" else rest
    seconds = float(given[0]) if given else (10.0 if word == "switch" else 0.0)
    try:
        answer = question(folder, {"ask": word, "release": release, "seconds": seconds}, time.monotonic() + seconds)
    except (OSError, EOFError) as error:
        answer = {"error": f"the door in {folder} does not answer: {error or 'it ended'}"}
    print(json.dumps(answer))
    return 1 if "error" in answer else 0


def question(folder: str, message: dict[str, Any], until: float) -> dict[str, Any]:
    while True:
        try:
            line = connect(folder)
            break
        except (FileNotFoundError, ConnectionRefusedError):
            if time.monotonic() >= until:
                raise
            time.sleep(0.02)
    with contextlib.closing(line):
        line.send(message)
        line.connection.settimeout(max(0.0, until - time.monotonic()) + 2 * COME_BACK)
        while True:
            for answer in line.receive():
                return answer


def main(argv: list[str]) -> int:
    word, rest = (argv[0] if argv else ""), argv[1:]
    if word == "hold" and len(rest) == 3:
        return hold(*rest)
    if word == "ask" and len(rest) in (2, 3, 4) and rest[1] in ("status", "switch"):
        return ask(*rest)
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
