"""Too much at once is answered 429, by real units; and who may ask at all."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from packer_lib.runtime.room import SMALL, Busy, Room
from tests.runtime.handmade import SERVERS, Service, code_step, running, write_bundle
from tests.support import wait_for

GATED = """
import pathlib, time
def handler(value):
    if value == "wait":
        pathlib.Path("waiting").touch()
        while not pathlib.Path("go").exists():
            time.sleep(0.01)
    return len(value)
"""
LARGE = json.dumps({"data": ["x" * 900_000]}).encode()
OIP = json.dumps({"inputs": [{"name": "x", "shape": [1], "datatype": "BYTES", "data": ["x" * 900_000]}]}).encode()


class TestRoom:
    def test_is_for_so_many_requests(self) -> None:
        room = Room(1000, most=2)
        room.enter(1)
        room.enter(1)
        with pytest.raises(Busy, match="2 requests of 2 bytes are waiting"):
            room.enter(1)
        room.leave(1)
        room.enter(1)

    def test_is_for_so_many_bytes_but_one_body_always_fits(self) -> None:
        room = Room(1000)
        room.enter(5000)
        with pytest.raises(Busy):
            room.enter(1)
        room.leave(5000)
        room.enter(500)
        room.enter(500)

    def test_bodies_that_are_coming_have_room_of_their_own(self) -> None:
        room = Room(1000)
        room.expect(1000)
        with pytest.raises(Busy, match="bodies of 1000 bytes"):
            room.expect(1)
        room.enter(1000)
        room.forget(1000)
        room.expect(1)

    def test_says_when_to_come_again_by_the_rate_of_its_answers(self) -> None:
        now = 100.0
        room = Room(1000, most=40, clock=lambda: now)
        for _ in range(40):
            room.enter(1)
        assert after(room) == 1
        now += 2.0
        for _ in range(10):  # five a second: forty take eight seconds
            room.leave(1)
            room.enter(1)
        assert after(room) == 8
        now += 60.0
        assert after(room) == 1
        now += 9.0
        assert after(room) == 9  # no answer yet


def after(room: Room) -> int:
    with pytest.raises(Busy) as busy:
        room.enter(1)
    return busy.value.after


@pytest.fixture(params=SERVERS)
def gated(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Service]:
    write_bundle(tmp_path, code_step(tmp_path, "gated", GATED))
    with running(tmp_path, request.param, MLPACKER_MAX_BODY_MIB="4", MLPACKER_MAX_WAITING_MIB="1") as started:
        yield started


def test_too_many_bytes_that_wait_are_429_on_every_route_and_small_ones_go_on(gated: Service, tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as clients:
        slow = clients.submit(gated.predict, ["wait"])
        wait_for((tmp_path / "waiting").exists, what="the slow request is in the handler")
        large = clients.submit(gated.ask, "/predict", LARGE)
        time.sleep(0.5)
        for path, body in (("/predict", LARGE), ("/v2/models/gated/infer", OIP), ("/invocations", LARGE)):
            reply = gated.ask(path, body)
            assert (reply.status, reply.json.keys()) == (429, {"error"}), path
            assert "are waiting; try again later" in reply.json["error"]
            assert int(reply.headers["retry-after"]) >= 1
        small = clients.submit(gated.predict, ["ab"])
        time.sleep(0.2)
        (tmp_path / "go").touch()
        assert slow.result().json == {"predictions": [4]}
        assert large.result().json == {"predictions": [900_000]}
        assert small.result().json == {"predictions": [2]}
    assert gated.ask("/predict", LARGE).status == 200


def test_large_bodies_that_do_not_come_keep_out_large_ones_only(gated: Service) -> None:
    host, port = gated.url.removeprefix("http://").split(":")
    head = b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 1048576\r\n\r\n"
    with socket.create_connection((host, int(port))) as stalled:
        stalled.sendall(head + b" " * 1_000_000)
        time.sleep(0.5)
        reply = gated.ask("/predict", LARGE)
        assert (reply.status, "are being sent" in reply.json["error"]) == (429, True)
        assert gated.predict(["x" * (SMALL // 2)]).status == 200
    wait_for(lambda: gated.ask("/predict", LARGE).status == 200, what="the room of who has gone is free")


def test_the_next_unit_that_is_overloaded_is_passed_on_as_429(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    write_bundle(second, code_step(second, "gated", GATED))
    write_bundle(
        first, code_step(first, "on", "def handler(value):\n    return value", outputs=("gated",)), links=("gated",)
    )
    with running(second, MLPACKER_MAX_BODY_MIB="4", MLPACKER_MAX_WAITING_MIB="1") as behind:
        links = json.dumps({"gated": {"url": behind.url, "timeout": 20}})
        with running(first, MLPACKER_LINKS=links) as before, ThreadPoolExecutor(4) as clients:
            slow = clients.submit(before.predict, ["wait"])
            wait_for((second / "waiting").exists, what="the slow request is in the handler")
            large = clients.submit(behind.ask, "/predict", LARGE)
            time.sleep(0.5)
            reply = before.ask("/predict", LARGE)
            assert (reply.status, int(reply.headers["retry-after"])) == (429, 1)
            assert reply.json["error"].startswith("step 'gated' (127.0.0.1:")
            metrics = before.ask("/metrics").body.decode()
            assert 'mlpacker_link_failures_total{reason="overloaded",unit="gated"} 1.0' in metrics
            (second / "go").touch()
            assert (slow.result().status, large.result().status) == (200, 200)
