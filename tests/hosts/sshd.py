"""A real sshd as a process of this user, and a line to it that can be cut."""

from __future__ import annotations

import contextlib
import getpass
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from packer_lib.hosts.connect import connect
from packer_lib.hosts.ssh import SshHost
from packer_lib.padl.model import Machine
from packer_lib.secrets import Login
from packer_lib.settings import Settings
from tests.support import free_port, require, wait_for

DEBIAN = "apt-get install openssh-server"


class Sshd:
    """Serves this user with one key, on 127.0.0.1; `home` is the home folder of those who log in."""

    def __init__(self, folder: Path, **options: object) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.home.mkdir(parents=True)
        self.port = free_port()
        self.key = _key(folder / "key")
        self.host_key = _key(folder / "host_key")
        self.log = folder / "sshd.log"
        lines = {
            "ListenAddress": "127.0.0.1",
            "Port": self.port,
            "HostKey": self.host_key,
            "AuthorizedKeysFile": f"{self.key}.pub",
            "PidFile": "none",
            "StrictModes": "no",
            "UsePAM": "no",
            "UseDNS": "no",
            "PasswordAuthentication": "no",
            "LogLevel": "VERBOSE",
            "SetEnv": f"HOME={self.home} PATH=/usr/local/bin:/usr/bin:/bin",
            **options,
        }
        self.conf = folder / "sshd_config"
        self.conf.write_text("".join(f"{key} {value}\n" for key, value in lines.items()))
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        program = require("sshd", DEBIAN)
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)
        with self.log.open("ab") as log:
            argv = (program, "-D", "-e", "-f", str(self.conf))
            self.process = subprocess.Popen(argv, stderr=log, start_new_session=True)
        wait_for(self._answers, 20, "sshd's answer")

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self) -> None:
        """With everybody who is logged in."""
        if self.process is not None:
            for pid in (*_children(self.process.pid), self.process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, 9)
            self.process.wait()
            self.process = None

    def change_host_key(self) -> None:
        self.stop()
        self.host_key.unlink()
        _key(self.host_key)
        self.start()

    @property
    def public(self) -> str:
        return " ".join(self.host_key.with_suffix(".pub").read_text().split()[:2])

    def logins(self) -> int:
        return self.log.read_text().count("Accepted publickey")

    def machine(self, **changes: object) -> Machine:
        fields = {"id": "m1", "hostname": "127.0.0.1", "user": getpass.getuser(), "port": self.port, **changes}
        return Machine(**fields)  # type: ignore[arg-type]

    def host(self, settings: Settings, **changes: object) -> SshHost:
        """`changes` are the login's: another `port`, `host_key`, `key_file` …"""
        fields = {
            "machine": "m1",
            "hostname": "127.0.0.1",
            "port": self.port,
            "user": getpass.getuser(),
            "key_file": str(self.key),
            "host_key": self.public,
            **changes,
        }
        return SshHost(self.machine(), Login(**fields), lambda login: connect(login, settings))  # type: ignore[arg-type]


def _key(path: Path) -> Path:
    program = require("ssh-keygen", "apt-get install openssh-client")
    subprocess.run((program, "-q", "-t", "ed25519", "-N", "", "-f", str(path)), check=True, stdin=subprocess.DEVNULL)
    return path


def _children(pid: int) -> list[int]:
    done = subprocess.run(("ps", "-o", "pid=", "--ppid", str(pid)), capture_output=True, text=True, check=False)
    found = [int(word) for word in done.stdout.split()]
    return [*(each for child in found for each in _children(child)), *found]


@contextmanager
def running(folder: Path, **options: object) -> Iterator[Sshd]:
    sshd = Sshd(folder, **options)
    sshd.start()
    try:
        yield sshd
    finally:
        sshd.stop()


class Line:
    """A TCP line to `port` of this machine that can be cut, after so many bytes too. `sent` counts what went there."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.begun: list[float] = []  # when each connection was made
        self.sent = 0
        self.cut_after: int | None = None
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            self.begun.append(time.monotonic())
            far = socket.create_connection(("127.0.0.1", self._to))
            self._open += [near, far]
            threading.Thread(target=self._move, args=(near, far, True), daemon=True).start()
            threading.Thread(target=self._move, args=(far, near, False), daemon=True).start()

    def _move(self, source: socket.socket, target: socket.socket, counted: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self.sent += len(data) if counted else 0
                target.sendall(data)
                if self.cut_after is not None and self.sent > self.cut_after:
                    self.cut_after = None
                    self.cut()
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def cut(self) -> None:
        """Every connection there is now."""
        for end in self._open:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self._open.clear()

    def refuse(self) -> None:
        """No further connections."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def close(self) -> None:
        self.refuse()
        self.cut()
