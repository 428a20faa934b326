"""A stream unit as a process: its check, its ways to end, and what it says."""

from __future__ import annotations

import signal
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from packer_lib.runtime.manifest import QueueSpec
from tests.runtime.handmade import code_step
from tests.runtime.workers import Worker, running, write_unit
from tests.support import free_port, wait_for

HANDLER = "def handler(value):\n    return value + 1\n"


def memory(name: str) -> QueueSpec:
    return QueueSpec(name, "memory", "here", 0, name)


def nowhere(name: str, connector: str = "mqtt") -> QueueSpec:
    return QueueSpec(name, connector, "127.0.0.1", free_port(), name)


def check(folder: Path) -> tuple[int, str]:
    worker = Worker(folder)
    worker.start("--check")
    return worker.wait(), worker.log


def test_check_answers_the_golden_request_and_connects_nowhere(tmp_path: Path) -> None:
    step = code_step(tmp_path, "add", HANDLER, inputs=("in",), outputs=("out",), test={"input": 1, "output": 2})
    write_unit(tmp_path, step, queues=(nowhere("in"), nowhere("out", "kafka")))
    code, log = check(tmp_path)
    assert (code, log.splitlines()[-1]) == (0, "ok: 1 steps loaded, 1 golden requests answered")


def test_check_says_what_the_golden_request_was_answered_with(tmp_path: Path) -> None:
    step = code_step(tmp_path, "add", HANDLER, inputs=("in",), outputs=("out",), test={"input": 1, "output": 3})
    write_unit(tmp_path, step, queues=(memory("in"), memory("out")))
    code, log = check(tmp_path)
    assert code == 1
    assert "step 'add': golden request: expected 3, got 2" in log


def test_check_says_that_a_schema_is_none(tmp_path: Path) -> None:
    step = code_step(tmp_path, "add", HANDLER, inputs=("in",), outputs=("out",))
    bad = replace(memory("in"), schema={"$ref": "file:///etc/passwd"})
    write_unit(tmp_path, step, queues=(bad, memory("out")))
    code, log = check(tmp_path)
    assert code == 1
    assert "check failed: queue 'in': schema: not a JSON Schema that stands alone" in log


def test_a_handler_that_is_not_there_ends_the_unit_with_its_name(tmp_path: Path) -> None:
    step = code_step(tmp_path, "add", "def hander(value): ...\n", inputs=("in",), outputs=("out",))
    with running(write_unit(tmp_path, step, queues=(memory("in"), memory("out")))) as worker:
        assert worker.wait() == 1
        assert "stopped: step 'add': code/add/main.py has no function 'handler'" in worker.log


def test_a_taken_port_ends_the_unit_with_what_to_set(tmp_path: Path) -> None:
    step = code_step(tmp_path, "add", HANDLER, inputs=("in",), outputs=("out",))
    write_unit(tmp_path, step, queues=(memory("in"), memory("out")))
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        worker = Worker(tmp_path, other.getsockname()[1])
        worker.start()
        assert worker.wait() == 1
    assert f"stopped: cannot listen on 127.0.0.1:{worker.port}: Address already in use (set MLPACKER_PORT" in worker.log


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_unit_that_is_asked_to_stop_ends_in_order(tmp_path: Path, how: signal.Signals) -> None:
    step = code_step(tmp_path, "add", HANDLER, inputs=("in",), outputs=("out",))
    with running(write_unit(tmp_path, step, queues=(memory("in"), memory("out")))) as worker:
        worker.wait_ready()
        assert worker.signal(how) == 0
        assert f"{how.name}: finishing the batch in hand" in worker.log
        assert worker.log.splitlines()[-1].endswith("plant/add: stopped in order")


def test_a_unit_that_is_asked_to_stop_while_it_loads_ends_at_once(tmp_path: Path) -> None:
    text = "import pathlib, time\npathlib.Path('loading').touch()\ntime.sleep(3600)\n"
    step = code_step(tmp_path, "add", text, inputs=("in",), outputs=("out",))
    with running(write_unit(tmp_path, step, queues=(memory("in"), memory("out")))) as worker:
        wait_for((tmp_path / "loading").exists, 60, "it loads")
        assert worker.signal(signal.SIGTERM) == 0
        assert "stopped in order" in worker.log


@pytest.mark.parametrize("connector", ["mqtt", "kafka", "websocket"])
def test_a_unit_whose_broker_is_not_there_lives_is_not_ready_and_says_why(tmp_path: Path, connector: str) -> None:
    step = code_step(tmp_path, "add", HANDLER, inputs=("in",), outputs=("out",))
    queue = nowhere("in", connector)
    with running(write_unit(tmp_path, step, queues=(queue, memory("out")))) as worker:
        place = f"127.0.0.1:{queue.port}"
        wait_for(lambda: "next attempt in 1 s" in worker.log, 30, "a second attempt")
        status, body = worker.ask("/readyz")
        assert (status, body["ready"]) == (503, False)
        assert place in body["reason"]
        assert "cannot reach" in body["reason"]
        assert worker.ask("/livez")[0] == 200
        assert worker.signal(signal.SIGTERM) == 0


def test_info_names_the_unit_its_steps_and_its_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLPACKER_RELEASE", "sha256:abc")
    step = code_step(tmp_path, "add", HANDLER, inputs=("in",), outputs=("out",))
    with running(write_unit(tmp_path, step, queues=(memory("in"), memory("out")))) as worker:
        worker.wait_ready()
        info = worker.ask("/info")[1]
        assert info.pop("started")
        assert info == {
            "pipeline": "plant",
            "unit": "add",
            "mode": "stream",
            "release": "sha256:abc",
            "replica": 0,
            "steps": [{"name": "add", "kind": "code", "framework": "python"}],
            "models": [],
            "versions": [],
        }
        worker.signal(signal.SIGTERM)
