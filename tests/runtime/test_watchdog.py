"""Standing still while messages wait is noticed; standing still otherwise is not."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from packer_lib.runtime.manifest import STALLED, QueueSpec
from packer_lib.runtime.probes import State
from packer_lib.runtime.watchdog import Watchdog
from tests.contract.connectors import fresh
from tests.runtime.handmade import code_step
from tests.runtime.workers import running, write_unit
from tests.support import wait_for


class Scene:
    def __init__(self) -> None:
        self.now, self.waits, self.state = 100.0, "", State(reason="")
        self.ended: list[int] = []
        self.watchdog = Watchdog(self.state, lambda: self.waits, 60, lambda: self.now, self.ended.append)

    def after(self, seconds: float) -> str:
        self.now += seconds
        self.watchdog.look()
        return self.state.stalled


def test_nothing_to_do_is_not_a_stall() -> None:
    scene = Scene()
    assert [scene.after(50) for _ in range(10)] == [""] * 10


def test_messages_that_wait_while_nothing_moves_are_one(caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene()
    scene.after(0)
    scene.waits = "7 messages wait in q1"
    assert [scene.after(40), scene.after(40)] == ["", "no progress for 80 s: 7 messages wait in q1"]
    assert "test_watchdog.py" in caplog.text, "where it stands is in the log"
    scene.state.moved = scene.now
    assert scene.after(10) == ""
    assert "it moves again" in caplog.text


def test_who_stands_still_for_as_long_again_is_ended(caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene()
    scene.waits = "7 messages wait in q1"
    scene.after(0)
    assert [(bool(scene.after(40)), list(scene.ended)) for _ in range(3)] == [(False, []), (True, []), (True, [])]
    scene.after(1)
    assert scene.ended == [STALLED]
    assert "no progress for 121 s: 7 messages wait in q1; it is ended (exit code 70), it stands in:" in caplog.text


def test_a_unit_that_moves_slowly_is_not_stalled() -> None:
    scene = Scene()
    scene.waits = "many"
    for _ in range(10):
        scene.state.moved = scene.now
        assert scene.after(50) == ""


def test_a_broker_that_is_away_is_not_a_stall() -> None:
    scene = Scene()
    scene.waits, scene.state.reason = "many", "cannot reach kafka broker h:1"
    assert scene.after(500) == ""
    scene.state.reason = ""
    assert scene.after(50) == ""
    assert scene.after(50) != ""


PUT = """\
import pathlib, threading
def put():
    from mlpacker_runtime.connectors.memory import MemorySink, topic
    from mlpacker_runtime.contract import Message
    from mlpacker_runtime.manifest import load
    MemorySink(topic(load(pathlib.Path('.')).queues['in'])).produce([Message(b'1')])
threading.Timer(0.5, put).start()
"""


def hanging(folder: Path, handler: str) -> Path:
    """A unit that gives itself one message, half a second after it was loaded."""
    queue, out = (QueueSpec(name, "memory", "here", 0, fresh()) for name in ("in", "out"))
    step = code_step(folder, "only", handler + PUT, inputs=("in",), outputs=("out",))
    return write_unit(folder, step, queues=(queue, out))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("handler", "code", "says"),
    [
        (
            "import threading\ndef handler(value):\n    threading.Event().wait()\n",
            STALLED,
            "it is ended (exit code 70)",
        ),
        # a regular expression holds the interpreter until it is done, which takes longer than the sun has left
        ("import re\ndef handler(value):\n    re.match('(a+)+b', 'a' * 64)\n", 1, "Timeout (0:00:02"),
    ],
    ids=["waits", "never lets go of the interpreter"],
)
def test_a_handler_that_never_returns_ends_its_process(tmp_path: Path, handler: str, code: int, says: str) -> None:
    with running(hanging(tmp_path, handler), MLPACKER_STALL_SECONDS="1") as worker:
        assert worker.wait() == code
        assert says in worker.log
        assert "in handler" in worker.log, "the log says where it stood"


def test_a_handler_that_hangs_ends_livez_and_the_log_says_where(tmp_path: Path) -> None:
    handler = "import time\ndef handler(value):\n    time.sleep(3)\n    return value\nhandler(0)\n"
    with running(hanging(tmp_path, handler), MLPACKER_STALL_SECONDS="2") as worker:
        worker.wait_ready()
        wait_for(lambda: worker.ask("/livez")[0] == 503, 20, "livez says no")
        assert worker.ask("/livez")[1]["reason"].startswith("no progress for 2 s: 1 messages of in are in hand")
        assert worker.ask("/readyz")[0] == 503
        assert "time.sleep(3)" in worker.log
        wait_for(lambda: worker.ask("/livez")[0] == 200, 20, "it lives again")
        wait_for(lambda: "it moves again" in worker.log)
        started = time.monotonic()
        worker.process.terminate() if worker.process else None
        assert worker.wait() == 0
        assert time.monotonic() - started < 5
