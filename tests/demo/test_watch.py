"""The rows of the table: from the status of the units, and from the counters that they publish."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import StringIO
from typing import Any

import httpx
import pytest
from rich.console import Console

from packer_lib.demo.dags import Progress
from packer_lib.demo.screen import LiveTable, Screen, cells, table
from packer_lib.demo.watch import Numbers, Row, Watch, ask, median, numbers

METRICS = """\
# TYPE mlpacker_messages_in_total counter
mlpacker_messages_in_total{queue="metrics"} 40.0
mlpacker_messages_in_total{queue="others"} 2.0
# TYPE mlpacker_messages_out_total counter
mlpacker_messages_out_total{queue="anomalies"} 3.0
# TYPE mlpacker_messages_failed_total counter
mlpacker_messages_failed_total{stage="handler",step="preparation"} 1.0
# TYPE mlpacker_end_to_end_seconds histogram
mlpacker_end_to_end_seconds_bucket{le="0.01"} 10.0
mlpacker_end_to_end_seconds_bucket{le="0.02"} 30.0
mlpacker_end_to_end_seconds_bucket{le="+Inf"} 40.0
mlpacker_end_to_end_seconds_count 40.0
mlpacker_end_to_end_seconds_sum 1.0
"""


BUILDING = Progress("running", (("validate", "success"), ("first.build", "running"), ("first.test", "running")))


class _Unit(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/metrics" else 404)
        self.end_headers()
        self.wfile.write(METRICS.encode())

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def endpoint() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Unit)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=5, trust_env=False) as found:
        yield found


def test_counters_are_added_up_over_their_labels() -> None:
    assert numbers(METRICS) == Numbers(42, 3, 1, pytest.approx(0.015))


def test_a_unit_without_messages_has_no_latency() -> None:
    assert numbers("") == Numbers(0, 0, 0, None)


@pytest.mark.parametrize(
    ("buckets", "expected"),
    [
        ({}, None),
        ({1.0: 0, float("inf"): 0}, None),
        ({1.0: 4, 2.0: 4, float("inf"): 4}, 0.5),
        ({1.0: 1, 3.0: 3, float("inf"): 4}, 2.0),
        ({1.0: 0, float("inf"): 4}, 1.0),
    ],
)
def test_the_median_is_interpolated_inside_its_bucket(buckets: dict[float, float], expected: float | None) -> None:
    assert median(buckets) == expected


def test_a_unit_that_does_not_answer_has_counted_nothing(client: httpx.Client) -> None:
    assert ask("http://127.0.0.1:1", client) == Numbers()
    assert ask("", client) == Numbers()


def test_a_row_joins_status_and_metrics(endpoint: str, client: httpx.Client) -> None:
    watch = Watch((("p", ("first", "last")),), client)
    unit = {"name": "last", "state": "running", "endpoint": endpoint}
    first, last = watch.rows([{"pipeline": "p", "units": [unit]}], {"p": BUILDING})
    assert first == Row("p", "first", "DAG: build, test", last=False)
    assert (last.state, last.last, last.numbers.came) == ("running", True, 42)


def test_a_staged_unit_shows_what_its_dag_does(client: httpx.Client) -> None:
    status = [{"pipeline": "p", "units": [{"name": "u", "state": "stopped", "endpoint": None}]}]
    watch = Watch((("p", ("u",)),), client)
    assert watch.rows(status, {"p": Progress("running", (("switch", "running"),))})[0].state == "DAG: switch"
    assert watch.rows(status, {"p": Progress()})[0].state == "stopped"


def test_progress_is_told_for_each_unit_by_itself() -> None:
    assert BUILDING.of("first") == "DAG: build, test"
    assert BUILDING.of("last") == "DAG running"
    assert Progress("running", (("validate", "running"),)).of("last") == "DAG: validate"
    assert Progress().of("last") == "no DAG run yet"


def test_a_failed_run_names_its_failed_tasks_and_a_running_one_does_not_yet() -> None:
    tasks = (("validate", "success"), ("first.build", "failed"), ("switch", "upstream_failed"))
    assert Progress("failed", tasks).failed == "first.build"
    assert Progress("running", tasks).failed == ""
    assert Progress("success").live


ROWS = [
    Row("b", "preparation", "running", "http://x", last=False, numbers=Numbers(100, 71, 0, 0.0042)),
    Row("b", "filter", "starting"),
]


def test_anomalies_stand_where_they_come_out() -> None:
    assert cells(ROWS[0], {"b": 7}) == ["b", "preparation", "running", "100", "71", "", "4.2 ms"]
    assert cells(ROWS[1], {"b": 7}) == ["b", "filter", "starting", "0", "0", "7", "–"]


def test_the_table_shows_every_unit() -> None:
    console = Console(file=StringIO(), width=120)
    console.print(table(ROWS, {"b": 7}, "a caption"))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert all(word in text for word in ("preparation", "filter", "p50 latency", "4.2 ms", "a caption"))


def test_without_a_terminal_there_are_plain_lines() -> None:
    out = StringIO()
    screen = Screen(Console(file=out, width=120))
    with LiveTable(screen) as live:
        live.show(ROWS, {}, "first")
        live.show(ROWS, {}, "too soon for another line")
    assert out.getvalue().count("preparation") == 1
    assert "\x1b" not in out.getvalue()


def test_the_time_line_has_every_phase_in_order() -> None:
    screen = Screen(Console(file=StringIO()))
    with screen.phase("first"), screen.phase("inside"):
        pass
    screen.console.print(screen.timeline())
    text = screen.console.file.getvalue()  # type: ignore[attr-defined]
    assert text.rindex("first") < text.rindex("inside")
