"""The file that every machine gets: run as it is run there, alone and isolated."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from packer_lib import commands
from tests.support import ROOT, free_port

FILE = str(ROOT / "packer_lib" / "hosts" / "toolbox.py")


def toolbox(*words: str, body: str = "") -> Any:
    done = subprocess.run(
        commands.toolbox(sys.executable, FILE, *words),
        input=body,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    return json.loads(done.stdout)


def test_a_free_port_is_free() -> None:
    assert toolbox("port", "127.0.0.1", str(free_port())) == {"free": True, "pid": 0, "command": "", "program": ""}


def test_a_taken_port_has_a_holder() -> None:
    with socket.socket() as mine:
        mine.bind(("127.0.0.1", 0))
        mine.listen()
        said = toolbox("port", "127.0.0.1", str(mine.getsockname()[1]))
    assert (said["free"], said["pid"], said["program"]) == (False, os.getpid(), "")
    assert "pytest" in said["command"]


def test_a_free_port_is_searched_from_the_first_on_and_skips_what_is_promised(tmp_path: Path) -> None:
    with socket.socket() as mine:
        mine.bind(("127.0.0.1", 0))
        mine.listen()
        first = mine.getsockname()[1]
        promised = tmp_path / "releases/p/u/history/r/release.json"
        promised.parent.mkdir(parents=True)
        promised.write_text(json.dumps({"port": first + 1}))
        found = toolbox("free", "127.0.0.1", str(first), str(tmp_path))["port"]
    assert found > first + 1


@pytest.fixture
def url() -> Iterator[str]:
    class Echo(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(503)
            self.end_headers()
            self.wfile.write(b'{"reason": "loading"}')

        def do_POST(self) -> None:
            self.send_response(200)
            self.end_headers()
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.wfile.write(self.headers["Authorization"].encode() if self.path.endswith("?key") else body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/x"
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_request_carries_its_body(url: str) -> None:
    assert toolbox("http", "POST", url, "5", body=json.dumps({"body": '{"ü": 1}', "key": ""})) == {
        "status": 200,
        "body": '{"ü": 1}',
    }


def test_a_key_is_a_header_and_in_nobody_s_argv(url: str) -> None:
    told = {"body": "{}", "key": "hunter2"}
    assert toolbox("http", "POST", f"{url}?key", "5", body=json.dumps(told))["body"] == "Bearer hunter2"


def test_waiting_ends_with_the_last_answer(url: str) -> None:
    assert toolbox("ready", url, "0.2") == {"status": 503, "body": '{"reason": "loading"}'}


def test_nobody_there_is_an_answer_too() -> None:
    said = toolbox("ready", f"http://127.0.0.1:{free_port()}/readyz", "0.2")
    assert said["status"] == 0
    assert "refused" in said["body"]


def test_a_unit_is_launched_with_any_environment(tmp_path: Path) -> None:
    values = {"PLAIN": "x", "NASTY": "%(a)s \"b\" 'c' ; # d\n\t\\ ü €", "EMPTY": ""}
    script = "import json, os; print(json.dumps({'cwd': os.getcwd(), **os.environ}))"
    file = tmp_path / "launch.json"
    file.write_text(json.dumps({"argv": [sys.executable, "-c", script], "cwd": str(tmp_path), "env": values}))
    said = toolbox("launch", str(file))
    assert {name: said[name] for name in values} == values
    assert said["cwd"] == str(tmp_path)
