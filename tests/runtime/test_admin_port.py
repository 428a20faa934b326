"""The admin port: there only when it is asked for, for nobody without the token, and nowhere else.

Held against T11 of the threats that this project looks at: management surfaces that anybody can reach.
"""

from __future__ import annotations

import asyncio
import http.client
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from packer_lib.runtime.admin import port as admin_port
from packer_lib.runtime.admin.port import AdminPort
from packer_lib.runtime.contract import MODEL
from packer_lib.runtime.front import Leaving
from tests.runtime.administering import BINARY, TOKEN, VERSIONS, Unit, administered, bundle, safe
from tests.runtime.handmade import end, running, start
from tests.runtime.swapping import line
from tests.support import free_port

pytestmark = pytest.mark.slow

ROUTES = [
    ("GET", "/admin/models"),
    ("GET", "/admin/models/model/shadow"),
    *(("POST", f"/admin/models/model/{action}") for action in ("promote", "discard", "shadow")),
    ("POST", "/v2/repository/index"),
    *(("POST", f"/v2/repository/models/model/{action}") for action in ("load", "unload")),
    ("PUT", VERSIONS),
    *(
        (verb, prefix + path)
        for prefix in ("", "/modelrunner")
        for verb, path in [
            ("PUT", "/model"),
            ("PUT", "/proto"),
            ("PUT", "/model/configuration"),
            ("POST", "/transformCSV"),
            ("POST", "/transformJSON"),
        ]
    ),
]
NOWHERE = [("GET", "/"), ("GET", "/no/such"), ("DELETE", "/admin/models"), ("POST", "/predict"), ("GET", "/metrics")]


def listening(process: int) -> set[int]:
    """The TCP ports that the process, and its children, listen on, as the kernel has them."""
    own = [process, *(int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split())]
    links = [link for each in own for link in Path(f"/proc/{each}/fd").iterdir() if link.is_symlink()]
    sockets = {str(link.readlink()).removeprefix("socket:[").removesuffix("]") for link in links}
    found = set()
    for table in ("tcp", "tcp6"):
        for row in Path(f"/proc/{process}/net/{table}").read_text().splitlines()[1:]:
            fields = row.split()
            if fields[3] == "0A" and fields[9] in sockets:
                found.add(int(fields[1].rpartition(":")[2], 16))
    return found


@pytest.fixture(scope="module")
def unit(tmp_path_factory: pytest.TempPathFactory) -> Unit:  # type: ignore[misc]
    """One that no test here changes."""
    folder = tmp_path_factory.mktemp("unit")
    bundle(folder)
    with administered(folder, MLPACKER_MAX_BODY_MIB="1") as started:
        yield started


def test_nothing_listens_but_what_is_declared(unit: Unit, tmp_path: Path) -> None:
    public = int(unit.service.url.rpartition(":")[2])
    assert listening(unit.service.process.pid) == {public, unit.port}
    bundle(tmp_path)
    with running(tmp_path, MLPACKER_TOKEN=TOKEN) as service:
        assert listening(service.process.pid) == {int(service.url.rpartition(":")[2])}


def test_it_listens_on_this_machine_only(unit: Unit) -> None:
    rows = [row.split()[1] for row in Path(f"/proc/{unit.service.process.pid}/net/tcp").read_text().splitlines()[1:]]
    (address,) = (row.partition(":")[0] for row in rows if row.endswith(f":{unit.port:04X}"))
    assert address == "0100007F"


