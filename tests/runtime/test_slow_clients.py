"""Clients that send or read slowly, by real sockets: they hold up nobody, and are told or dropped after a while."""

from __future__ import annotations

import json
import resource
import select
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.runtime.handmade import Service, code_step, running, write_bundle
from tests.support import beside, wait_for

pytestmark = pytest.mark.slow

MANY = 1000
LONG = 32 << 20
HEAD = b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
DRIBBLED = {
    "a body": (HEAD + b"content-length: 1000\r\n\r\n", b" "),
    "a head": (HEAD[:40], b"x"),
    "nothing": (b"", b""),
    "empty lines": (b"", b"\r\n"),
    "a body that nobody wants": (b"GET /livez HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n", b" "),
}
PATIENCE = """
import mlpacker_runtime.front as front, mlpacker_runtime.patience as patience
front.BODY_SECONDS = patience.HEAD_SECONDS = patience.READ_SECONDS = 3.0
def handler(value):
    return value * "x" if isinstance(value, int) else value
"""


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """Answers a number by a text so long; has less patience than usual."""
    write_bundle(tmp_path, code_step(tmp_path, "long", PATIENCE))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))  # the unit's; it is to ask for more itself
    try:
        with running(tmp_path, MLPACKER_MAX_BODY_MIB="1") as started:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            yield started
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def connect(service: Service) -> Iterator[Callable[[], socket.socket]]:
    host, port = service.url.removeprefix("http://").split(":")
    with ExitStack() as stack:
        yield lambda: stack.enter_context(socket.create_connection((host, int(port)), 10))


@pytest.mark.parametrize("what", DRIBBLED)
def test_a_thousand_who_dribble_keep_nobody_waiting_and_are_told(
    service: Service, connect: Callable[[], socket.socket], what: str
) -> None:
    start, more = DRIBBLED[what]
    slow = [connect() for _ in range(MANY)]
    for each in slow:
        each.sendall(start)

    def dribble(stop: object) -> None:
        while not stop.wait(1):  # type: ignore[attr-defined]
            for each in slow:
                try:
                    each.sendall(more)
                except OSError:
                    continue

    began = time.monotonic()
    with beside(dribble):
        took: list[float] = []
        while time.monotonic() - began < 2.5:
            asked = time.monotonic()
            assert service.predict(["on"]).status == 200
            took.append(time.monotonic() - asked)
        took.sort()
        assert took[len(took) // 2] < 0.25
        wait_for(lambda: all(over(each) for each in slow), 15, "each is closed")


@pytest.mark.parametrize("what", ["a body", "a head", "nothing"])
def test_who_is_too_slow_is_told_408(connect: Callable[[], socket.socket], what: str) -> None:
    line = connect()
    line.sendall(DRIBBLED[what][0])
    answer = whole(line)
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"connection: close" in answer
    assert "was not here within 3 s" in json.loads(answer.partition(b"\r\n\r\n")[2])["error"]


def test_a_kept_connection_may_rest_between_two_requests_but_not_within_one(
    connect: Callable[[], socket.socket],
) -> None:
    line = connect()
    ask = b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n"
    for pause in (5, 0):  # more than the patience with a head
        line.sendall(ask)
        answer = line.recv(65536)
        while not answer.endswith(b"}\n"):
            answer += line.recv(65536)
        assert answer.startswith(b"HTTP/1.1 200")
        time.sleep(pause)
    line.sendall(ask[:20])
    assert whole(line).startswith(b"HTTP/1.1 408")


def test_who_does_not_read_a_long_answer_is_dropped(service: Service, connect: Callable[[], socket.socket]) -> None:
    def ask() -> socket.socket:
        line = connect()
        body = b'{"data": [%d]}' % LONG
        line.sendall(HEAD + b"connection: close\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        return line

    idle, slow = ask(), ask()
    read, until = 0, time.monotonic() + 8
    while time.monotonic() < until:  # a little more than is asked for
        read += len(slow.recv(1 << 18))
        time.sleep(0.5)
    assert read + len(whole(slow)) > LONG
    assert len(whole(idle)) < LONG
    assert service.predict(["on"]).status == 200


def test_what_is_no_http_is_an_error_object(connect: Callable[[], socket.socket]) -> None:
    line = connect()
    line.sendall(b"hello\r\n\r\n")
    answer = whole(line)
    assert answer.startswith(b"HTTP/1.1 400")
    assert json.loads(answer.partition(b"\r\n\r\n")[2]).keys() == {"error"}


def over(line: socket.socket) -> bool:
    """Whether the other end has closed it; whatever it said is read."""
    while select.select([line], [], [], 0)[0]:
        try:
            if not line.recv(65536):
                return True
        except OSError:
            return True
    return False


def whole(line: socket.socket) -> bytes:
    """All that comes until it is closed, or cut."""
    said: list[bytes] = []
    with suppress(ConnectionResetError):
        while data := line.recv(65536):
            said.append(data)
    return b"".join(said)
