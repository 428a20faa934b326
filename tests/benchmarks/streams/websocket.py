"""WebSocket → WebSocket beside a bare echo of the websockets library.

Frames are made beforehand and written to the socket many at a time, and what comes back is counted by its bytes, so
that who asks costs less than who answers.
"""

from __future__ import annotations

import base64
import json
import os
import socket
import struct
import sys
import threading
import time
from pathlib import Path

from tests.benchmarks.common import PEERS, train
from tests.benchmarks.streams.common import Found, medians, our_bundle, queue, running, unit_running
from tests.support import free_port, wait_for

COUNT = 60_000
AT_ONCE = 200  # frames of one write


def measure(folder: Path, rounds: int) -> Found:
    """Frames per second of both."""
    model, row = train(folder)
    payload = json.dumps(row).encode()
    rates = medians(
        {
            "websocket_bare_echo": lambda: bare(folder, payload),
            "websocket_ours": lambda: ours(folder, payload, model),
        },
        rounds,
    )
    return Found(rates, {"websocket_vs_bare_echo": rates["websocket_ours"] / rates["websocket_bare_echo"]})


def bare(folder: Path, payload: bytes) -> float:
    port = free_port()
    with running([sys.executable, str(PEERS / "websocket_echo.py"), str(port)], folder):
        connection = dialled(port, "/")
        return through(connection, connection, payload, header(payload) + len(payload))


def ours(folder: Path, payload: bytes, model: Path) -> float:
    ports = {"in": free_port(), "out": free_port()}
    ends = (queue("websocket", "127.0.0.1", port, topic, role="server") for topic, port in ports.items())
    with unit_running(our_bundle(folder, model, *ends), folder):
        return through(dialled(ports["in"], "/in"), dialled(ports["out"], "/out"), payload, 3)  # a frame of one digit


def through(into: socket.socket, out: socket.socket, payload: bytes, answer: int) -> float:
    """Answers per second, between the tenth and the ninetieth hundredth of `COUNT`; each is `answer` bytes."""
    frames = frame(payload) * AT_ONCE
    times: list[tuple[int, float]] = []

    def read() -> None:
        seen = 0
        while seen < COUNT * answer and (found := out.recv(1 << 16)):
            seen += len(found)
            times.append((seen // answer, time.monotonic()))

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    for _ in range(COUNT // AT_ONCE):
        into.sendall(frames)
    reader.join(240)
    into.close()
    out.close()
    low = next(item for item in times if item[0] >= COUNT // 10)
    high = next(item for item in times if item[0] >= COUNT * 9 // 10)
    return (high[0] - low[0]) / (high[1] - low[1])


def dialled(port: int, path: str) -> socket.socket:
    """A connection after its handshake (RFC 6455, section 4.1)."""
    connection: socket.socket = wait_for(lambda: _try(port), 30, f"something listens at {port}")
    key = base64.b64encode(os.urandom(16)).decode()
    lines = (f"GET {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", "Upgrade: websocket", "Connection: Upgrade")
    more = (f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13")
    connection.sendall(("\r\n".join((*lines, *more)) + "\r\n\r\n").encode())
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        answer += connection.recv(1)
    assert answer.startswith(b"HTTP/1.1 101"), answer
    return connection


def _try(port: int) -> socket.socket | None:
    try:
        return socket.create_connection(("127.0.0.1", port))
    except OSError:
        return None


def header(payload: bytes) -> int:
    """Bytes before the payload of a frame that is not masked."""
    return 2 if len(payload) < 126 else 4


def frame(payload: bytes) -> bytes:
    """A text frame as a client sends it; the mask of zeros changes nothing (section 5.3)."""
    size = len(payload)
    length = struct.pack("!BB", 0x81, 0x80 | size) if size < 126 else struct.pack("!BBH", 0x81, 0x80 | 126, size)
    return length + bytes(4) + payload