@pytest.mark.parametrize("authorization", [None, "", "Bearer", "Bearer ", f"Basic {TOKEN}", f"Bearer {TOKEN}x", TOKEN])
def test_nobody_gets_past_it_without_the_token(unit: Unit, authorization: str | None) -> None:
    headers = {} if authorization is None else {"authorization": authorization}
    before = unit.files()
    answers = set()
    with ThreadPoolExecutor(8) as clients:

        def ask(route: tuple[str, str]) -> tuple[int, str | None, bytes]:
            connection = http.client.HTTPConnection("127.0.0.1", unit.port, timeout=30)
            connection.request(route[0], route[1], headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.headers["www-authenticate"], answer.read()

        answers = set(clients.map(ask, [*ROUTES, *NOWHERE]))
    assert len(answers) == 1, answers  # what is not there is refused as what is there
    ((status, wanted, _),) = answers
    assert (status, str(wanted).partition(" ")[0]) == (401, "Bearer")
    assert unit.files() == before


def test_whoever_has_it_is_told_what_is_there(unit: Unit) -> None:
    assert unit.admin("/no/such").status == 404
    assert unit.admin("/predict", b'{"data": [[1]]}').status == 404
    assert unit.admin("/admin/models").status == 200
    assert unit.admin("/admin/models", b"", "DELETE").status == 405
    assert unit.admin("/admin/models", authorization=f"bearer {TOKEN}").status == 200
    assert unit.post("/v2/repository/models/nobody/load").status == 404
    assert unit.post("/admin/models/model/promote").json["error"].startswith("step 'model' has no version 'candidate'")
    assert unit.admin("/admin/models/model/promote?wait=0", b"{}").status == 400
    assert unit.admin("/admin/models/model/shadow", b'{"share": 2}').status == 400


def test_guessing_is_slow_and_keeps_nobody_else_out(unit: Unit) -> None:
    started = time.monotonic()
    with ThreadPoolExecutor(10) as clients:
        guesses = [clients.submit(unit.admin, "/admin/models", authorization=f"Bearer {n}") for n in range(10)]
        time.sleep(0.2)
        asked = time.monotonic()
        assert unit.admin("/admin/models").status == 200
        assert time.monotonic() - asked < 1
        assert {guess.result().status for guess in guesses} == {401}
    assert time.monotonic() - started >= 2


def test_bodies_have_the_limits_of_the_public_port(unit: Unit) -> None:
    large = b'{"x": "' + b"x" * (1 << 20) + b'"}'
    assert unit.admin("/v2/repository/models/model/load", large).status == 413
    assert unit.admin("/v2/repository/models/model/load", b"[]").status == 400
    assert unit.admin("/v2/repository/models/model/load", b"{").status == 400
    assert unit.admin("/v2/repository/models/model/load", b"{}", content_type="text/plain").status == 415
    assert unit.admin("/v2/repository/models/model/load", b"{}", content_encoding="gzip").status == 415
    assert unit.admin(VERSIONS, b"x", "PUT", content_type="application/vnd.bentoml+pickle").status == 415


def test_the_public_port_changes_nothing_and_says_where(unit: Unit) -> None:
    model = safe(line(7))
    for path in (*(route[1] for route in ROUTES), "/v2/repository/models/model"):
        for method in ("PUT", "POST", "DELETE"):
            headers = {"authorization": f"Bearer {TOKEN}", "content_type": BINARY}
            reply = unit.service.ask(path, model, method, **headers)
            assert reply.status in (400, 404, 405, 415, 422), (method, path, reply.status)
    for action in ("load", "unload"):
        reply = unit.service.ask(f"/v2/repository/models/model/{action}", b"{}")
        assert (reply.status, "MLPACKER_ADMIN_PORT" in reply.json["error"]) == (400, True)
    assert (unit.said(), unit.files()) == (1, [])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"MLPACKER_ADMIN_PORT": "1"}, "MLPACKER_ADMIN_PORT is set, and not MLPACKER_TOKEN"),
        ({"MLPACKER_ADMIN_PORT": "1", "MLPACKER_TOKEN": "short"}, "is 5 characters long; make it 16"),
        ({"MLPACKER_TOKEN": "short"}, "is 5 characters long; make it 16"),
        ({"MLPACKER_TOKEN": "with blanks and more"}, "other characters"),
        ({"MLPACKER_ADMIN_PORT": "1", "MLPACKER_WORKERS": "2"}, "and not MLPACKER_TOKEN"),
    ],
)
def test_what_cannot_be_meant_is_said_at_the_start(tmp_path: Path, settings: dict[str, str], said: str) -> None:
    bundle(tmp_path)
    service = start(tmp_path, **settings)
    try:
        assert service.process.wait(30) == 1
        log = service.log.read_text()
        assert said in log
        assert settings.get("MLPACKER_TOKEN", "nothing") not in log
    finally:
        end(service)


def test_a_port_that_is_somebody_elses_is_said_at_the_start(tmp_path: Path) -> None:
    bundle(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        service = start(tmp_path, MLPACKER_ADMIN_PORT=port, MLPACKER_TOKEN=TOKEN)
        try:
            assert service.process.wait(30) == 1
            assert f"cannot listen on 127.0.0.1:{port}" in service.log.read_text()
        finally:
            end(service)


def test_who_takes_over_has_it_as_soon_as_the_other_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin_port, "AGAIN_SECONDS", 0.01)
    number = free_port()

    async def listen(_app: Any, bound: socket.socket) -> asyncio.AbstractServer:
        return await asyncio.start_server(lambda _reader, writer: writer.close(), sock=bound)

    async def reachable() -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", number)
        except OSError:
            return False
        writer.close()
        return True

    async def both() -> None:
        former, latter = Leaving(), Leaving()
        ports = [AdminPort(None, "127.0.0.1", number, leaving) for leaving in (former, latter)]
        for port in ports * 3:
            await port.look(listen)
        assert [port.listens for port in ports] == [True, False]
        former.now = True
        await ports[0].look(listen)
        assert not await reachable()
        await asyncio.sleep(0.02)
        await ports[1].look(listen)
        assert await reachable()
        former.now, latter.now = False, True  # and back
        await ports[1].look(listen)
        await asyncio.sleep(0.02)
        await ports[0].look(listen)
        assert [port.listens for port in ports] == [True, False]
        ports[0].close()
        assert not await reachable()

    asyncio.run(both())


def test_bentoml_serve_has_none(tmp_path: Path) -> None:
    bundle(tmp_path)
    port = free_port()
    with running(tmp_path, "bentoml", MLPACKER_ADMIN_PORT=str(port), MLPACKER_TOKEN=TOKEN) as service:
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.1", port))
        assert service.predict([[1]]).headers[MODEL]
        assert "no admin port under `bentoml serve`" in service.log.read_text()
