"""What the demo hears on Kafka and is answered over REST, and what it makes of that."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from packer_lib.demo import brokers, closing
from packer_lib.demo.cases import A, B, C
from packer_lib.demo.closing import Verdict, judge
from packer_lib.demo.feed import Anomaly, Answers, Asker, Feed
from packer_lib.demo.watch import Row
from tests.demo.test_steps import EXAMPLES
from tests.support import wait_for


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    broker = brokers.kafka(tmp_path, os.environ, ["metrics", "found-b", "found-c"])
    yield broker.address
    broker.stop()


@pytest.fixture
def feed(address: str) -> Iterator[Feed]:
    """A feed that has its partitions: before that, what is sent would be history to it."""
    found = Feed(address, "metrics", {B.id: "found-b", C.id: "found-c"})
    producer = Producer({"bootstrap.servers": address})

    def heard() -> bool:
        producer.produce("metrics", json.dumps({"cpu": 0, "network_in": 0, "disk_read": 0}))
        producer.flush(10)
        return bool(found._window)

    wait_for(heard, 30, "the feed hears the records")
    yield found
    found.stop()


def send(address: str, topic: str, *values: dict[str, Any]) -> None:
    producer = Producer({"bootstrap.servers": address})
    for value in values:
        producer.produce(topic, json.dumps(value))
    assert producer.flush(20) == 0


def test_the_feed_keeps_the_last_window(address: str, feed: Feed) -> None:
    send(address, "metrics", *({"timestamp": n, "cpu": n, "network_in": 2 * n, "disk_read": 3 * n} for n in range(50)))
    window = wait_for(lambda: (found := feed.window()) and found[-1] == [49, 98, 147] and found, 20)
    assert window == [[n, 2 * n, 3 * n] for n in range(20, 50)]


def test_the_feed_hears_the_anomalies_of_each_case(address: str, feed: Feed) -> None:
    send(address, "found-c", {"timestamp": 12.5, "error": 99.0})
    found = wait_for(lambda: feed.anomalies[C.id], 20)
    assert (found[0].at, found[0].error) == (12.5, 99.0)
    assert found[0].heard <= time.time()
    assert feed.anomalies[B.id] == []


class _Model(BaseHTTPRequestHandler):
    """Reconstructs every window as zeros."""

    def do_POST(self) -> None:
        windows = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["data"]
        body = json.dumps({"predictions": [[[0.0] * 3] * len(window) for window in windows]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None: ...


class _Window:
    """Stands for the feed: one window that never changes."""

    def __init__(self, row: list[float]) -> None:
        self._row = row

    def window(self) -> list[list[float]]:
        return [self._row] * 30


@pytest.mark.parametrize(("cpu", "found"), [(0.0, 0), (1e9, 1)])
def test_the_asker_judges_answers_as_the_filter_does(cpu: float, found: int) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Model)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    feed: Any = _Window([cpu, 0.0, 0.0])
    asker = Asker(f"http://127.0.0.1:{server.server_port}", feed, EXAMPLES / "outliers_filter")
    wait_for(lambda: asker.answers.example or asker.answers.refused, 20)
    asker.stop()
    server.shutdown()
    server.server_close()
    assert asker.answers.seconds[0] > 0
    assert asker.answers.example == ([cpu, 0.0, 0.0], [0.0, 0.0, 0.0])
    assert len(asker.answers.anomalies[:1]) == found


def test_the_asker_says_why_there_was_no_answer() -> None:
    feed: Any = _Window([0.0, 0.0, 0.0])
    asker = Asker("http://127.0.0.1:1", feed, EXAMPLES / "outliers_filter")
    wait_for(lambda: asker.answers.refused, 20)
    asker.stop()
    assert "ConnectError" in asker.answers.refused
    assert asker.answers.median() is None


LIVE = [Row(case.id, "unit", "running") for case in (A, B, C)]


def verdict(b: list[Anomaly], c: list[Anomaly], answers: Answers, rows: list[Row]) -> Verdict:
    feed: Any = type("Heard", (), {"anomalies": {B.id: b, C.id: c}})()
    asker: Any = type("Asked", (), {"answers": answers})()
    return judge(feed, asker, rows, burst=100.0)


SEEN = [Anomaly(50, 51, 5), Anomaly(101, 102, 9)]


def test_everything_live_and_noticed_passes() -> None:
    found = verdict(SEEN, SEEN, Answers([0.01], SEEN), LIVE)
    assert found.passed
    assert "answered 1 windows over REST, median 10.0 ms" in found.checks[3].text
    assert "noticed the burst 2.0 s after it began, error 9; 1 anomalies before it" in found.checks[-1].text


@pytest.mark.parametrize(
    ("b", "answers", "rows", "text"),
    [
        (SEEN[:1], Answers([0.01], SEEN), LIVE, "demo-b-atomic did not notice the burst (1 anomalies before it)"),
        (SEEN, Answers([], SEEN, refused="ReadTimeout"), LIVE, "never answered over REST: ReadTimeout"),
        (SEEN, Answers([0.01], []), LIVE, "demo-a-rest did not notice"),
        (SEEN, Answers([0.01], SEEN), [*LIVE[:2], Row(C.id, "unit", "failed")], "unit failed"),
        (SEEN, Answers([0.01], SEEN), LIVE[:2], "case C"),
    ],
)
def test_whatever_is_missing_fails_and_is_named(b: list[Anomaly], answers: Answers, rows: list[Row], text: str) -> None:
    found = verdict(b, SEEN, answers, rows)
    assert not found.passed
    assert text in "\n".join(check.text for check in found.checks if not check.passed)


def test_a_reconstruction_is_shown_in_units_that_people_read() -> None:
    found = verdict(SEEN, SEEN, Answers([0.01], SEEN, ([25.4, 12_345, 0], [24.6, 9_999, -20])), LIVE)
    assert "[25 %, 12 kB/s, 0 kB/s] came back as [25 %, 10 kB/s, 0 kB/s]" in found.checks[3].text


def test_only_what_happened_after_the_burst_began_counts_as_noticed() -> None:
    feed: Any = type("Heard", (), {"anomalies": {B.id: SEEN, C.id: SEEN[:1]}})()
    asker: Any = type("Asked", (), {"answers": Answers([0.1], SEEN)})()
    assert not closing.all_noticed(feed, asker, 100.0)
    feed.anomalies[C.id] = SEEN
    assert closing.all_noticed(feed, asker, 100.0)
