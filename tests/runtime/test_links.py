"""A pipeline over two REST units, each a process of its own, with a hop between them that can fail in every way."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.runtime.handmade import Reply, Service, code_step, end, running, start, write_bundle
from tests.runtime.hops import Hop
from tests.runtime.test_rest import metric
from tests.support import wait_for

FIRST = """
def handler(value):
    if value == "drop":
        return None
    if value == "many":
        return (n for n in range(3))
    if value == "set":
        return {1}
    return value
"""
SECOND = """
import pathlib, time
def handler(value):
    if value == "bad":
        raise ValueError("bad thing")
    if value == "wait":
        pathlib.Path("waiting").touch()
        while not pathlib.Path("go").exists():
            time.sleep(0.01)
    return {"second": value}
"""


@dataclass(frozen=True)
class Chain:
    """`first` calls `second` through `hop`."""

    first: Service
    second: Service
    hop: Hop
    folder: Path


Build = Callable[..., Chain]


@pytest.fixture
def build(tmp_path: Path) -> Iterator[Build]:
    with ExitStack() as stack:

        def build(server: str = "python", **link: Any) -> Chain:
            second = stack.enter_context(running(unit(tmp_path / "second", "lstm", SECOND)))
            hop = Hop(int(second.url.rsplit(":", 1)[1]))
            stack.callback(hop.close)
            given = {"url": hop.url, "machine": "m2", "timeout": 20, "retries": 2, "idempotent": True, **link}
            folder = unit(tmp_path / "first", "clean", FIRST, links=("lstm",))
            first = stack.enter_context(running(folder, server, MLPACKER_LINKS=json.dumps({"lstm": given})))
            return Chain(first, second, hop, tmp_path)

        yield build


def unit(folder: Path, name: str, text: str, links: tuple[str, ...] = ()) -> Path:
    folder.mkdir()
    step = code_step(folder, name, text)
    return write_bundle(folder, replace(step, outputs=links), links=links)


class TestAnswers:
    @pytest.mark.parametrize("server", ["python", "bentoml"])
    def test_whoever_calls_the_first_unit_gets_the_last_ones_answer(self, build: Build, server: str) -> None:
        chain = build(server)
        reply = chain.first.predict([1, "drop", "many", [2]])
        several = [{"second": 0}, {"second": 1}, {"second": 2}]
        assert reply.json == {"predictions": [{"second": 1}, None, several, {"second": [2]}]}

    def test_each_unit_can_be_called_alone(self, build: Build) -> None:
        chain = build()
        alone = chain.first.ask("/predict?alone=true", b'{"data": [1, "many"]}')
        assert alone.json == {"predictions": [1, [0, 1, 2]]}
        assert chain.second.predict([5]).json == {"predictions": [{"second": 5}]}
        assert chain.hop.requests == 0

    def test_a_failing_instance_fails_its_own_request_only_and_names_step_and_machine(self, build: Build) -> None:
        chain = build()
        with ThreadPoolExecutor(16) as clients:
            replies = list(clients.map(lambda n: chain.first.predict(["bad" if n % 2 else n]), range(48)))
        assert [reply.status for reply in replies] == [200, 500] * 24
        assert [reply.json["predictions"][0]["second"] for reply in replies[::2]] == list(range(0, 48, 2))
        place = f"m2 (127.0.0.1:{chain.hop.port})"
        assert replies[1].json["error"] == f"data[0]: step 'lstm' on {place} failed: ValueError: bad thing (main.py:5)"
        assert chain.first.predict([1, "set"]).json["error"].startswith("data[1]: step 'clean' failed: it gave")

    def test_requests_that_wait_together_go_in_one_call(self, build: Build) -> None:
        """Eight calls may be open; what comes meanwhile shares the ninth."""
        chain = build()
        with ThreadPoolExecutor(40) as clients:
            asked = [clients.submit(chain.first.predict, ["wait"]) for _ in range(40)]
            wait_for(lambda: metric(chain.first, "mlpacker_in_flight") == 40, what="all requests are in")
            wait_for(lambda: chain.hop.requests >= 1, what="a call is under way")
            (chain.folder / "second" / "go").touch()
            assert [each.result().json for each in asked] == [{"predictions": [{"second": "wait"}]}] * 40
        assert chain.hop.requests <= 17

    def test_an_idempotent_units_connection_is_kept(self, build: Build) -> None:
        chain = build()
        assert [chain.first.predict([n]).status for n in range(20)] == [200] * 20
        assert (chain.hop.requests, chain.hop.connections) == (20, 1)


class TestTraces:
    def test_a_trace_goes_on_and_is_named_where_a_failure_is_logged(self, build: Build) -> None:
        chain = build()
        trace = "4bf92f3577b34da6a3ce929d0e0e4736"
        headers = {"traceparent": f"00-{trace}-00f067aa0ba902b7-01", "tracestate": "vendor=1"}
        assert chain.first.ask("/predict", b'{"data": [1]}', **headers).status == 200
        for name, value in headers.items():
            assert f"\r\n{name}: {value}\r\n".encode() in chain.hop.seen
        assert chain.first.ask("/predict", b'{"data": ["bad"]}', **headers).status == 500
        assert f"(trace {trace})" in chain.first.log.read_text()

    def test_a_malformed_trace_is_as_if_it_were_not_there(self, build: Build) -> None:
        chain = build()
        for parent in ("00-1-2-01", "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", f"00-{'0' * 32}-1-01"):
            assert chain.first.ask("/predict", b'{"data": [1]}', traceparent=parent, tracestate="a=1").status == 200
        assert b"trace" not in chain.hop.seen

    def test_requests_of_different_traces_that_wait_together_keep_their_own(self, build: Build) -> None:
        chain = build()
        parents = [f"00-{number + 1:032x}-00f067aa0ba902b7-01" for number in range(24)]
        with ThreadPoolExecutor(24) as clients:
            asked = [clients.submit(chain.first.ask, "/predict", b'{"data": [1]}', traceparent=one) for one in parents]
            assert [each.result().json for each in asked] == [{"predictions": [{"second": 1}]}] * 24
        assert all(f"traceparent: {one}\r\n".encode() in chain.hop.seen for one in parents)


class TestAHopThatFails:
    def test_refused_connections_are_tried_again_even_if_not_idempotent(self, build: Build) -> None:
        chain = build(idempotent=False)
        chain.hop.close()
        reply = chain.first.predict([1])
        text = f"step 'lstm' on m2 (127.0.0.1:{chain.hop.port}): cannot be reached: Connection refused (3 tries)"
        assert (reply.status, reply.json) == (502, {"error": text})
        assert metric(chain.first, 'mlpacker_link_retries_total{unit="lstm"}') == 2
        assert metric(chain.first, 'mlpacker_link_failures_total{reason="unreached",unit="lstm"}') == 1

    def test_a_lost_answer_is_asked_for_again_when_idempotent(self, build: Build) -> None:
        chain = build()
        chain.hop.mood = "break once"
        assert chain.first.predict([1]).json == {"predictions": [{"second": 1}]}
        assert chain.hop.requests == 2
        chain.hop.mood = "break"
        reply = chain.first.predict([1])
        text = f"step 'lstm' on m2 (127.0.0.1:{chain.hop.port}): closed the connection without an answer (3 tries)"
        assert (reply.status, reply.json, chain.hop.requests) == (502, {"error": text}, 5)

    def test_a_lost_answer_is_final_when_not_idempotent(self, build: Build) -> None:
        chain = build(idempotent=False)
        chain.hop.mood = "break once"
        reply = chain.first.predict([1])
        assert (reply.status, "without an answer" in reply.json["error"]) == (502, True)
        assert chain.hop.requests == 1

    def test_a_silent_hop_is_given_up_in_time(self, build: Build) -> None:
        chain = build(timeout=0.5)
        assert chain.first.predict([1]).status == 200
        chain.hop.mood = "silent"
        reply = chain.first.predict([1])
        text = f"step 'lstm' on m2 (127.0.0.1:{chain.hop.port}): did not answer within 0.5 s"
        assert (reply.status, reply.json) == (504, {"error": text})
        chain.hop.mood = "pass"
        assert chain.first.predict([1]).status == 200

    def test_a_slow_step_is_named_by_its_own_unit(self, build: Build) -> None:
        chain = build(timeout=0.5)
        reply = chain.first.predict(["wait"])
        assert reply.status == 504
        assert reply.json["error"].startswith(f"step 'lstm' on m2 (127.0.0.1:{chain.hop.port}): ")
        (chain.folder / "second" / "go").touch()
        wait_for(lambda: chain.first.predict([1]).status == 200, what="the unit is itself again")

    def test_what_is_no_unit_is_said(self, build: Build) -> None:
        chain = build()
        other = replace(chain.second, url=chain.hop.url)
        assert other.predict([1]).json == {"predictions": [{"second": 1}]}
        chain.second.stop()
        with running_http(int(chain.second.url.rsplit(":", 1)[1])):
            reply = chain.first.predict([1])
        assert reply.status == 502
        assert "gave no answer of a unit (status 501" in reply.json["error"]


class TestTimeAndReadiness:
    def test_the_deadline_of_a_caller_is_kept_and_passed_on(self, build: Build) -> None:
        chain = build()
        assert hurried(chain.first, ["wait"], 300).status == 504
        wait_for(lambda: metric(chain.second, "mlpacker_in_flight") == 0, what="the second has given up, too")
        (chain.folder / "second" / "go").touch()
        wait_for(lambda: hurried(chain.first, [1], 20000).status == 200, what="it answers again")

    @pytest.mark.parametrize("given", ["soon", "-1", "1.5", "", "9" * 10])
    def test_a_deadline_that_is_none_is_refused(self, build: Build, given: str) -> None:
        reply = build().second.ask("/predict", b'{"data": [1]}', mlpacker_remaining_ms=given)
        assert (reply.status, "whole milliseconds" in reply.json["error"]) == (400, True)

    def test_no_time_no_answer(self, build: Build) -> None:
        reply = hurried(build().second, [1], 0)
        assert (reply.status, reply.json["error"]) == (
            504,
            "the time that the caller gives was up before there was an answer",
        )

    def test_ready_is_this_unit_and_on_request_those_that_follow(self, build: Build) -> None:
        chain = build()
        assert chain.first.ask("/readyz?chain=true").json == {"ready": True}
        chain.hop.close()
        assert chain.first.ask("/readyz").status == 200
        reply = chain.first.ask("/readyz?chain=true")
        assert (reply.status, "step 'lstm' on m2" in reply.json["reason"]) == (503, True)

    def test_a_next_unit_that_is_not_ready_is_passed_on_as_503(self, tmp_path: Path) -> None:
        loading = start(unit(tmp_path / "second", "lstm", "import time\ntime.sleep(3600)\nhandler = print"))
        link = json.dumps({"lstm": {"url": loading.url, "machine": None}})
        try:
            with running(unit(tmp_path / "first", "clean", FIRST, links=("lstm",)), MLPACKER_LINKS=link) as first:
                wait_for(lambda: first.predict([1]).status == 503, what="the second one listens")
                text = f"step 'lstm' ({loading.url.removeprefix('http://')}): not ready: loading"
                assert first.predict([1]).json == {"error": text}
        finally:
            end(loading)

    def test_without_an_address_there_is_no_answer_but_alone(self, tmp_path: Path) -> None:
        with running(unit(tmp_path / "first", "clean", FIRST, links=("lstm",))) as first:
            reply = first.predict([1])
            assert (reply.status, "MLPACKER_LINKS" in reply.json["error"]) == (500, True)
            assert first.ask("/predict?alone=true", b'{"data": [1]}').json == {"predictions": [1]}

    def test_an_address_that_is_none_ends_it(self, tmp_path: Path) -> None:
        folder = unit(tmp_path / "first", "clean", FIRST, links=("lstm",))
        service = start(folder, MLPACKER_LINKS='{"lstm": {"url": "ftp://x"}}')
        assert service.process.wait(60) == 1
        assert "MLPACKER_LINKS is not an object of links" in service.log.read_text()


@contextmanager
def running_http(port: int) -> Iterator[None]:
    """A web server that is no unit: it knows no POST."""
    server = ThreadingHTTPServer(("127.0.0.1", port), SimpleHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


def hurried(service: Service, data: list[Any], milliseconds: int) -> Reply:
    return service.ask("/predict", json.dumps({"data": data}).encode(), mlpacker_remaining_ms=str(milliseconds))
