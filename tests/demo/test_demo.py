"""`make demo ARGS=--once` as it is: three cases deployed by a real Airflow, and nothing left behind."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from packer_lib.demo import processes, stage
from packer_lib.demo.cases import CASES
from tests.support import ROOT

# In words of its own: what the demo must have shown by its end.
SEEN = (
    "✓ case A: the model alone, behind REST: lstm running",
    "✓ case B: three steps in one process, Kafka in and out: preparation running",
    "✓ case C: three processes, MQTT and Kafka: preparation running, lstm running, outliers_filter running",
    "✓ demo-a-rest answered",
    "✓ demo-a-rest noticed the burst",
    "✓ demo-b-atomic noticed the burst",
    "✓ demo-c-distributed noticed the burst",
    "All done after",
)


def demo() -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "packer_lib.demo", "--once"]
    env = {**os.environ, "COLUMNS": "200"}
    return subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, timeout=1100)


@pytest.mark.airflow
@pytest.mark.native
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_demo_shows_all_three_cases_and_leaves_nothing_behind() -> None:
    done = demo()
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert [text for text in SEEN if text not in said] == []
    assert processes.belonging("no mark", stage.STATE) == []
    assert [case.file for case in CASES if (stage.PIPELINES / case.file).exists()] == []
    assert not (stage.STATE / "mlpacker" / "releases" / CASES[0].id).exists()
    assert processes.killed(stage.STATE) is None


def test_a_real_broker_that_is_not_there_ends_the_demo_at_once() -> None:
    argv = [sys.executable, "-m", "packer_lib.demo", "--once"]
    env = {**os.environ, "MLPACKER__DEMO__MQTT": "127.0.0.1:1", "COLUMNS": "200"}
    done = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "MLPACKER__DEMO__MQTT: nobody listens at 127.0.0.1:1" in done.stdout
    assert "start the broker" in done.stdout
    assert not (stage.STATE / "run.json").exists()
