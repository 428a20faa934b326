"""T3, T12, T14: what a unit gets over its port is never unpickled, never fetched from, and never too much, by either
server."""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import socket
import struct
import threading
import time
from collections.abc import Iterator, MutableMapping
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import Any

import joblib
import pytest
from sklearn.linear_model import LogisticRegression

from packer_lib.runtime import front
from packer_lib.runtime.predict import Refused
from packer_lib.runtime.room import Room
from tests.runtime.handmade import SERVERS, Service, model_step, running, write_bundle

pytestmark = pytest.mark.slow

TOKEN = "a-token-of-the-tests-own"
BEARER = {"authorization": f"Bearer {TOKEN}"}
PICKLES = ("application/vnd.bentoml+pickle", "application/x-pickle", "application/octet-stream")
ROUTES = (
    *("/", "/predict", "/predict?step=model", "/invocations", "/info", "/livez", "/readyz", "/metrics", "/docs.json"),
    *("/v2", "/v2/models/model", "/v2/models/model/infer", "/v2/models/plant/infer", "/v2/repository/index"),
    *("/v2/models/model/versions/1/infer", "/v2/repository/models/model/load", "/v2/repository/models/model/unload"),
    *("/model", "/proto", "/model/configuration", "/getBinary", "/getBinaryDefault", "/transformCSV"),
    *("/transformJSONDefault", "/model/methods/predict", "/modelrunner/model", "/modelrunner/transformCSVDefault"),
    *("/runner", "/Service", "/__main__", "/nowhere"),
)


@pytest.fixture(scope="module", params=SERVERS)
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A model behind REST that may be changed by who has the token; bodies up to 2 MiB."""
    folder = tmp_path_factory.mktemp("hostile")
    model = LogisticRegression().fit([[0.0], [1.0]], [0, 1])
    write_bundle(folder, model_step(folder, model))
    with running(folder, request.param, MLPACKER_MAX_BODY_MIB="2", MLPACKER_TOKEN=TOKEN) as started:
        yield started


class Evil:
    """A pickle that makes a file when it is loaded."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.canary}",)


def as_form(data: bytes, name: str) -> bytes:
    head = f'--b\r\nContent-Disposition: form-data; name="{name}"; filename="m"\r\n'
    return head.encode() + b"Content-Type: application/octet-stream\r\n\r\n" + data + b"\r\n--b--\r\n"


class TestPickles:
    @pytest.mark.parametrize("route", ROUTES)
    def test_are_refused_by_every_route_and_method(self, service: Service, route: str, tmp_path: Path) -> None:
        body = pickle.dumps(Evil(tmp_path / "canary"))
        for kind, method in product(PICKLES, ("POST", "PUT", "PATCH")):
            reply = service.ask(route, body, method, content_type=kind, **BEARER)
            binary = kind == "application/octet-stream" and reply.status == 400  # the binary tensors of OIP
            assert reply.status in {404, 405, 415} or binary, (kind, method, reply)
        assert not (tmp_path / "canary").exists()

    @pytest.mark.parametrize("route", ["/model", "/modelrunner/model", "/transformCSV", "/proto", "/getBinary"])
    def test_are_not_loaded_from_a_form_either(self, service: Service, route: str, tmp_path: Path) -> None:
        data = pickle.dumps(Evil(tmp_path / "canary"))
        method = "PUT" if route in {"/model", "/modelrunner/model", "/proto"} else "POST"
        for name in ("model", "proto", "csvFile"):
            reply = service.ask(
                route, as_form(data, name), method, content_type="multipart/form-data; boundary=b", **BEARER
            )
            assert 400 <= reply.status < 500 or reply.status == 501, reply
        time.sleep(0.5)  # what is put aside to be loaded later would be by now
        assert not (tmp_path / "canary").exists()
        assert service.predict([[1.0]]).status == 200

    def test_in_a_body_that_says_it_is_something_else_are_bad_input(self, service: Service, tmp_path: Path) -> None:
        data = pickle.dumps(Evil(tmp_path / "canary"))
        npy = b"\x93NUMPY\x01\x00" + struct.pack("<H", 118)
        npy += b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }".ljust(117) + b"\n"
        for kind in ("application/json", "text/csv", "application/x-npy"):
            assert 400 <= service.ask("/predict", data, content_type=kind).status < 500
        assert service.ask("/predict", npy + data, content_type="application/x-npy").status == 400
        joblib.dump(Evil(tmp_path / "canary"), tmp_path / "m")
        assert service.ask("/predict", (tmp_path / "m").read_bytes(), content_type="application/x-npy").status == 400
        assert not (tmp_path / "canary").exists()


