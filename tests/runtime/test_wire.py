"""The short way of a request that arrives whole, beside the usual one: the same answers, whatever way bytes come."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from tests.runtime.handmade import Service, model_step, running, write_bundle
from tests.runtime.swapping import line

pytestmark = pytest.mark.slow

LONG = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n"  # what only the usual way reads


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("wire")
    write_bundle(folder, model_step(folder, line(0)))
    with running(folder) as ready:
        yield ready


def request(body: bytes, more: str = "", version: str = "1.1") -> bytes:
    head = f"POST /predict HTTP/{version}\r\nhost: x\r\ncontent-type: application/json\r\n{more}"
    return head.encode() + b"content-length: %d\r\n\r\n" % len(body) + body


def data(*rows: object) -> bytes:
    return json.dumps({"data": rows}).encode()


class Connection:
    def __init__(self, service: Service) -> None:
        self._socket = socket.create_connection(("127.0.0.1", urlsplit(service.url).port or 0), 20)
        self._read = b""

    def send(self, *parts: bytes) -> None:
        """Each a packet of its own."""
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for part in parts:
            self._socket.sendall(part)

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        """The next one on it: status, headers but the date, body."""
        while b"\r\n\r\n" not in self._read:
            self._more()
        head, _, self._read = self._read.partition(b"\r\n\r\n")
        status, *lines = head.decode().split("\r\n")
        headers = dict(each.split(": ", 1) for each in lines)
        while len(self._read) < int(headers["content-length"]):
            self._more()
        body, self._read = self._read[: int(headers["content-length"])], self._read[int(headers["content-length"]) :]
        assert re.search("GMT$", headers.pop("date"))
        return int(status.split()[1]), headers, body

    def ended(self) -> bool:
        return not self._read and self._socket.recv(1) == b""

    def close(self) -> None:
        self._socket.close()

    def _more(self) -> None:
        data = self._socket.recv(65536)
        assert data, "closed without an answer"
        self._read += data


@pytest.fixture
def connection(service: Service) -> Iterator[Connection]:
    made = Connection(service)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (data([1], [2]), 200),
        (data(), 200),
        (data([1], ["x"], [3, 4]), 400),
        (data(None), 400),
        (b'{"data": 1}', 400),
        (b"[1]", 400),
        (b"{", 400),
        (b"", 400),
    ],
)
def test_either_way_the_answer_is_the_same(connection: Connection, body: bytes, status: int) -> None:
    connection.send(request(body))
    short = connection.answer()
    connection.send(request(body, LONG))
    usual = connection.answer()
    assert short[0] == status
    trace = " (trace 0af7651916cd43dd8448eb211c80319c)"
    assert (short[0], short[1], short[2]) == (usual[0], usual[1], usual[2].replace(trace.encode(), b""))


def test_a_request_may_come_in_pieces(connection: Connection) -> None:
    whole = request(data([1]))
    for cut in (1, 30, len(whole) - 3):
        connection.send(whole[:cut])
        connection.send(whole[cut:])
        assert connection.answer()[2] == b'{"predictions":[1.0]}'
    connection.send(*(whole[place : place + 1] for place in range(len(whole))))
    assert connection.answer()[2] == b'{"predictions":[1.0]}'


def test_requests_that_do_not_wait_for_answers_get_them_in_their_order(connection: Connection) -> None:
    usual = {4, 5, 9}
    connection.send(b"".join(request(data([number]), LONG if number in usual else "") for number in range(20)))
    assert [json.loads(connection.answer()[2])["predictions"] for _ in range(20)] == [[number] for number in range(20)]
    connection.send(request(data([7])) + b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n" + request(data([8])))
    assert [connection.answer()[0] for _ in range(3)] == [200, 200, 200]


@pytest.mark.parametrize(("more", "version"), [("connection: close\r\n", "1.1"), ("", "1.0")])
def test_a_connection_that_is_not_kept_ends_with_its_answer(connection: Connection, more: str, version: str) -> None:
    connection.send(request(data([1]), more, version))
    status, headers, _ = connection.answer()
    assert (status, headers["connection"]) == (200, "close")
    assert connection.ended()


def test_who_asks_whether_to_go_on_is_told(connection: Connection) -> None:
    head, body = request(data([1]), "expect: 100-continue\r\n").split(b"\r\n\r\n")
    connection.send(head + b"\r\n\r\n")
    assert connection._socket.recv(1024) == b"HTTP/1.1 100 Continue\r\n\r\n"
    connection.send(body)
    assert connection.answer()[0] == 200


def test_a_body_in_chunks_and_one_under_a_charset(connection: Connection) -> None:
    head = b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    connection.send(
        head + b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (b'{"data"', b": [[3]]}")) + b"0\r\n\r\n"
    )
    assert connection.answer()[2] == b'{"predictions":[3.0]}'
    connection.send(request(data([4])).replace(b"application/json", b"application/json; charset=utf-8"))
    assert connection.answer()[2] == b'{"predictions":[4.0]}'


def test_what_is_no_http_after_a_request_ends_the_connection(connection: Connection) -> None:
    connection.send(request(data([1])), b"\x00\x01 nothing\r\n\r\n")
    assert connection.answer()[0] in (200, 400)


def test_clients_that_leave_are_not_answered_and_do_no_harm(service: Service) -> None:
    for number in range(50):
        gone = Connection(service)
        gone.send(request(data([number])))
        gone.close()
    assert service.predict([[1]]).json == {"predictions": [1]}
    assert "Traceback" not in service.log.read_text()


def test_both_ways_are_counted(service: Service, connection: Connection) -> None:
    names = ("mlpacker_messages_in_total", "mlpacker_messages_out_total", "mlpacker_end_to_end_seconds_count")

    def counted() -> list[float]:
        text = service.ask("/metrics").body.decode()
        found = [re.search(rf"^{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE) for name in names]
        return [float(each[1]) if each else 0 for each in found]

    before = counted()
    for more in ("", LONG):
        connection.send(request(data([1], [2]), more))
        assert connection.answer()[0] == 200
    assert [now - then for now, then in zip(counted(), before, strict=True)] == [4, 4, 2]
    assert "mlpacker_in_flight 0.0" in service.ask("/metrics").body.decode()
