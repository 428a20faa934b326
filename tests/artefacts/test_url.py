"""Models by URL against a real HTTP server; and the addresses that nothing is ever asked of."""

from __future__ import annotations

import hashlib
import pickle
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from packer_lib import artefacts
from packer_lib.artefacts import Artefact, url
from packer_lib.artefacts.model import Unfit
from packer_lib.errors import BuildFailed, PolicyRefused
from tests.artefacts import cases
from tests.support import require

MODEL = pickle.dumps({"weights": [1, 2, 3]})
OPEN: dict[str, Any] = {"url_schemes": ("https", "http"), "private_urls": True}


class Server(ThreadingHTTPServer):
    """Counts connections. `/model` is the model, `/moved` redirects to it, `/short` ends early."""

    daemon_threads = True

    def __init__(self) -> None:
        self.connections = 0
        super().__init__(("127.0.0.1", 0), Handler)

    def get_request(self) -> tuple[socket.socket, Any]:
        self.connections += 1
        return super().get_request()

    def handle_error(self, *args: Any) -> None:
        """A client that goes away is what some tests are about."""


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        found = {"/model?version=1": (200, MODEL, 0), "/short": (200, MODEL, 10), "/moved": (302, b"", 0)}
        status, body, missing = found.get(self.path, (404, b"", 0))
        self.send_response(status)
        self.send_header("Location", "/model")
        self.send_header("Content-Length", str(len(body) + missing))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        """Quiet."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as serving:
        threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield serving
        serving.shutdown()


def fetch(folder: Path, address: str, sha256: str | None = None, **settings: Any) -> Artefact:
    plan = cases.plan(folder, cases.model(address, sha256=sha256))
    return artefacts.fetch(plan, plan.units[0], cases.settings(folder, **settings))[0]


def test_a_model_is_fetched_once_when_it_is_pinned(tmp_path: Path, server: Server) -> None:
    address = f"http://127.0.0.1:{server.server_port}/model?version=1"
    sha256 = hashlib.sha256(MODEL).hexdigest()
    first = fetch(tmp_path, address, sha256, **OPEN)
    assert first.path.read_bytes() == MODEL
    assert fetch(tmp_path, address, sha256, **OPEN) == first
    assert server.connections == 1


def test_another_digest_a_redirect_a_short_answer_and_a_missing_file_are_failures(
    tmp_path: Path, server: Server
) -> None:
    base = f"http://127.0.0.1:{server.server_port}"
    with pytest.raises(BuildFailed, match="the PADL says"):
        fetch(tmp_path, f"{base}/model?version=1", "0" * 64, **OPEN)
    with pytest.raises(BuildFailed, match="302") as moved:
        fetch(tmp_path, f"{base}/moved", **OPEN)
    assert "redirects are not followed" in moved.value.hint
    with pytest.raises(BuildFailed, match="10 bytes early"):
        fetch(tmp_path, f"{base}/short", **OPEN)
    with pytest.raises(BuildFailed, match="answered 404"):
        fetch(tmp_path, f"{base}/gone", **OPEN)


LOOPBACK = [
    "127.0.0.1",
    "localhost",
    "2130706433",
    "0x7f000001",
    "127.1",
    "[::1]",
    "[::]",
    "0.0.0.0",
    "[::ffff:127.0.0.1]",
]
PRIVATE = [
    "169.254.169.254",
    "10.0.0.1",
    "192.168.1.1",
    "172.16.0.1",
    "100.64.0.1",
    "[fe80::1]",
    "[fd00::1]",
    "224.0.0.1",
]


@pytest.mark.parametrize("host", [*LOOPBACK, *PRIVATE])
def test_private_addresses_are_refused_before_anything_is_sent(tmp_path: Path, server: Server, host: str) -> None:
    with pytest.raises((PolicyRefused, BuildFailed)):
        fetch(tmp_path, f"http://{host}:{server.server_port}/model", url_schemes=("http",))
    assert server.connections == 0


def test_a_name_with_one_private_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(0, 0, 0, "", ("93.184.216.34", 443)), (0, 0, 0, "", ("10.0.0.7", 443))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: found)
    with (
        pytest.raises(Unfit, match=r"is the private address 10\.0\.0\.7"),
        url.opened("https://x.example/m", ("https",), False),
    ):
        pass


def test_a_name_is_looked_up_once_so_that_its_second_answer_does_not_matter(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    real = socket.getaddrinfo

    def rebinding(host: str, *args: Any, **options: Any) -> Any:
        asked.append(host)
        return real("127.0.0.1" if host == "x.example" else host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    with url.opened(f"http://x.example:{server.server_port}/model?version=1", ("http",), True) as body:
        assert body.read(1000) == MODEL
    assert asked.count("x.example") == 1


@pytest.mark.parametrize(
    "address",
    [
        "ftp://host.example/m",
        "file:///etc/passwd",
        "gopher://x",
        "http://host.example/m",
        "https://user:pw@host.example/m",
    ],
)
def test_other_schemes_and_credentials_are_refused(tmp_path: Path, address: str) -> None:
    plan = cases.plan(tmp_path, cases.model(address))
    (problem,) = artefacts.check(plan, cases.settings(tmp_path))
    assert problem.level == "refused"
    assert "pw" not in problem.message


@pytest.mark.parametrize(
    "address", ["https://", "https://host.example:x/", "https://a b/", "https://h/\r\nX: y", "https://[x/"]
)
def test_what_is_no_url_is_an_error(tmp_path: Path, address: str) -> None:
    (problem,) = artefacts.check(cases.plan(tmp_path, cases.model(address)), cases.settings(tmp_path))
    assert problem.level == "error"


def test_strict_mode_wants_a_digest_for_what_comes_from_elsewhere(tmp_path: Path) -> None:
    step = cases.model("https://host.example/m.skops", "skops")
    assert artefacts.check(cases.plan(tmp_path, step), cases.settings(tmp_path, strict=True))[0].level == "refused"


def test_a_certificate_is_checked_against_the_name(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    require("openssl", "apt-get install openssl")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    argv = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-days", "2"]
    argv += ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(argv, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    address = f"https://{{}}:{server.server_port}/model?version=1"
    with pytest.raises(BuildFailed, match="CERTIFICATE_VERIFY_FAILED"):
        fetch(tmp_path, address.format("127.0.0.1"), private_urls=True)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with pytest.raises(BuildFailed, match="CERTIFICATE_VERIFY_FAILED"):
        fetch(tmp_path, address.format("127.0.0.1"), private_urls=True)
    assert fetch(tmp_path, address.format("localhost"), private_urls=True).path.read_bytes() == MODEL
