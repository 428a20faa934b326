"""A running Airflow as its users see it: files dropped into the folder, the REST API, and what was deployed."""

from __future__ import annotations

import urllib.error
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packer_lib import settings, status
from packer_lib.standalone import Airflow
from tests.airflow import padls


@dataclass(frozen=True)
class Running:
    """An Airflow and what it may deploy into."""

    airflow: Airflow
    token: str
    settings: settings.Settings

    def ask(self, path: str, method: str = "GET", body: Any = None) -> Any:
        return self.airflow.ask(method, path, body, self.token)

    def maybe(self, path: str) -> Any:
        """The answer, or None while there is none (404)."""
        try:
            return self.ask(path)
        except urllib.error.HTTPError as error:
            if error.code != 404:
                raise
            return None

    def drop(self, name: str, document: dict[str, Any] | str) -> Path:
        """The file as `cp` would make it."""
        place = self.airflow.pipelines / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(document if isinstance(document, str) else padls.text(document), encoding="utf-8")
        return place

    def dag(self, name: str) -> Any:
        return self.maybe(f"/api/v2/dags/mlpacker.{name}")

    def gone(self, name: str) -> bool:
        found = self.dag(name)
        return found is None or found["is_stale"]

    def runs(self, name: str) -> Any:
        found = self.maybe(f"/api/v2/dags/mlpacker.{name}/dagRuns")
        return found["dag_runs"] if found else []

    def ended(self, name: str, number: int = 1) -> str:
        """How the run ended, once it has."""
        states = [run["state"] for run in self.runs(name)]
        return states[-1] if len(states) >= number and states[-1] in ("success", "failed") else ""

    def errors(self) -> dict[str, str]:
        return {error["filename"]: error["stack_trace"] for error in self.ask("/api/v2/importErrors")["import_errors"]}

    def tasks(self, name: str) -> set[str]:
        return {task["task_id"] for task in self.ask(f"/api/v2/dags/mlpacker.{name}/tasks")["tasks"]}

    def release(self, name: str) -> str:
        """The release of the pipeline's only unit."""
        (unit,) = status.status(self.settings, name)[0]["units"]
        return str(unit["release"])

    def model(self, name: str) -> str:
        """The sha256 of the model that the pipeline's only unit answers with."""
        (unit,) = status.status(self.settings, name)[0]["units"]
        return str(unit["models"][0]["sha256"])

    def log(self, name: str, task: str) -> str:
        """What a person reads in the task's log."""
        run = self.runs(name)[0]["dag_run_id"]
        found = self.ask(f"/api/v2/dags/mlpacker.{name}/dagRuns/{run}/taskInstances/{task}/logs/1")
        return "\n".join(str(line.get("event", line)) for line in found["content"])
