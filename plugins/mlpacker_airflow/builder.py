"""A plan as a DAG. Pure: reads nothing, connects to nothing, imports no framework.

validate ─▶ <unit>: template ─▶ build ─▶ test ─▶ (push) ─▶ stage ─▶ switch ─▶ verify
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import DAG, CronTriggerTimetable, Param, TaskGroup

from mlpacker_airflow import document, operators, pools
from mlpacker_airflow.timetable import OnChangeTimetable
from packer_lib.errors import PadlInvalid, Problem
from packer_lib.padl.model import Pipeline
from packer_lib.plan import Plan, Unit, plan

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
        _tasks(planned, origin)
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


def _tasks(planned: Plan, origin: Origin) -> None:
    source = {"text": origin.text, "file": origin.path}
    validate = operators.ValidateOperator(
        task_id=operators.VALIDATE, planned=planned, warnings=origin.warnings, **source
    )
    switch = operators.SwitchOperator(task_id="switch", **source)
    verify = operators.VerifyOperator(task_id="verify", **source)
    staged: dict[str, Any] = {}
    for unit in reversed(planned.units):  # as values flow
        with TaskGroup(unit.name, tooltip=_tooltip(unit)):
            former: Any = validate
            for stage in _stages(planned):
                pool = _pool(planned, unit, origin.pools) if stage.on_machine else {}
                task = stage.operator(task_id=stage.name, unit=unit.name, **source, **pool)
                former >> task
                former = task
            staged[unit.name] = former
            former >> switch
    for unit in planned.units:
        for called in unit.links:  # whoever calls another knows where that will be
            staged[called] >> staged[unit.name]
    switch >> verify


@dataclass(frozen=True, slots=True)
class Stage:
    """One task of a unit; `on_machine`: it is logged in on the unit's machine."""

    name: str
    operator: Any
    on_machine: bool = False


def _stages(planned: Plan) -> list[Stage]:
    """A unit's tasks in their order; an image is pushed only for machines that pull it."""
    return _container_stages(planned) if planned.containerized else _native_stages()


def _native_stages() -> list[Stage]:
    return [
        Stage("template", operators.TemplateOperator),
        Stage("build", operators.BuildOperator, on_machine=True),
        Stage("test", operators.TestOperator, on_machine=True),
        Stage("stage", operators.StageReleaseOperator, on_machine=True),
    ]


def _container_stages(planned: Plan) -> list[Stage]:
    from mlpacker_airflow.container_test import TestImageOperator

    return [
        Stage("template", operators.TemplateOperator),
        Stage("build", operators.BuildImageOperator),
        Stage("test", TestImageOperator),
        *([Stage("push", operators.PushOperator)] if planned.deploy_mode == "remote" else []),
        Stage("stage", operators.StageReleaseOperator, on_machine=True),
    ]


def _pool(planned: Plan, unit: Unit, there: frozenset[str]) -> dict[str, str]:
    """The pool of the unit's machine, if it exists."""
    wanted = {pools.name(machine.hostname) for machine in planned.machines if machine.id == unit.machine} & there
    return {"pool": wanted.pop()} if wanted else {}


def _tooltip(unit: Unit) -> str:
    where = f" on {unit.machine}" if unit.machine else ""
    return " → ".join(step.name for step in unit.steps) + where
