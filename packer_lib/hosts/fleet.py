"""The machines of a plan: each connected at its first use, once, for as long as the fleet is open."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from packer_lib import secrets
from packer_lib.hosts import Host
from packer_lib.hosts.connect import Connect, connect
from packer_lib.hosts.local import LocalHost
from packer_lib.hosts.ssh import SshHost
from packer_lib.padl.model import Machine
from packer_lib.settings import Settings

if TYPE_CHECKING:
    import paramiko


class Fleet:
    """`fleet[None]` is this machine, `fleet["m1"]` the one of that id in the PADL file. Threads may share a fleet.

    `text` is the PADL file's, or its path: a literal password is read there. `connect` makes a connection of a login.
    """

    def __init__(
        self,
        machines: Sequence[Machine],
        settings: Settings,
        text: Path | str | None = None,
        *,
        connect: Connect | None = None,
    ) -> None:
        self._machines = {machine.id: machine for machine in machines}
        self._settings = settings
        self._text = text
        self._connect = connect or self._directly
        self._hosts: dict[str | None, Host] = {}
        self._making = threading.Lock()

    def __getitem__(self, machine: str | None) -> Host:
        """`PolicyRefused` and `DeployFailed` as `secrets.login`; a machine is connected when it is first asked."""
        with self._making:
            if machine not in self._hosts:
                self._hosts[machine] = LocalHost(self._settings) if machine is None else self._remote(machine)
            return self._hosts[machine]

    def _remote(self, machine: str) -> SshHost:
        entry = self._machines[machine]
        return SshHost(entry, secrets.login(entry, self._text, self._settings), self._connect)

    def _directly(self, login: secrets.Login) -> paramiko.SSHClient:
        return connect(login, self._settings)

    def close(self) -> None:
        with self._making:
            for host in self._hosts.values():
                host.close()
            self._hosts.clear()

    def __enter__(self) -> Fleet:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
