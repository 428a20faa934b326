"""A PADL text as a DAG: its tasks, when it runs, and that nothing in the file becomes markup, a template or a leak."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pendulum
import pytest
from airflow.sdk import DAG
from airflow.serialization.serialized_objects import DagSerialization
from airflow.timetables.base import DataInterval, TimeRestriction
from mlpacker_airflow import builder, document, operators, secrets
from mlpacker_airflow.builder import Origin

from packer_lib import padl
from tests.airflow import padls

HOSTILE = "{{ 7 * 7 }} {% raise %} {# gone #} </script><b>bold</b> [x](javascript:y) `code`\\"
CHANGED = 1_700_000_000.5
SECRET = "hunter2-s3cret"


def build(document: dict[str, Any], example: bool = False, pools: frozenset[str] = frozenset()) -> DAG:
    text = padls.text(document)
    origin = Origin("/pipelines/file.json", text, CHANGED, example, pools=pools)
    return builder.build(padl.read_text(text, "/pipelines/file.json"), origin)


def stored(dag: DAG) -> str:
    return json.dumps(DagSerialization.to_dict(dag))


def edges(dag: DAG) -> set[tuple[str, str]]:
    return {(task.task_id, below) for task in dag.tasks for below in task.downstream_task_ids}


def test_a_unit_is_validated_templated_built_tested_and_staged_before_anything_is_switched() -> None:
    chain = ["validate", "iris.template", "iris.build", "iris.test", "iris.stage", "switch", "verify"]
    dag = build(padls.rest())
    assert dag.dag_id == "mlpacker.iris"
    assert edges(dag) == set(pairwise(chain))


def test_units_are_prepared_side_by_side_and_switched_together() -> None:
    dag = build(padls.stream())
    assert {task for task, below in edges(dag) if below == "switch"} == {"clean.stage", "find.stage"}
    assert {below for task, below in edges(dag) if task == "validate"} == {"clean.template", "find.template"}


@pytest.mark.parametrize(("containerized", "pushed"), [(True, True), (False, False)])
def test_only_images_for_other_machines_are_pushed(containerized: bool, pushed: bool) -> None:
    assert ("find.push" in build(padls.stream(containerized=containerized)).task_ids) is pushed


@pytest.mark.parametrize(("containerized", "on_machine"), [(True, {"stage"}), (False, {"build", "test", "stage"})])
def test_what_is_logged_in_on_a_machine_is_in_its_pool_if_there_is_one(
    containerized: bool, on_machine: set[str]
) -> None:
    dag = build(padls.stream(containerized=containerized), pools=frozenset({"mlpacker.10.0.0.2"}))
    pooled = {task.task_id: task.pool for task in dag.tasks if task.pool != "default_pool"}
    assert pooled == {f"find.{name}": "mlpacker.10.0.0.2" for name in on_machine}


def test_a_unit_is_staged_after_the_one_that_it_calls() -> None:
    dag = build(padls.chain())
    assert ("iris.stage", "scale.stage") in edges(dag)
    assert ("scale.stage", "iris.stage") not in edges(dag)


def test_an_image_is_built_and_tested_in_a_container_that_reaches_nothing() -> None:
    task = build(padls.stream()).get_task("find.test")
    assert (task.network_mode, task.mount_tmp_dir, task.auto_remove) == ("none", False, "force")
    assert task.template_fields == ()
    assert "find.build" in task.upstream_task_ids


def next_run(dag: DAG, last: datetime | None = None) -> datetime | None:
    """When Airflow would start the next run after that of `last`, from the DAG as it is in the database."""
    timetable = DagSerialization.from_dict(json.loads(stored(dag))).timetable
    interval = DataInterval.exact(pendulum.instance(last)) if last else None
    restriction = TimeRestriction(earliest=None, latest=None, catchup=False)
    run = timetable.next_dagrun_info(last_automated_data_interval=interval, restriction=restriction)
    return run.run_after if run else None


@pytest.mark.parametrize("schedule", [None, "0 3 1 1 *", "@yearly"])
def test_the_first_run_starts_by_itself_and_another_when_the_file_has_changed(schedule: str | None) -> None:
    dag = build(padls.rest(**({"schedule": schedule} if schedule else {})))
    changed = datetime.fromtimestamp(CHANGED, UTC)
    assert next_run(dag) == changed
    assert next_run(dag, changed - timedelta(hours=1)) == changed
    assert next_run(dag, changed) != changed


def test_without_a_schedule_there_is_one_run_for_each_change() -> None:
    assert next_run(build(padls.rest()), datetime.fromtimestamp(CHANGED, UTC)) is None


@pytest.mark.parametrize("autodeploy", [True, False])
def test_a_schedule_goes_on_after_the_first_run(autodeploy: bool) -> None:
    dag = build(padls.rest(schedule="0 3 * * *", autodeploy=autodeploy))
    now = datetime.now(UTC)
    following = next_run(dag, now)
    assert following is not None
    assert now < following <= now + timedelta(days=1)
    assert following.hour == 3


def test_without_autodeploy_the_first_run_is_the_schedules() -> None:
    first = next_run(build(padls.rest(schedule="0 3 1 1 *", autodeploy=False)))
    assert first is not None
    assert first > datetime.now(UTC)


@pytest.mark.parametrize(
    ("more", "example"),
    [({"autodeploy": False}, False), ({}, True), ({"schedule": "* * * * *"}, True)],
)
def test_nothing_but_a_person_starts_an_example_or_what_is_not_to_be_deployed(
    more: dict[str, Any], example: bool
) -> None:
    dag = build(padls.rest(**more), example)
    assert next_run(dag) is None
    assert ("example" in dag.tags) is example


def test_one_run_at_a_time_and_every_task_ends_and_retries_as_the_file_says() -> None:
    dag = build(padls.rest(retries=4, owner="plant-team"))
    assert (dag.max_active_runs, dag.catchup, dag.is_paused_upon_creation) == (1, False, False)
    for task in dag.tasks:
        assert task.retries == 4
        assert task.owner == "plant-team"
        assert task.execution_timeout is not None
        assert task.retry_exponential_backoff == 2.0


def test_hostile_text_stays_what_it_is_in_everything_airflow_may_render() -> None:
    dag = build(padls.rest(owner=HOSTILE, tags=[HOSTILE], description=HOSTILE))
    context = {"ti": None, "params": {}, "run_id": "r"}
    for task in dag.tasks:
        before = {name: getattr(task, name) for name in ("owner", "doc_md", *task.template_fields)}
        task.render_template_fields(context)
        assert {name: getattr(task, name) for name in before} == before
        assert task.owner == HOSTILE
        assert not task.template_fields
    assert HOSTILE in dag.tags
    assert dag.description == HOSTILE
    assert dag.tags >= {"mlpacker", "package-mode:api", "deploy-mode:local"}


def test_nothing_in_a_description_is_markup_in_the_documentation() -> None:
    doc = build(padls.rest(description=HOSTILE)).doc_md
    assert "<" not in doc.replace("\\<", "")
    assert "](" not in doc
    assert "\\{\\{ 7 \\* 7 \\}\\}" in doc


def test_the_documentation_draws_the_plan_and_names_the_text_it_is_of() -> None:
    doc = build(padls.stream()).doc_md
    assert document.escape("in (kafka raw) ─▶ [ clean ] on m1 ─▶ between (kafka clean)") in doc
    assert document.escape("between (kafka clean) ─▶ [ find ] on m2 ─▶ out (kafka found)") in doc
    assert doc.index("clean") < doc.index("find")
    assert "sha256 " in doc


def test_a_literal_password_is_nowhere_in_what_airflow_stores() -> None:
    dag = build(padls.stream(password=SECRET))
    assert SECRET not in stored(dag)
    assert SECRET not in dag.doc_md
    validate = dag.get_task("validate")
    assert secrets.literals(validate.text, validate.file) == [SECRET, SECRET]
    assert SECRET not in str(operators.to_dict(validate.planned))


def test_a_dag_that_is_built_twice_is_stored_as_the_same() -> None:
    assert stored(build(padls.rest())) == stored(build(padls.rest()))
