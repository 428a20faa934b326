"""A model that changed, by the tasks of a DAG: what they do one after the other, each with what the others left."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import joblib
import pytest
from mlpacker_airflow import builder
from mlpacker_airflow.builder import Origin

from packer_lib import padl, release, settings, status
from tests.airflow import padls
from tests.runtime.swapping import digest, line

pytestmark = [pytest.mark.native, pytest.mark.timeout(600)]
TASKS = ("validate", "iris.template", "iris.build", "iris.test", "iris.stage", "switch", "verify")


class Left(dict[str, Any]):
    """What tasks have returned, as JSON: all that the next ones see."""

    def xcom_pull(self, *, task_ids: str) -> Any:
        return self.get(task_ids)


def run(folder: Path, name: str) -> Left:
    document = padls.rest()
    document["pipeline"]["iris"]["props"] = {"path": "./model.joblib", "serializer": "joblib"}
    text, file, left = padls.text(document), folder / "pipeline.json", Left()
    file.write_text(text)
    dag = builder.build(padl.read_text(text, str(file)), Origin(str(file), text, 0.0))
    for task in TASKS:
        done = dag.get_task(task).execute({"params": {}, "run_id": name, "ti": left})
        left[task] = json.loads(json.dumps(done))
    return left


def test_a_new_model_is_a_swap_and_nothing_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLPACKER__PATHS__HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MLPACKER__DEPLOY__WATCH_SECONDS", "0")
    try:
        joblib.dump(line(0), tmp_path / "model.joblib")
        first = run(tmp_path, "first")["verify"][0]
        (before,) = status.status(settings.read(), "iris")[0]["units"]
        joblib.dump(line(1), tmp_path / "model.joblib")
        second = run(tmp_path, "second")
        (after,) = status.status(settings.read(), "iris")[0]["units"]
    finally:
        release.undeploy("iris", settings.read(), progress=print)
    assert second["iris.build"] == {"swaps": first["id"]}
    assert (after["pid"], after["release"], after["run"]) == (before["pid"], before["release"], "second")
    assert [one["sha256"] for one in after["models"]] == [digest(tmp_path / "model.joblib")]