class Trap:
    """A listening socket that counts who comes."""

    def __init__(self) -> None:
        self.came = 0
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port = self.listening.getsockname()[1]
        threading.Thread(target=self._count, daemon=True).start()

    def _count(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self.listening.accept()
                self.came += 1
                connection.close()


@pytest.fixture
def trap() -> Iterator[Trap]:
    made = Trap()
    with made.listening:
        yield made


class TestUrls:
    def test_in_a_request_are_never_fetched(self, service: Service, trap: Trap) -> None:
        url = f"http://127.0.0.1:{trap.port}/model.skops"
        places = {"uri": url, "url": url, "file": url, "model": url, "file:1/model.skops": url, "config": url}
        tensor = {"name": "x", "shape": [1, 1], "datatype": "FP64", "data": [1.0], "parameters": places}
        bodies = [
            {"data": [url]},
            {"data": [{"uri": url, "data": [1.0]}], "parameters": places},
            {"inputs": [tensor], "parameters": places, "outputs": [{"name": "y", "parameters": places}]},
            {"inputs": [{**tensor, "datatype": "BYTES", "data": [url]}]},
            {"dataframe_split": {"columns": [url], "data": [[url]]}},
            {"parameters": places, **places},
        ]
        for route in ROUTES:
            for method in ("POST", "PUT"):
                for body in bodies:
                    reply = service.ask(route, json.dumps(body).encode(), method, **BEARER)
                    assert reply.status < 500 or reply.status == 501, (route, method, body, reply)
        for route in ("/model", "/transformCSV", "/getBinary"):
            for name in ("model", "proto", "csvFile"):
                form = as_form(url.encode(), name)
                service.ask(route, form, "PUT", content_type="multipart/form-data; boundary=b", **BEARER)
                service.ask(route, form, "POST", content_type="multipart/form-data; boundary=b", **BEARER)
        assert trap.came == 0

    def test_in_headers_are_none_of_its_business(self, service: Service, trap: Trap) -> None:
        url = f"http://127.0.0.1:{trap.port}/"
        headers = ("x_forwarded_host", "x_original_url", "referer", "x_callback", "location", "forwarded", "origin")
        reply = service.ask("/predict", b'{"data": [[1.0]]}', **dict.fromkeys(headers, url))
        assert reply.status == 200
        assert trap.came == 0


def part(head: str, data: bytes = b"x") -> bytes:
    return f"--b\r\n{head}\r\n\r\n".encode() + data + b"\r\n"


FORM = "Content-Disposition: form-data"
NAMED = f'{FORM}; name="csvFile"'
END = b"--b--\r\n"
LONG = 1_500_000
FORMS = {
    "thousands of parts": b"".join(part(f'{FORM}; name="p{n}"', b"") for n in range(20_000)) + END,
    "the same part thousands of times": part(NAMED, b"") * 20_000 + END,
    "an endless header": b"--b\r\nX: " + b"y" * LONG,
    "an endless header name": b"--b\r\n" + b"y" * LONG,
    "thousands of headers": b"--b\r\n" + b"X: y\r\n" * 100_000 + b"\r\nx\r\n" + END,
    "a part without a name": part("Content-Disposition: form-data") + END,
    "a part without headers": b"--b\r\n\r\nx\r\n" + END,
    "an empty name": part('Content-Disposition: form-data; name=""') + END,
    "a form in a form": part(f"{NAMED}\r\nContent-Type: multipart/mixed; boundary=c", b"--c\r\n\r\nx\r\n--c--") + END,
    "a huge preamble": b"x" * LONG + b"\r\n" + part(NAMED) + END,
    "a preamble of line ends": b"\r\n" * (LONG // 2) + part(NAMED) + END,
    "a huge epilogue": part(NAMED) + END + b"x" * LONG,
    "an epilogue of line ends": part(NAMED) + END + b"\r\n" * (LONG // 2),
    "what is nearly a boundary": part(NAMED, b"\r\n--" * (LONG // 4)) + END,
    "dashes": b"-" * LONG,
    "no end": part(NAMED),
    "nothing": b"",
    "zeros": bytes(LONG),
    "many parameters": part(NAMED + "; a=b" * 700) + END,
    "open quotes": part('Content-Disposition: form-data; name="' + '\\"' * 1500) + END,
}
TYPES = {
    "a boundary that is too long": "multipart/form-data; boundary=" + "b" * 300,
    "an empty boundary": "multipart/form-data; boundary=",
    "no boundary": "multipart/form-data",
    "a quoted boundary without end": 'multipart/form-data; boundary="b',
    "semicolons": "multipart/form-data" + ";" * 8000,
    "many parameters": "multipart/form-data" + "; a=b" * 1500,
    "backslashes": 'multipart/form-data; boundary="' + "\\" * 8000,
}
SECONDS, GROWTH = 10.0, 256 << 20


def resident(service: Service) -> int:
    """Bytes that the service has in memory, all of its processes."""
    group, total = service.process.pid, 0
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if os.getpgid(int(place.name)) == group:
                total += int((place / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return total


class TestForms:
    @pytest.fixture(autouse=True)
    def bounded(self, service: Service) -> Iterator[None]:
        """What answers does so soon, in little memory, and goes on."""
        service.ask("/getBinaryDefault", part(NAMED) + END, content_type="multipart/form-data; boundary=b")
        before, began = resident(service), time.monotonic()
        yield
        assert time.monotonic() - began < SECONDS
        assert resident(service) - before < GROWTH
        assert service.predict([[1.0]]).json == {"predictions": [1]}

    @pytest.mark.parametrize("name", FORMS)
    def test_that_are_none_or_too_much_are_refused(self, service: Service, name: str) -> None:
        for route in ("/getBinaryDefault", "/modelrunner/transformCSV"):
            reply = service.ask(route, FORMS[name], content_type="multipart/form-data; boundary=b")
            assert 400 <= reply.status < 500, reply

    @pytest.mark.parametrize("name", TYPES)
    def test_of_no_sensible_type_are_refused(self, service: Service, name: str) -> None:
        body = part(NAMED) + END
        assert 400 <= service.ask("/getBinaryDefault", body, content_type=TYPES[name]).status < 500

    def test_over_the_limit_are_refused(self, service: Service) -> None:
        body = part(NAMED, bytes(3 << 20)) + END
        assert service.ask("/getBinaryDefault", body, content_type="multipart/form-data; boundary=b").status == 413

    @pytest.mark.parametrize("route", ["/predict", "/v2/models/model/infer", "/invocations", "/livez", "/docs.json"])
    def test_are_refused_where_no_form_is_declared(self, service: Service, route: str) -> None:
        body = FORMS["thousands of parts"]
        assert service.ask(route, body, content_type="multipart/form-data; boundary=b").status == 415


def test_headers_without_end_are_given_up(service: Service) -> None:
    """By the server in front of us: a connection is refused or closed, and others are answered."""
    host, port = service.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 10) as connection:
        connection.settimeout(10)
        with suppress(OSError):
            connection.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\n")
            for _ in range(64):
                connection.sendall(b"X-Y: " + b"z" * 65536 + b"\r\n")
        assert service.predict([[1.0]]).status == 200


def test_bodies_that_trickle_hold_nobody_up(service: Service) -> None:
    host, port = service.url.removeprefix("http://").split(":")
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"
    slow = [socket.create_connection((host, int(port)), 10) for _ in range(64)]
    try:
        for connection in slow:
            connection.sendall(head)
        began = time.monotonic()
        for _ in range(20):
            for connection in slow[:8]:
                connection.sendall(b" ")
            assert service.predict([[1.0]]).status == 200
        assert time.monotonic() - began < SECONDS
    finally:
        for connection in slow:
            connection.close()


def test_a_body_that_does_not_come_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front, "BODY_SECONDS", 0.2)

    async def trickle() -> MutableMapping[str, Any]:
        await asyncio.sleep(0.05)
        return {"type": "http.request", "body": b" ", "more_body": True}

    began = time.monotonic()
    with pytest.raises(Refused) as refused:
        asyncio.run(front.read_body(trickle, 1 << 20, Room(1 << 20)))
    assert refused.value.status == 408
    assert time.monotonic() - began < 2
