"""Models that are sent to a running unit: those that may, come live beside the traffic; of all others nothing stays."""

from __future__ import annotations

import base64
import http.client
import json
import pickle
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import joblib
import pytest
from uv import find_uv_bin

from packer_lib.runtime.contract import MODEL
from tests.runtime.administering import TOKEN, VERSIONS, Unit, administered, bundle, load_slowly, safe, slow
from tests.runtime.swapping import APART, line
from tests.runtime.test_oip import TRITONCLIENT
from tests.runtime.test_swap_rest import asked
from tests.support import ROOT, missing, wait_for

pytestmark = pytest.mark.slow

CLIENT = ROOT / "tests/clients/triton_repository.py"
INDEX, LOAD, UNLOAD = (f"/v2/repository/{rest}" for rest in ("index", "models/model/load", "models/model/unload"))


@pytest.fixture
def unit(tmp_path: Path) -> Iterator[Unit]:
    bundle(tmp_path)
    with administered(tmp_path) as started:
        yield started


def test_an_upload_is_live_within_two_seconds_and_no_request_fails(unit: Unit) -> None:
    time.sleep(1)  # what a first upload needs is imported
    took: list[float] = []
    with asked(unit.service) as load:
        time.sleep(1)
        for number in range(1, 6):
            begun = time.monotonic()
            reply = unit.put(safe(line(number)))
            took.append(time.monotonic() - begun)
            assert (reply.status, reply.json["number"], reply.json["label"]) == (200, number + 1, "stable"), reply.body
            assert unit.said() == 1 + number * APART  # from the answer on
            time.sleep(0.2)
    print(f"\n{len(load.answers)} requests, 0 failed; live after {', '.join(f'{each:.2f}' for each in took)} s")
    assert not load.wrong, load.wrong[:5]
    assert {version for version, _, _, _ in load.answers} == set(range(6))
    assert sorted(took)[2] < 2
    assert unit.files() == [f"models/model/{reply.json['sha256']}/model.skops"]


def test_what_may_not_come_is_refused_and_leaves_nothing(unit: Unit, tmp_path: Path) -> None:
    canary = tmp_path / "canary"

    class Hostile:
        def __reduce__(self) -> Any:
            return Path.touch, (canary,)

    joblib.dump(Hostile(), tmp_path / "hostile.joblib")
    good = safe(line(1))
    for data, query, said in [
        (pickle.dumps(Hostile()), "", "can run code of its author"),
        ((tmp_path / "hostile.joblib").read_bytes(), "", "can run code of its author"),
        (pickle.dumps(Hostile()), "?serializer=skops", "can run code of its author"),
        (good[:-30], "", "damaged"),
        (b"", "", "damaged"),
        (b"<html>", "", "none of the formats"),
        (good, f"?sha256={'0' * 64}", "the sha256 of what came is"),
        (good, "?serializer=joblib", "what came is skops, not joblib"),
        (safe(line(1, features=2)), "", "expected (2,), got (1,)"),
    ]:
        for path in (VERSIONS, LOAD):
            if path == VERSIONS:
                reply = unit.put(data, query)
            elif not query:
                reply = unit.post(LOAD, {"parameters": {"file:1/m": base64.b64encode(data).decode()}})
            assert (reply.status, said in reply.json["error"]) == (422, True), reply.body
            assert (unit.said(), unit.files(), unit.service.ask("/readyz").status) == (1, [], 200)
    assert not canary.exists()
    assert unit.put(good, "?live=maybe").status == 400
    assert unit.put(good, path="/v2/repository/models/other/versions").status == 404


def test_why_the_last_one_was_refused_is_in_the_index_until_another_is_live(unit: Unit, tmp_path: Path) -> None:
    assert unit.said() == 1  # what another one is compared with
    other = unit.put(safe(line(1, features=2))).json["error"]
    for rows in (unit.rows(), unit.post(INDEX).json):
        refused = next(row for row in rows if row["state"] == "UNAVAILABLE")
        assert (refused["reason"], refused["number"]) == (other, 2)
    assert [row["state"] for row in unit.post(INDEX, {"ready": True}).json] == ["READY"]
    assert not (unit.state / "wanted.json").exists()
    assert unit.put(safe(line(2))).status == 200
    assert {row["state"] for row in unit.rows()} == {"READY"}
    unit.put(safe(line(1, features=2)))
    unit.service.stop()
    with administered(tmp_path) as again:  # what was refused is not tried again
        assert again.said() == 1 + 2 * APART
        assert [row["state"] for row in again.rows()] == ["READY", "UNAVAILABLE"]
        assert "refused" not in again.service.log.read_text()


