"""How far Airflow is with the three DAGs, asked of its REST API."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from packer_lib.standalone import Airflow


@dataclass(frozen=True, slots=True)
class Progress:
    """The latest run of one DAG: its state ("" before the first), and the state of each of its tasks."""

    run: str = ""
    tasks: tuple[tuple[str, str], ...] = ()

    @property
    def live(self) -> bool:
        return self.run == "success"

    @property
    def busy(self) -> bool:
        return self.run in ("queued", "running")

    @property
    def failed(self) -> str:
        """The tasks that failed, once the run as a whole has; empty otherwise."""
        return ", ".join(self._that_are("failed")) or "it has no failed task" if self.run == "failed" else ""

    def of(self, unit: str) -> str:
        """What is being done for `unit`, or for all units together, in a word or two."""
        if not self.run:
            return "no DAG run yet"
        ours = [task.rpartition(".") for task in self._that_are("running")]
        busy = [verb for group, _, verb in ours if group in ("", unit)]
        return f"DAG: {', '.join(busy)}" if busy else f"DAG {self.run}"

    def _that_are(self, state: str) -> list[str]:
        return sorted(task for task, of_task in self.tasks if of_task == state)


class Deployments:
    """The latest run of the DAG of each of `pipelines`."""

    def __init__(self, airflow: Airflow, pipelines: Iterable[str]) -> None:
        self._airflow = airflow
        self._pipelines = tuple(pipelines)
        self._token = airflow.token()

    def progress(self) -> Mapping[str, Progress]:
        """By pipeline; empty progress while there is no DAG yet."""
        return {pipeline: self._of(f"/api/v2/dags/mlpacker.{pipeline}/dagRuns") for pipeline in self._pipelines}

    def _of(self, path: str) -> Progress:
        try:
            runs = self._ask(f"{path}?order_by=-run_after&limit=1")["dag_runs"]
            if not runs:
                return Progress()
            tasks = self._ask(f"{path}/{runs[0]['dag_run_id']}/taskInstances")["task_instances"]
        except OSError:  # no DAG yet (404), or an Airflow too busy to answer
            return Progress()
        return Progress(runs[0]["state"], tuple((task["task_id"], task["state"] or "") for task in tasks))

    def _ask(self, path: str) -> Any:
        return self._airflow.ask("GET", path, token=self._token)
