"""A machine reached by SSH, over one connection.

Nothing needs to be on it but sshd and `python3`. Commands, their environment and their input go in on a channel's
standard input (`wire`), never on a command line. A connection that was cut between two requests is made again, once;
what was under way when it was cut is never repeated, except an upload, which goes on where it stopped.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packer_lib.errors import DeployFailed
from packer_lib.hosts import Result, Unreachable, wire
from packer_lib.hosts.connect import Connect
from packer_lib.padl.model import Machine
from packer_lib.secrets import Login

if TYPE_CHECKING:
    import paramiko

CHANNELS = 8  # sshd's MaxSessions is 10 unless someone said otherwise
OPEN_WITHIN = 30.0
CHANNEL_WITHIN = 60.0  # seconds to wait for a session where sshd allows fewer of them
LOOK_EVERY = 0.2


class SshHost:
    """`login` is asked for at the first request, and `connect` makes a connection of it. Threads may share a host."""

    docker = "docker"

    def __init__(self, machine: Machine, login: Login, connect: Connect) -> None:
        self.machine: str | None = machine.id
        self.address = machine.hostname
        self.name = f"{machine.id} ({machine.hostname})"
        self.login = login
        self._connect = connect
        self._client: paramiko.SSHClient | None = None
        self._connecting = threading.Lock()
        self._channels = threading.BoundedSemaphore(CHANNELS)
        self._tools = False

    @cached_property
    def about(self) -> dict[str, Any]:
        """What the machine says of itself: uid, user, home, path, python, version, arch, libc."""
        with self._speaking("python3"), self._channel("far_run") as channel:
            return wire.about(channel)

    @cached_property
    def home(self) -> str:
        return f"{self.about['home'].rstrip('/')}/.mlpacker"

    @property
    def uid(self) -> int:
        return int(self.about["uid"])

    @cached_property
    def environ(self) -> Mapping[str, str]:
        me, zone = self.about, {"TZ": self.about["timezone"]} if self.about["timezone"] else {}
        return {
            "LANG": "C.UTF-8",
            "PATH": me["path"],
            "HOME": me["home"],
            "USER": me["user"],
            "LOGNAME": me["user"],
            **zone,
        }

    @property
    def python(self) -> str:
        """Ours, once `equip` has put it there."""
        ours = f"{self.home}/tools/env/bin/python"
        self._tools = self._tools or self.run(("test", "-x", ours)).ok
        return ours if self._tools else str(self.about["python"])

    @property
    def uv(self) -> str:
        return f"{self.home}/tools/uv"

    def run(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        input: str | None = None,
        timeout: float | None = None,
    ) -> Result:
        """As every host; `Unreachable` when there is no connection, or it is cut before the command has ended."""
        return self._run(argv, env, None if input is None else [input.encode()], timeout)

    def pour(self, argv: Sequence[str], chunks: Iterable[bytes], *, timeout: float | None = None) -> Result:
        return self._run(argv, None, chunks, timeout)

    def listen(self, argv: Sequence[str]) -> Generator[str, None, None]:
        with self._speaking(argv[0]), self._channel("far_run") as channel:
            yield from wire.listen(channel, {"argv": list(argv), "env": None})

    def _run(
        self,
        argv: Sequence[str],
        env: Mapping[str, str] | None,
        chunks: Iterable[bytes] | None,
        timeout: float | None,
    ) -> Result:
        request = {"argv": list(argv), "env": None if env is None else dict(env)}
        with self._speaking(argv[0]), self._channel("far_run") as channel:
            return wire.run(channel, request, chunks, timeout)

    def put(self, source: Path, target: str, mode: int | None = None) -> None:
        entries = wire.entries(source, mode)
        try:
            self._put(source, target, entries)
        except Unreachable:
            self._put(source, target, entries)

    def _put(self, source: Path, target: str, entries: list[wire.Entry]) -> None:
        try:
            with self._speaking(f"{target} is sent"), self._channel("far_put") as channel:
                wire.put(channel, source, target, entries)
        except wire.Refused as refused:
            raise DeployFailed(
                f"on {self.name}: {target}: {refused}", "look at that machine's disk and rights"
            ) from None

    def close(self) -> None:
        with self._connecting:
            if self._client is not None:
                self._client.close()
                self._client = None

    @contextmanager
    def _speaking(self, what: str) -> Iterator[None]:
        try:
            yield
        except wire.Cut as cut:
            raise self._words(cut, what) from None
        except wire.Late:
            raise Unreachable(f"{self.name} does not answer ({what})", "look at that machine's load") from None

    def _words(self, cut: wire.Cut, what: str) -> Unreachable:
        if cut.code == 127:
            return Unreachable(f"{self.name} has no python3", "install it there: apt-get install python3")
        if cut.code >= 0:
            said = str(cut) or "it ended without a word"
            return Unreachable(f"{self.name}: {said} (code {cut.code})", "can this user run commands there?")
        return Unreachable(f"the connection to {self.name} was cut ({what})", "it is made again when this is run again")

    @contextmanager
    def _channel(self, program: str) -> Iterator[paramiko.Channel]:
        """A session of its own on the one connection, in which that program of ours waits."""
        with self._channels:
            channel = self._open(program)
            try:
                yield channel
            finally:
                channel.close()

    def _open(self, program: str) -> paramiko.Channel:
        """Nothing has been asked yet: a dead connection is noticed here, and made again once. Where sshd allows fewer
        sessions at a time than we want, it is our turn when another one of ours has ended."""
        import paramiko

        end, again = time.monotonic() + CHANNEL_WITHIN, True
        while True:
            transport = self._transport()
            try:
                channel = transport.open_session(timeout=OPEN_WITHIN)
                wire.start(channel, program)
                return channel
            except (paramiko.SSHException, EOFError, OSError):
                if transport.is_active() and time.monotonic() < end:
                    time.sleep(LOOK_EVERY)
                elif transport.is_active():
                    raise self._full() from None
                elif again:
                    again = False
                else:
                    raise Unreachable(
                        f"{self.name}: its connection is cut again and again", "look at the network"
                    ) from None

    def _full(self) -> Unreachable:
        return Unreachable(f"{self.name} allows no session", "look at MaxSessions and ForceCommand of its sshd")

    def _transport(self) -> paramiko.Transport:
        with self._connecting:
            transport = self._client.get_transport() if self._client is not None else None
            if transport is None or not transport.is_active():
                if self._client is not None:
                    self._client.close()
                self._client = self._connect(self.login)
                transport = self._client.get_transport()
            if transport is None:
                raise Unreachable(f"the connection to {self.name} was cut as soon as it was made", "look at sshd's log")
            return transport
