"""Messages that kill their process, on real brokers: three times, then they have their fate and the rest goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.contract.connectors import take
from tests.lab.brokers import Broker
from tests.runtime.handmade import code_step
from tests.runtime.test_streams import brief, fresh, on, put, read_until, reading
from tests.runtime.workers import running, write_unit
from tests.support import wait_for

pytestmark = pytest.mark.broker

DEADLY = """\
import ctypes, os
def handler(value):
    if value["n"] == 57:
        {how}
    return value
"""
HOWS = {"exit": "os._exit(9)", "segfault": "ctypes.string_at(0)"}


@pytest.mark.parametrize(("source", "how"), [("kafka", "exit"), ("mqtt", "segfault"), ("mqtt", "exit")])
def test_a_message_that_kills_the_process_is_quarantined_after_three_deliveries(
    source: str, how: str, tmp_path: Path, mosquitto: Broker, kafka: Broker
) -> None:
    source_queue, sink, dead = (
        brief(on({"mqtt": mosquitto, "kafka": kafka}[source], "in")),
        on(kafka, "out"),
        on(kafka, "dead"),
    )
    fate = {"on_error": "dead_letter", "dead_letter": "dead"}
    step = code_step(
        tmp_path, "only", DEADLY.format(how=HOWS[how]), inputs=("in",), outputs=("out",), max_batch=40, **fate
    )
    write_unit(tmp_path, step, queues=(source_queue, sink, dead), pipeline=fresh())
    numbers, deaths = set(range(200)), 0
    with reading(sink) as reader, reading(dead) as letters:
        with running(tmp_path) as first:
            first.wait_ready()
            put(source_queue, numbers)
            assert first.wait() != 0
            deaths += 1
        while True:
            with running(tmp_path) as worker:
                wait_for(
                    lambda: worker.process.poll() is not None or worker.metric("mlpacker_dead_letters_total") == 1, 30
                )
                if worker.process.poll() is None:
                    got = read_until(reader, numbers - {57})
                    (letter,) = take(letters, 1, acknowledge=True)
                    worker.process.terminate()
                    assert worker.wait() == 0
                    break
                deaths += 1
    assert deaths == 3
    assert letter.value == b'{"n": 57}'
    headers = {name.removeprefix("mlpacker-error-"): value.decode() for name, value in letter.headers.items()}
    assert headers["stage"] == "crash"
    assert headers["reason"] == "the process died each of the 3 times that it was handled"
    assert headers["attempt"] == "3"
    assert headers["source"].startswith("in ")
    twice = len(got) - 199
    print(f"{source}, {how}: 3 deaths, 0 of 199 good messages lost, {twice} came twice")
    assert twice <= 3 * 40


def test_without_a_place_for_it_the_unit_stops_before_it_and_says_why(tmp_path: Path, kafka: Broker) -> None:
    source, sink = brief(on(kafka, "in")), on(kafka, "out")
    put(source, range(50, 60))
    step = code_step(tmp_path, "only", DEADLY.format(how="os._exit(9)"), inputs=("in",), outputs=("out",))
    write_unit(tmp_path, step, queues=(source, sink), pipeline=fresh())
    codes = []
    for _ in range(5):
        with running(tmp_path) as worker:
            codes.append(worker.wait())
    assert codes == [9, 9, 9, 1, 1]
    assert worker.log.splitlines()[-1].endswith(
        f"stopped: in {source.topic}[0]@7: step 'only', crash: the process died each of the 3 times that it was "
        "handled; the message is not acknowledged"
    )
