"""The sixteen documents are what their names say, before anything is deployed."""

from __future__ import annotations

import pytest

from packer_lib import padl, plan
from tests.airflow import padls
from tests.modes import __main__ as report
from tests.modes import mode as modes
from tests.modes.mode import ALL, Mode


@pytest.mark.parametrize("mode", ALL, ids=lambda mode: mode.id)
def test_the_plan_of_each_is_of_its_mode_and_shape(mode: Mode) -> None:
    infra = {name: {"hostname": name} for name in ("edge_node", "cloud_1", "cloud_2", "bare")}
    summary = plan.summary(plan.plan(padl.read_text(padls.text(modes.document(mode, infra)), "/p/file.json")))
    assert f"{summary['mode']}-{summary['shape']}" == mode.id
    assert [unit["machine"] for unit in summary["units"]] == [
        *(mode.machines or [None] * (1 if mode.shape == "atomic" else 2))
    ]


def test_the_table_has_a_line_for_each_mode_and_says_what_failed() -> None:
    outcomes = {mode.id: "passed" for mode in ALL} | {"stream-remote-native-atomic": "failed"}
    lines = report.table(outcomes).splitlines()
    assert len(lines) == 2 + 8
    assert "| stream | remote | false | **fails** | passes |" in lines
    assert report.table({}).count("not run") == 16
