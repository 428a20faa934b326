"""A plan as a DAG. Pure: reads nothing, connects to nothing, imports no framework.

validate ─▶ <unit>: template ─▶ build ─▶ test ─▶ (push) ─▶ stage ─▶ switch ─▶ verify
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import DAG, CronTriggerTimetable, Param, TaskGroup

from mlpacker_airflow import document, operators, secrets
from mlpacker_airflow.timetable import OnChangeTimetable
from packer_lib.errors import PadlInvalid, Problem
from packer_lib.padl.model import Pipeline
from packer_lib.plan import Plan, plan

MAX_RETRY_DELAY = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a pipeline comes from: the PADL file's path and text, and since when (seconds) that is its text.

    An example is started by hand only. `pools` are those of its machines that exist in Airflow.
    """

    path: str
    text: str
    changed: float
    example: bool = False
    warnings: tuple[str, ...] = ()
    pools: frozenset[str] = frozenset()


class Broken(DAG):
    """What a PADL file with problems becomes.

    Airflow validates a DAG before it takes it, and what is raised then becomes the file's import error as it is; an
    exception raised while the file is executed would bring its traceback along.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("mlpacker.broken", schedule=None)
        self._problems = tuple(problems)

    def validate(self) -> None:
        raise PadlInvalid(self._problems)


def build(pipeline: Pipeline, origin: Origin) -> DAG:
    """The DAG `mlpacker.<id>` of one PADL file."""
    planned = plan(pipeline)
    dry_run = Param(False, type="boolean", title="Dry run", description="Build and test; nothing goes live.")
    dag = DAG(
        dag_id(pipeline.id),
        description=" ".join(pipeline.description.split())[:200] or None,
        doc_md=document.markdown(pipeline, planned, origin.text, origin.warnings),
        schedule=_schedule(pipeline, origin),
        tags=_tags(pipeline, origin.example),
        params={"dry_run": dry_run},
        max_active_runs=1,
        catchup=False,
        is_paused_upon_creation=False,
        default_args=_defaults(pipeline),
    )
    with dag:
        _tasks(planned, secrets.literals(origin.text, origin.path), origin.warnings)
    return dag


def failing(name: str, report: str) -> DAG:
    """A DAG that shows what is wrong and fails saying it.

    For the generator: there, an import error because of one file would take the DAGs of all others with it.
    """
    tags, doc = ["mlpacker", "padl:invalid"], document.points(report.splitlines())
    with DAG(name, schedule="@once", tags=tags, doc_md=doc, catchup=False, is_paused_upon_creation=False) as dag:
        operators.ReportOperator(task_id=operators.VALIDATE, report=report)
    return dag


def dag_id(pipeline_id: str) -> str:
    return f"mlpacker.{pipeline_id}"


def _schedule(pipeline: Pipeline, origin: Origin) -> Any:
    if origin.example:
        return None
    if pipeline.autodeploy:
        return OnChangeTimetable(datetime.fromtimestamp(origin.changed, UTC), pipeline.schedule)
    return CronTriggerTimetable(pipeline.schedule, timezone="UTC") if pipeline.schedule else None


def _tags(pipeline: Pipeline, example: bool) -> list[str]:
    own = ["mlpacker", f"package-mode:{pipeline.package_mode}", f"deploy-mode:{pipeline.deploy_mode}"]
    return [*own, *(["example"] if example else []), *pipeline.tags]


def _defaults(pipeline: Pipeline) -> dict[str, Any]:
    return {
        "owner": pipeline.owner,
        "retries": pipeline.retries,
        "retry_delay": timedelta(seconds=5),
        "retry_exponential_backoff": 2.0,
        "max_retry_delay": MAX_RETRY_DELAY,
    }


def _tasks(planned: Plan, masked: Sequence[str], warnings: Sequence[str]) -> None:
    validate = operators.ValidateOperator(task_id=operators.VALIDATE, planned=planned, warnings=warnings, masked=masked)
    switch = operators.SwitchOperator(task_id="switch", masked=masked)
    verify = operators.VerifyOperator(task_id="verify", masked=masked)
    for unit in reversed(planned.units):  # as values flow
        with TaskGroup(unit.name, tooltip=" → ".join(step.name for step in unit.steps)):
            former: Any = validate
            for name, operator in _stages(planned):
                task = operator(task_id=name, unit=unit.name, masked=masked)
                former >> task
                former = task
            former >> switch
    switch >> verify


def _stages(planned: Plan) -> list[tuple[str, type[operators.StageOperator]]]:
    """A unit's tasks in their order; an image is pushed only for machines that pull it."""
    push = planned.containerized and planned.deploy_mode == "remote"
    return [
        ("template", operators.TemplateOperator),
        ("build", operators.BuildOperator),
        ("test", operators.TestOperator),
        *([("push", operators.PushOperator)] if push else []),
        ("stage", operators.StageReleaseOperator),
    ]
