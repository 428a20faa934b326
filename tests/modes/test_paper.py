"""The paper's three case studies on three machines with both brokers, through Airflow, from its own listings."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.lab import lab
from tests.modes import paper
from tests.modes.conversation import consume, make_topics, predict, produce, remove_topics
from tests.modes.installation import Installation

pytestmark = [pytest.mark.lab, pytest.mark.airflow, pytest.mark.slow, pytest.mark.timeout(3000)]


@pytest.fixture(scope="module")
def trusted(installed: Installation) -> Installation:
    """PADL 1.0 cannot pin a host key, so a person trusts each machine once; with what the listings need beside them."""
    program = Path(sys.executable).with_name("mlpacker")
    for name in paper.HOSTS.values():
        words = [str(program), "trust", name, "--yes"]
        subprocess.run(words, check=True, env=os.environ, capture_output=True, text=True)
    paper.place(installed.pipelines)
    return installed


@pytest.fixture
def topics() -> Iterator[None]:
    make_topics(lab.kafka, "test3", "test4")
    yield
    remove_topics(lab.kafka, "test3", "test4")


def close(anomaly: dict[str, Any]) -> dict[str, Any]:
    return {**anomaly, "error": pytest.approx(anomaly["error"], rel=1e-3)}


def test_listing_1_on_three_machines_with_both_brokers(trusted: Installation, topics: None) -> None:
    with trusted.live("listing1.json", paper.listing(1)) as units:
        assert {name: unit["machine"] for name, unit in units.items()} == {
            "preparation": "m1",
            "lstm": "m2",
            "outliers_filter": "m3",
        }
        expected = paper.anomalies(paper.records())
        trusted.topics.send("test1", paper.records())
        assert consume(lab.kafka, "test4", len(expected)) == [close(anomaly) for anomaly in expected]
        before = containers()

        again = trusted.deploy_again("1")
        assert {name: unit["release"] for name, unit in again.items()} == {n: u["release"] for n, u in units.items()}
        assert containers() == before
        first, second = (seconds(run) for run in trusted.running.runs("1")[-2:])
        print(f"listing 1: first deploy {first:.0f} s, second {second:.0f} s")

        assert set(trusted.left("1", units)) >= {*paper.HOSTS.values()}
        trusted.remove("listing1.json", "1")
        assert trusted.left("1", units) == {}


def containers() -> dict[str, str]:
    """What runs on the three machines, and since when."""
    words = ("docker", "ps", "--no-trunc", "--format", "{{.ID}} {{.CreatedAt}}")
    return {name: lab.machine(name).exec(*words) for name in paper.HOSTS.values()}


def seconds(run: dict[str, Any]) -> float:
    begun, ended = (datetime.fromisoformat(run[name]) for name in ("start_date", "end_date"))
    return (ended - begun).total_seconds()


@pytest.mark.skipif(os.environ.get("MLPACKER_MODES") != "all", reason="done by make modes")
def test_case_a_the_model_alone_behind_rest(trusted: Installation) -> None:
    with trusted.live("case-a.json", paper.listing(2)) as units:
        window = [[20.0, 5000.0, 0.0]] * 30
        (answer,) = predict(units["lstm"]["endpoint"], [window])
        (direct,) = paper.reconstruct([window])
        assert flat(answer) == pytest.approx(flat(direct), rel=1e-3)
        trusted.remove("case-a.json", "1")
        assert trusted.left("1", units) == {}


def flat(rows: list[list[float]]) -> list[float]:
    return [value for row in rows for value in row]


@pytest.mark.skipif(os.environ.get("MLPACKER_MODES") != "all", reason="done by make modes")
def test_case_b_three_steps_in_one_process_kafka_in_and_out(trusted: Installation, topics: None) -> None:
    with trusted.live("case-b.json", paper.listing(3)) as units:
        assert set(units) == {"preparation"}
        expected = paper.anomalies(paper.records())
        produce(lab.kafka, "test3", paper.records())
        assert consume(lab.kafka, "test4", len(expected)) == [close(anomaly) for anomaly in expected]
        trusted.remove("case-b.json", "1")
        assert trusted.left("1", units) == {}
