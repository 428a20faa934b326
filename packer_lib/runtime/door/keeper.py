"""The door itself: one thread, one selector, and nothing to do while nothing happens."""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import socket
import time

from .callers import Callers
from .line import Line, trusted
from .place import open_inlet, read_current, say, write_current

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

PATIENCE = 30.0
COME_BACK = 2.0  # seconds in which a release that just lost its door is back
SEIZED = 15.0  # seconds for the units to bring back the port to a new door, when another process seems to have it
BACKLOG = 4096


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
        self.left = time.monotonic()
        self.give_up = self.left + (SEIZED if self.current else 0.0)
        self.switching = False
        self.selector = selectors.DefaultSelector()
        self.callers = Callers(self.selector)
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
        elif self.holder is None and self.callers.listening is None:
            times.append(self.left + PATIENCE)
        times += self.callers.deadlines()
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
        if release != self.current:
            write_current(self.folder, release)
            self.current = release
        if guest is not self.holder:
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

    def _turn_away(self) -> None:
        """Nobody was ever to have the port, or who was has been away too long."""
        away = self.holder is None and not (self.current and time.monotonic() < self.left + PATIENCE)
        self.callers.answer(self.listener if away else None)
