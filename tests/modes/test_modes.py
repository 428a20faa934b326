"""Drop a file, get correct answers, take the file away, find nothing: once for every mode and shape."""

from __future__ import annotations

import os
from typing import Any

import pytest

from tests.lab import lab
from tests.modes import mode as modes
from tests.modes.conversation import PATIENCE, make_topics, predict, remove_topics
from tests.modes.installation import Installation, model
from tests.modes.mode import Mode
from tests.support import wait_for

pytestmark = [pytest.mark.lab, pytest.mark.airflow, pytest.mark.slow, pytest.mark.timeout(2400)]
CHOSEN = modes.ALL if os.environ.get("MLPACKER_MODES") == "all" else modes.SHORT


@pytest.mark.parametrize("mode", CHOSEN, ids=lambda mode: mode.id)
def test_dropped_answering_right_removed_and_gone(installed: Installation, mode: Mode) -> None:
    kafka = [f"{mode.id}.between"] if mode.package == "stream" and mode.shape == "distributed" else []
    make_topics(lab.kafka, *kafka)
    document = modes.document(mode, installed.infra(*_machines(mode)))
    with installed.live(f"{mode.id}.json", document) as units:
        assert set(units) == ({"scale"} if mode.shape == "atomic" else {"scale", "iris"})
        assert {unit["machine"] for unit in units.values()} == (set(mode.machines) or {None})
        assert _answers(installed, mode, units["scale"]["endpoint"]) == expected()
        assert set(installed.left(mode.id, units)) >= {*mode.machines}
        installed.remove(f"{mode.id}.json", mode.id)
        assert installed.left(mode.id, units) == {}
    remove_topics(lab.kafka, *kafka)


def _machines(mode: Mode) -> tuple[str, ...]:
    """Locally, machines only say which steps share a process."""
    return mode.machines or (("edge_node", "cloud_1") if mode.shape == "distributed" else ())


def _answers(installed: Installation, mode: Mode, endpoint: str) -> list[Any]:
    """What the pipeline makes of `VALUES`, in their order."""
    if mode.package == "api":
        return predict(endpoint, modes.VALUES)  # type: ignore[no-any-return]
    raw, found = f"{mode.id}/raw", f"{mode.id}/found"
    installed.topics.listen(found)
    installed.topics.send(raw, modes.VALUES)
    wait_for(lambda: len(installed.topics.came[found]) >= len(modes.VALUES), PATIENCE, f"all answers at {found}")
    return sorted(installed.topics.came[found], key=lambda answer: answer["id"])


def expected() -> list[Any]:
    """What the steps make of them when they are called directly."""
    classes = model().predict([[length / 10 for length in row] for row in modes.ROWS])
    return [{"id": number, "name": modes.NAMES[kind]} for number, kind in enumerate(classes)]
