"""The PADL files that the demo drops, and the examples they come from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from packer_lib import padl, plan
from packer_lib.demo import cases
from packer_lib.demo.brokers import Broker
from packer_lib.demo.cases import CASES, EXAMPLES, A, B, C

BROKERS = {"mqtt": Broker("127.0.0.1", 41883, "test"), "kafka": Broker("127.0.0.1", 49092, "test")}


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    folder = tmp_path / "trained"
    folder.mkdir()
    shutil.copy(EXAMPLES / "models" / "lstm.h5", folder)
    (folder / "threshold.json").write_text('{"threshold": 7, "scale": [1, 2, 3]}')
    cases.gather(folder)
    return folder


@pytest.fixture
def dropped(tmp_path: Path, trained: Path) -> list[Path]:
    return [cases.drop(case, tmp_path, trained, BROKERS) for case in CASES]


def units(file: Path) -> dict[str, list[str]]:
    return {unit["name"]: unit["steps"] for unit in plan.summary(plan.plan(padl.read(file)))["units"]}


def test_the_three_cases_plan_as_in_the_paper(dropped: list[Path]) -> None:
    rest, atomic, distributed = (units(file) for file in dropped)
    assert rest == {"lstm": ["lstm"]}
    assert atomic == {"preparation": ["preparation", "lstm", "outliers_filter"]}
    assert distributed == {name: [name] for name in ("preparation", "lstm", "outliers_filter")}


def test_dropped_files_deploy_at_once_and_examples_never(dropped: list[Path]) -> None:
    assert all(padl.read(file).autodeploy for file in dropped)
    assert not any(padl.read(file).autodeploy for file in EXAMPLES.glob("*.yaml"))


def test_dropped_files_and_examples_live_side_by_side(dropped: list[Path]) -> None:
    everything = [padl.read(file) for file in (*dropped, *sorted(EXAMPLES.glob("*.yaml")))]
    assert padl.check_set(everything) == []
    assert len({pipeline.id for pipeline in everything}) == len(everything) == 9


def test_dropped_queues_are_on_the_brokers_of_the_demo_under_topics_of_its_own(dropped: list[Path]) -> None:
    for file in dropped:
        for queue in padl.read(file).queues:
            assert (queue.server, queue.port) == ("127.0.0.1", BROKERS[queue.connector].port)
            assert queue.topic.startswith("mlpacker-demo")


def test_dropped_steps_are_the_freshly_trained_ones(dropped: list[Path], trained: Path) -> None:
    paths = {Path(step.path) for file in dropped for step in padl.read(file).steps}
    assert paths == {trained / "preparation", trained / "lstm.h5", trained / "outliers_filter"}
    assert json.loads((trained / "outliers_filter" / "threshold.json").read_text())["threshold"] == 7


def test_every_kafka_topic_is_made_and_only_those() -> None:
    topics = cases.kafka_topics()
    assert len(topics) == len(set(topics)) == 4
    assert cases.topic(B, B.source) in topics
    assert cases.topic(C, C.sink) in topics
    assert cases.topic(C, C.source) not in topics


def test_taking_away_leaves_what_others_dropped(tmp_path: Path, dropped: list[Path]) -> None:
    other = tmp_path / "other.yaml"
    other.write_text("mine")
    cases.take_away(tmp_path)
    cases.take_away(tmp_path)
    assert list(tmp_path.glob("*.yaml")) == [other]


def test_an_example_says_what_it_is_for() -> None:
    for file in EXAMPLES.glob("*.yaml"):
        pipeline = padl.read(file)
        assert pipeline.description
        assert all(step.description for step in pipeline.steps)
        assert "example" in pipeline.tags


def test_case_a_is_the_model_alone() -> None:
    assert cases.load(A)["package-mode"] == "api"