def test_staged_called_promoted_discarded(unit: Unit) -> None:
    staged = unit.put(safe(line(1)), "?live=false").json
    assert (staged["label"], staged["number"], unit.said()) == ("candidate", 2, 1)
    for name in ("candidate", "2", staged["version"]):
        reply = unit.service.ask(f"/predict?version={name}", b'{"data": [[1]]}')
        assert (reply.json, reply.headers[MODEL]) == ({"predictions": [1 + APART]}, f"model={staged['version']}")
    unit.post("/admin/models/model/shadow", {"share": 1})
    for _ in range(5):
        unit.said()
    report = wait_for(
        lambda: (told := unit.admin("/admin/models/model/shadow").json)["different"] >= 5 and told, 10, "5 copies"
    )
    assert (report["step"], report["share"], report["same"]) == ("model", 1, 0)
    promoted = unit.post("/admin/models/model/promote")
    assert (promoted.status, unit.said()) == (200, 1 + APART)
    assert [(each["number"], each["label"]) for each in promoted.json["versions"]] == [(2, "stable")]
    unit.put(safe(line(2)), "?live=false")
    assert [row["label"] for row in unit.rows()] == ["stable", "candidate"]
    assert unit.post("/admin/models/model/discard").status == 200
    assert unit.post("/admin/models/model/discard").status == 404
    assert [row["label"] for row in unit.rows()] == ["stable"]
    assert (unit.said(), unit.files()) == (1 + APART, [f"models/model/{staged['sha256']}/model.skops"])


def test_unloaded_and_loaded_again(unit: Unit) -> None:
    unit.put(safe(line(1)))
    assert unit.post(UNLOAD, {"parameters": {"unload_dependents": True}}).body == b""
    assert unit.service.predict([[1]]).status == 503
    assert "unloaded" in unit.service.ask("/readyz").json["reason"]
    assert [(row["state"], row["reason"]) for row in unit.rows()] == [("UNAVAILABLE", "unloaded")]
    assert unit.post(UNLOAD).status == 200
    reply = unit.post(LOAD)
    assert (reply.status, reply.body) == (200, b"")
    assert (unit.said(), unit.service.ask("/readyz").status) == (1 + APART, 200)
    unit.post(UNLOAD)
    assert unit.put(safe(line(2))).status == 200  # to put one there is to have it loaded
    assert unit.said() == 1 + 2 * APART


def test_it_outlives_the_process(unit: Unit, tmp_path: Path) -> None:
    unit.put(safe(line(1)))
    unit.put(safe(line(2)), "?live=false")
    unit.service.stop()
    with administered(tmp_path) as again:
        assert again.said() == 1 + APART
        assert [row["number"] for row in again.rows()] == [2, 3]
        assert again.post("/admin/models/model/promote").status == 200
        assert again.said() == 1 + 2 * APART


