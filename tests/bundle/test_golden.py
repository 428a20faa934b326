"""Every golden pipeline gives the bundles that are written beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from packer_lib.plan import plan
from tests.bundle import golden
from tests.padl.golden import VALID, read


@pytest.mark.parametrize("case", VALID, ids=lambda case: case.parent.name)
def test_a_valid_file_gives_its_bundles(tmp_path: Path, case: Path) -> None:
    assert golden.bundles(case, tmp_path) == golden.expected(case), "right? then: python -m tests.padl.golden"


@pytest.mark.parametrize("case", VALID, ids=lambda case: case.parent.name)
def test_every_unit_of_the_plan_has_its_bundle_and_no_other(case: Path) -> None:
    assert {name.split("/")[0] for name in golden.expected(case)} == {unit.name for unit in plan(read(case)).units}


def test_the_cases_are_of_both_modes_and_use_every_connector_and_framework() -> None:
    trees = [text for case in VALID for name, text in golden.expected(case).items() if name.endswith("tree.txt")]
    for file in ("main.py", "service.py", "kafka.py", "mqtt.py", "websocket.py", "scikit_learn.py", "tensorflow.py"):
        assert any(f"{file}\n" in tree or f"{file}  " in tree for tree in trees), file
