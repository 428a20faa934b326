"""One worker process as its parent sees it, and the connections that are handed to it; see workers.py. Standard library
only.

What is said on the line between the two, beside the connections themselves:

    parent → worker   {"serve": true} and a connection   {"unit": {"reason", "models", "versions", …}}
                      {"leaving": true or false}         {"died": NUMBER}                 {"end": true}
    worker → parent   {"reason", "models", "versions"}   {"closed": connections}          {"going": true}
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from .door import Line

log = logging.getLogger("mlpacker.workers")

WORKER = "MLPACKER_WORKER"  # its number
LINE = "MLPACKER_LINE"  # in a worker's environment: the descriptor of its end
ABSENT = "starting again"
BACKLOG = 4096
LONGEST_SAID = 32 << 10  # a longer one may be cut in two where the line is almost full
AT_ONCE = 64  # connections accepted before anything else is looked at
AGAIN_SECONDS = 0.05  # while there is nobody to be given a connection
PAUSE, LONGEST_PAUSE, WELL = 0.25, 30.0, 60.0  # seconds before a dead one's successor starts; lived as long: as new


class Post:
    """The place of worker `number`, which one process after the other fills. `hear` gets what it says.

    The worker's end of the line stays open here too: a connection that a process has not taken before it died is
    still in it, and goes to another one.
    """

    def __init__(self, number: int, hear: Callable[[Post, dict[str, Any]], None]) -> None:
        self.number = number
        self.process: subprocess.Popen[bytes] | None = None
        self.reason = "loading"
        self.has: dict[str, list[dict[str, Any]]] = {}  # its `models` and `versions`, as `/info` says them
        self.here = self.going = False
        self.open = 0  # connections that it has
        self.turn = 0  # when it was last given one
        self._hear = hear
        self._line: Line | None = None
        self._theirs: socket.socket | None = None
        self._unsaid: deque[dict[str, Any]] = deque()
        self._since, self._deaths = 0.0, 0

    def start(self, environment: dict[str, str]) -> None:
        """The same command as this process, told that it is a worker."""
        ours, self._theirs = socket.socketpair()
        self._line, self._since = Line(ours), time.monotonic()
        asyncio.get_running_loop().add_reader(ours.fileno(), self._listen, self._line)
        descriptor = self._theirs.fileno()
        told = {WORKER: str(self.number), LINE: str(descriptor)}
        argv = [sys.executable, *sys.orig_argv[1:]]
        self.process = subprocess.Popen(argv, env={**os.environ, **environment, **told}, pass_fds=[descriptor])

    def give(self, connection: socket.socket) -> bool:
        """Whether it fits into the line."""
        return not self._unsaid and self._send({"serve": True}, connection)

    def say(self, message: dict[str, Any]) -> None:
        """In its turn: later, while the line is full of what its process does not read."""
        if self._line is not None:
            self._unsaid.append(message)
            if len(self._unsaid) == 1:
                self._say_all()

    def _say_all(self) -> None:
        while self._unsaid and self._send(self._unsaid[0]):
            self._unsaid.popleft()
        if self._unsaid and self._line is not None:
            asyncio.get_running_loop().call_later(AGAIN_SECONDS, self._say_all)

    def _send(self, message: dict[str, Any], connection: socket.socket | None = None) -> bool:
        try:
            if self._line is not None:
                self._line.send(message, connection)
                return True
        except OSError:
            pass
        return False

    def bury(self) -> list[socket.socket]:
        """After its process has ended: the connections that it has not taken."""
        self.process, self.here, self.going, self.open = None, False, False, 0
        self.reason, self.has = ABSENT, {}
        line, theirs = self._line, self._theirs
        if line is None or theirs is None:
            return []
        asyncio.get_running_loop().remove_reader(line.connection.fileno())
        self._line = self._theirs = None
        self._unsaid.clear()
        with contextlib.closing(Line(theirs)) as rest, contextlib.closing(line):
            return list(_connections(rest))

    def pause(self) -> float:
        """Seconds before its next process starts: twice as long each time, unless the last one did well."""
        self._deaths = 0 if time.monotonic() - self._since > WELL else self._deaths + 1
        return float(min(LONGEST_PAUSE, PAUSE * 2 ** min(self._deaths, 10)))

    def _listen(self, line: Line) -> None:
        try:
            for message in line.receive():
                self._hear(self, message)
        except EOFError:  # cannot be while this process has the other end as well
            asyncio.get_running_loop().remove_reader(line.connection.fileno())


def fitting(said: dict[str, Any]) -> dict[str, Any]:
    """Without the versions where it would not go into the line at once."""
    return said if len(json.dumps(said)) <= LONGEST_SAID else {**said, "versions": []}


def _connections(line: Line) -> Any:
    with contextlib.suppress(EOFError):
        while line.receive():
            while (connection := line.lent()) is not None:
                yield connection


class Intake:
    """Accepts on its listeners and gives each connection to whom `pick` says; while that is nobody, they wait."""

    def __init__(self, pick: Callable[[], Post | None]) -> None:
        self._pick = pick
        self._listeners: list[socket.socket] = []
        self._held: deque[socket.socket] = deque()
        self._turn = 0
        self._paused = False

    async def listen(self, listener: socket.socket) -> Listening:
        listener.setblocking(False)
        listener.listen(BACKLOG)
        self._listeners.append(listener)
        if not self._paused:
            asyncio.get_running_loop().add_reader(listener.fileno(), self._arrived, listener)
        return Listening(self, listener)

    def take_back(self, connections: list[socket.socket]) -> None:
        self._held += connections
        self._pass_on()

    def drop(self, listener: socket.socket) -> None:
        asyncio.get_running_loop().remove_reader(listener.fileno())
        self._listeners.remove(listener)
        listener.close()

    def close(self) -> None:
        """What has come by now is given out still, as far as there is somebody."""
        for listener in list(self._listeners):
            self._arrived(listener)
            self.drop(listener)
        while self._held:
            self._held.popleft().close()

    def _arrived(self, listener: socket.socket) -> None:
        for _ in range(AT_ONCE):
            if not self._pass_on():
                return
            try:
                self._held.append(listener.accept()[0])
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                log.warning("a connection cannot be accepted: %s", error.strerror)
                self._pause()
                return
        self._pass_on()

    def _pass_on(self) -> bool:
        """Whether all that was accepted is in a worker's hands, and there is one to take more."""
        while (post := self._pick()) is not None:
            if not self._held:
                return True
            if not post.give(self._held[0]):
                break
            self._held.popleft().close()
            self._turn += 1
            post.turn, post.open = self._turn, post.open + 1
        self._pause()
        return False

    def _pause(self) -> None:
        if self._paused:
            return
        self._paused, loop = True, asyncio.get_running_loop()
        for listener in self._listeners:
            loop.remove_reader(listener.fileno())
        loop.call_later(AGAIN_SECONDS, self._resume)

    def _resume(self) -> None:
        self._paused = False
        if self._pass_on():
            for listener in self._listeners:
                asyncio.get_running_loop().add_reader(listener.fileno(), self._arrived, listener)


class Listening:
    """One listener of an `Intake`."""

    def __init__(self, intake: Intake, listener: socket.socket) -> None:
        self._intake, self._listener = intake, listener

    def close(self) -> None:
        """Connections that nobody has accepted stay in the listener, where somebody else has it too."""
        self._intake.drop(self._listener)
