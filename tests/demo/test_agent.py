"""The metrics agent: what a record says, and the file it writes."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest

from packer_lib.demo.agent import COLUMNS, Counters, queue, read_counters, record


def counters(**changed: float) -> Counters:
    values = {"at": 100.0, "busy": 10.0, "total": 40.0, "network_in": 1000, "disk_read": 5000} | changed
    return Counters(**values)  # type: ignore[arg-type]


def test_a_record_holds_rates_between_two_readings() -> None:
    found = record(counters(), counters(at=102.0, busy=11.0, total=44.0, network_in=1500, disk_read=5000))
    assert found == {"timestamp": 102.0, "cpu": 25.0, "network_in": 250, "disk_read": 0}


def test_a_counter_that_started_again_counts_as_nothing() -> None:
    found = record(counters(), counters(at=101.0, busy=10.0, total=40.0, network_in=3, disk_read=0))
    assert (found["cpu"], found["network_in"], found["disk_read"]) == (0.0, 0, 0)


def test_this_machine_can_be_read_twice() -> None:
    before = read_counters()
    sum(range(200_000))
    found = record(before, read_counters())
    assert tuple(found) == COLUMNS
    assert 0 <= found["cpu"] <= 100
    assert found["timestamp"] >= before.at


def test_recording_writes_a_row_per_beat_and_ends_by_itself(tmp_path: Path) -> None:
    target = tmp_path / "metrics.csv"
    argv = [sys.executable, "-m", "packer_lib.demo.agent", "--rate", "20", "--seconds", "1", "--record", str(target)]
    subprocess.run(argv, check=True, timeout=60)
    with target.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert 5 <= len(rows) <= 20
    times = [float(row["timestamp"]) for row in rows]
    assert times == sorted(times)


def test_an_address_is_host_port_and_topic() -> None:
    found = queue("mqtt", "127.0.0.1:1883/site/metrics")
    assert (found.connector, found.server, found.port, found.topic) == ("mqtt", "127.0.0.1", 1883, "site/metrics")


@pytest.mark.parametrize("address", ["localhost/metrics", "localhost:x/metrics", "localhost:1883", ":1883/metrics"])
def test_another_form_of_address_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="not host:port/topic"):
        queue("mqtt", address)


def test_an_agent_with_nowhere_to_write_says_so() -> None:
    done = subprocess.run([sys.executable, "-m", "packer_lib.demo.agent"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "nowhere to write" in done.stderr
