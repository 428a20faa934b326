"""The second port of a door: what comes there is at the current release's own, whichever that is by then."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from packer_lib.runtime.door.passage import Passage
from packer_lib.runtime.door.place import write_current
from tests.support import free_port

LARGE = b"x" * (3 << 20)


def unit(host: str, port: int, stack: ExitStack) -> None:
    """Answers with its own address and the length of what it was sent."""

    class Says(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(f"{host} {len(body)}".encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer((host, port), Says)
    thread = Thread(target=server.serve_forever)
    thread.start()
    stack.callback(thread.join)
    stack.callback(server.server_close)
    stack.callback(server.shutdown)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


def put(port: int) -> str:
    with urlopen(Request(f"http://127.0.0.1:{port}/", LARGE, method="PUT"), timeout=10) as response:
        said: str = response.read().decode()
    return said


def test_it_leads_to_whichever_release_is_current(tmp_path: Path, stack: ExitStack) -> None:
    own, second = free_port(), free_port()
    Passage(str(tmp_path), "127.0.0.1", second, f"127.0.0.{{}}:{own}")
    with pytest.raises(HTTPError, match="503"):
        put(second)
    for number in ("2", "3"):
        unit(f"127.0.0.{number}", own, stack)
        write_current(str(tmp_path), number)
        assert put(second) == f"127.0.0.{number} {len(LARGE)}"


def test_who_says_nothing_and_goes_holds_up_nobody(tmp_path: Path, stack: ExitStack) -> None:
    own, second = free_port(), free_port()
    Passage(str(tmp_path), "127.0.0.1", second, f"127.0.0.{{}}:{own}")
    unit("127.0.0.2", own, stack)
    write_current(str(tmp_path), "2")
    for _ in range(100):
        socket.create_connection(("127.0.0.1", second), 10).close()
    assert put(second) == f"127.0.0.2 {len(LARGE)}"
