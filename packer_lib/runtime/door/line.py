"""The Unix socket between a door and those who come to it: JSON lines, with sockets beside them."""

# ruff: noqa: PTH118  pathlib would double the start time
from __future__ import annotations

import errno
import json
import os
import socket
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LARGEST = 1 << 16
CREDENTIALS = struct.Struct("3i")  # pid, uid, gid, see unix(7)


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