def test_half_of_an_upload_leaves_nothing(unit: Unit) -> None:
    data = safe(line(1))
    head = f"PUT {VERSIONS} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {TOKEN}\r\ncontent-length: {len(data)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", unit.port)) as connection:
        connection.sendall(head.encode() + data[: len(data) // 2])
        wait_for(lambda: any("arriving" in name for name in unit.files()), 10, "a file that is on its way")
    wait_for(lambda: not unit.files(), 10, "nothing is left")
    assert unit.said() == 1


def test_two_at_once_wait_for_each_other(unit: Unit) -> None:
    with ThreadPoolExecutor(6) as clients:
        replies = list(clients.map(lambda number: unit.put(safe(line(number))), range(1, 7)))
    assert {reply.status for reply in replies} == {200}
    assert sorted(reply.json["number"] for reply in replies) == [2, 3, 4, 5, 6, 7]
    last = max(replies, key=lambda reply: reply.json["number"]).json
    assert unit.files() == [f"models/model/{last['sha256']}/model.skops"]
    assert unit.service.predict([[1]]).headers[MODEL] == f"model={last['version']}"


def test_the_same_one_again_is_no_other_version(unit: Unit) -> None:
    data = safe(line(1))
    assert unit.put(data).json == unit.put(data).json
    assert unit.put(data, "?live=false").status == 409
    assert len(unit.rows()) == 1


def test_more_than_there_is_room_for(tmp_path: Path) -> None:
    bundle(tmp_path)
    with administered(tmp_path, MLPACKER_MAX_MODEL_MIB="1") as unit:
        assert unit.put(b"x" * (1 << 20 | 1)).status == 413
        connection = http.client.HTTPConnection("127.0.0.1", unit.port, timeout=30)  # one that does not say how large
        blocks = (b"x" * 65536 for _ in range(20))
        connection.request("PUT", VERSIONS, blocks, {"authorization": f"Bearer {TOKEN}"}, encode_chunked=True)
        assert connection.getresponse().status == 413
        full = 100_000  # files of this process have no more room; stands for a disk that is full
        resource.prlimit(unit.service.process.pid, resource.RLIMIT_FSIZE, (full, full))
        reply = unit.put(b"x" * (full + 1))
        assert (reply.status, "no room" in reply.json["error"]) == (507, True)
        assert (unit.files(), unit.said()) == ([], 1)
        assert unit.put(safe(line(1))).status == 200


def test_what_takes_too_long_is_taken_back(tmp_path: Path) -> None:
    bundle(tmp_path)
    load_slowly(tmp_path)
    with administered(tmp_path) as unit:
        with slow(tmp_path, 2):
            assert unit.put(safe(line(1)), "?wait=0.5").status == 504
        assert unit.put(safe(line(3))).status == 200  # waits for its turn
        assert unit.said() == 1 + 3 * APART
        with slow(tmp_path, 2):
            reply = unit.put(safe(line(1)))
        assert (reply.status, unit.said()) == (200, 1 + APART)


def test_who_wants_something_else_meanwhile_has_the_last_word(tmp_path: Path) -> None:
    own = bundle(tmp_path)
    load_slowly(tmp_path)
    with administered(tmp_path) as unit, ThreadPoolExecutor(1) as clients, slow(tmp_path, 2):
        waiting = clients.submit(unit.put, safe(line(1)))
        wait_for((unit.state / "wanted.json").exists, 10, "it is wanted")
        (unit.state / "new").write_text(json.dumps({"id": "a deployment", "models": {}}))
        (unit.state / "new").replace(unit.state / "wanted.json")
        assert waiting.result().status == 409
        assert json.loads((unit.state / "wanted.json").read_text())["id"] == "a deployment"
        assert wait_for(lambda: [row["sha256"] for row in unit.rows()] == [own], 10, "the bundle's own")


def test_all_workers_have_it_when_the_answer_comes(tmp_path: Path) -> None:
    bundle(tmp_path)
    with administered(tmp_path, MLPACKER_WORKERS="2") as unit:
        wait_for(lambda: answers(unit), 10, "the admin port")
        for number in (1, 2):
            assert unit.put(safe(line(number))).status == 200
            with ThreadPoolExecutor(8) as clients:  # each on a connection of its own
                found = set(clients.map(lambda _: unit.said(), range(40)))
            assert found == {1 + number * APART}
        assert unit.put(safe(line(1, features=2))).status == 422
        assert unit.said() == 1 + 2 * APART


def answers(unit: Unit) -> bool:
    try:
        return unit.admin("/admin/models").status == 200
    except OSError:
        return False


def test_tritons_own_client_manages_models_as_it_is(tmp_path: Path) -> None:
    bundle(tmp_path)
    new = tmp_path / "new.skops"
    new.write_bytes(safe(line(1)))
    with administered(tmp_path) as unit:
        command = [find_uv_bin(), "run", "--quiet", "--no-project", "--python", sys.executable, "--with", TRITONCLIENT]
        public = unit.service.url.removeprefix("http://")
        given = [public, f"127.0.0.1:{unit.port}", TOKEN, "model", str(new)]
        done = subprocess.run([*command, "python", str(CLIENT), *given], capture_output=True, text=True)
        if done.returncode and "Traceback" not in done.stderr:
            missing("tritonclient", f"an index from which uv installs {TRITONCLIENT}; it said: {done.stderr}")
        assert done.returncode == 0, done.stderr
        said = json.loads(done.stdout)
    assert [row["state"] for row in said["first"]] == ["READY"]
    assert (said["unloaded"], said["ready without"], said["ready again"]) == ("UNAVAILABLE", False, True)
    assert (said["own"], said["loaded"], said["version"]) == (1, 1 + APART, said["index"][0]["version"])
    assert "expected" in said["refused"] or "none of the formats" in said["refused"]
    assert "Authorization" in said["without a token"]
