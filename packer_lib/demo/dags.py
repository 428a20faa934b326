"""How far Airflow is with the three DAGs, asked of its REST API."""

from __future__ import annotations

import urllib.error
from collections.abc import Iterable
from typing import Any

from packer_lib.standalone import Airflow


class Deployments:
    """The latest run of the DAG of each of `pipelines`."""

    def __init__(self, airflow: Airflow, pipelines: Iterable[str]) -> None:
        self._airflow = airflow
        self._pipelines = tuple(pipelines)
        self._token = airflow.token()

    def states(self) -> dict[str, str]:
        """By pipeline, in few words: the tasks that are running, or what it waits for; "failed: …" if it did."""
        return {pipeline: self._state(f"/api/v2/dags/mlpacker.{pipeline}") for pipeline in self._pipelines}

    def _state(self, dag: str) -> str:
        try:
            runs = self._ask(f"{dag}/dagRuns?order_by=-run_after&limit=1")["dag_runs"]
            if not runs:
                return "DAG there"
            tasks = self._ask(f"{dag}/dagRuns/{runs[0]['dag_run_id']}/taskInstances")["task_instances"]
        except urllib.error.HTTPError:
            return "no DAG yet"
        return describe(runs[0]["state"], {task["task_id"]: task["state"] or "" for task in tasks})

    def _ask(self, path: str) -> Any:
        return self._airflow.ask("GET", path, token=self._token)


def describe(run: str, tasks: dict[str, str]) -> str:
    """From the states of a run and of its tasks (by id)."""
    failed = [task for task, state in tasks.items() if state == "failed"]
    if run == "failed":
        return f"failed: {', '.join(sorted(failed))}"
    busy = [task for task, state in tasks.items() if state == "running"]
    return f"DAG: {', '.join(sorted(busy))}" if busy else f"DAG {run}"
