"""The DAG that takes down what no PADL file describes any more: `mlpacker-retire`, one task per pipeline.

The bundle writes it anew whenever a file has been gone for the time of grace, or comes back after it; its run is due
at once. (Its id is no pipeline's: theirs begin with `mlpacker.`.)
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowSkipException

from mlpacker_airflow import folder, gone, machines, operators
from mlpacker_airflow.builder import MAX_RETRY_DELAY
from mlpacker_airflow.gone import Known
from mlpacker_airflow.pinned import comment
from mlpacker_airflow.timetable import OnChangeTimetable

DAG_ID = "mlpacker-retire"
FILE = "mlpacker_retire.py"
RETRIES = 6
CODE = """\
from mlpacker_airflow.retire import dag_of

dag = dag_of(__file__)
"""
DOC = """\
Pipelines whose PADL file is gone from the watched folder: each is stopped and removed on every machine it ran on, once
the file has been gone for `MLPACKER__DEPLOY__RETIRE_AFTER` seconds. A file that comes back before then changes nothing;
`MLPACKER__DEPLOY__RETIRE=false`, or pausing this DAG, leaves everything running.
"""


class Lost(msgspec.Struct, frozen=True):
    """The pipelines without a file, as the bundle saw `folder`; `after` is the grace in seconds."""

    folder: str
    pipelines: dict[str, Known]
    after: float


def dag_file(lost: Lost) -> str:
    """The text of the DAG file. Names are in comments, so that they cannot become code."""
    lines = [
        comment(f"{name}: {known.file} gone since {_moment(known.since).isoformat()}")
        for name, known in sorted(lost.pipelines.items())
    ]
    return "\n".join(["# Airflow DAG made by MLPacker", *lines, CODE])


def write(lost: Lost, path: Path) -> None:
    path.with_suffix(".pinned").write_bytes(msgspec.json.encode(lost))
    path.write_text(dag_file(lost), encoding="utf-8")


def dag_of(dag_path: str) -> DAG:
    return build(msgspec.json.decode(Path(dag_path).with_suffix(".pinned").read_bytes(), type=Lost))


def build(lost: Lost) -> DAG:
    due = _due(lost.pipelines, lost.after)
    with DAG(
        DAG_ID,
        schedule=OnChangeTimetable(due) if due else None,
        description="Takes down what no PADL file describes any more",
        doc_md=DOC,
        tags=["mlpacker"],
        max_active_runs=1,
        catchup=False,
        is_paused_upon_creation=False,
        default_args={
            "owner": "mlpacker",
            "retries": RETRIES,
            "retry_delay": timedelta(seconds=10),
            "retry_exponential_backoff": 2.0,
            "max_retry_delay": MAX_RETRY_DELAY,
        },
    ) as dag:
        for name in sorted(lost.pipelines):
            RetireOperator(task_id=name, pipeline=name, folder=lost.folder)
    return dag


def _due(pipelines: Mapping[str, Known], after: float) -> datetime | None:
    return _moment(max(known.since for known in pipelines.values()) + after) if pipelines else None


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


class RetireOperator(operators.StageOperator):
    """Stops and removes every unit of `pipeline`, unless a file describes it (again)."""

    ui_color = "#f1f3f4"
    ui_fgcolor = "#5f6368"

    def __init__(self, *, pipeline: str, folder: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.pipeline = pipeline
        self.folder = folder

    def work(self, run: operators.Run) -> list[str]:
        from packer_lib import release

        self._require_gone()
        places = machines.of_pipeline(self.pipeline, run.settings)
        with machines.opened(places, run.settings) as fleet:
            names = release.undeploy(self.pipeline, run.settings, progress=self.log.info, fleet=fleet)
        self.log.info("retired: %s", ", ".join(names) or "nothing of it was deployed")
        return names

    def _require_gone(self) -> None:
        """Looked at again, for a run may be cleared long after; `OSError` (and another try) when it cannot be seen."""
        place = Path(self.folder)
        entries = [folder.read(place, item) for item in folder.scan(place)]
        again = gone.follow({self.pipeline: Known("")}, entries, frozenset(), 1.0)[self.pipeline]
        if not again.since:
            raise AirflowSkipException(f"{self.pipeline} is described by {again.file} (again): it stays")
