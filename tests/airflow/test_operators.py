"""What a stage says when it cannot do its work, and whether Airflow tries again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException
from mlpacker_airflow import builder, operators
from mlpacker_airflow.builder import Origin

from packer_lib import padl
from packer_lib.errors import BuildFailed, Busy, DeployFailed, MLPackerError, PolicyRefused, RollbackFailed
from packer_lib.hosts import Unreachable
from tests.airflow import padls


class Fails(operators.StageOperator):
    """A stage that ends with the error it is given."""

    def __init__(self, *, error: MLPackerError, **kwargs: Any) -> None:
        super().__init__(task_id="fails", **kwargs)
        self.error = error

    def work(self, run: operators.Run) -> None:
        raise self.error


class FailsInTest(Fails):
    final = operators.TestOperator.final


CONTEXT: dict[str, Any] = {"params": {}, "run_id": "run"}


@pytest.mark.parametrize(
    ("operator", "error", "again"),
    [
        (Fails, Busy("held by someone"), True),
        (Fails, BuildFailed("no connection to the package index"), True),
        (FailsInTest, BuildFailed("the model does not load"), False),
        (Fails, PolicyRefused("not here"), False),
        (Fails, DeployFailed("does not answer; rolled back"), False),
        (Fails, Unreachable("m1: no answer"), True),
        (Fails, RollbackFailed("and the way back failed"), False),
    ],
)
def test_only_what_another_try_can_mend_is_tried_again(
    operator: type[Fails], error: MLPackerError, again: bool
) -> None:
    with pytest.raises(AirflowException) as raised:
        operator(error=error).execute(CONTEXT)
    assert isinstance(raised.value, AirflowFailException) is not again
    assert raised.value.__suppress_context__


def validate(tmp_path: Path, document: dict[str, Any]) -> Any:
    path = tmp_path / "pipeline.json"
    text = padls.text(document)
    path.write_text(text)
    return builder.build(padl.read_text(text, str(path)), Origin(str(path), text, 0.0)).get_task("validate")


def test_a_missing_model_is_named_with_its_line_and_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLPACKER__PATHS__HOME", str(tmp_path / "home"))
    task = validate(tmp_path, padls.rest())
    said: list[str] = []
    monkeypatch.setattr(task.log, "error", lambda text, *args: said.append(text % args))
    with pytest.raises(AirflowFailException, match="PadlInvalid"):
        task.execute(CONTEXT)
    assert said[0].startswith(f"{tmp_path / 'pipeline.json'}:12:")
    assert "pipeline.iris.props.path" in said[0]


class Works(operators.StageOperator):
    """A stage that is told to stop while it is at work."""

    def work(self, run: operators.Run) -> None:
        self.on_kill()


def test_a_stage_that_is_stopped_ends_where_it_is_and_one_that_has_ended_is_left_alone() -> None:
    task = Works(task_id="works")
    with pytest.raises(SystemExit):
        task.execute(CONTEXT)
    task.on_kill()


@pytest.mark.parametrize("stage", ["iris.stage", "switch", "verify"])
def test_a_dry_run_stops_before_anything_is_staged(stage: str) -> None:
    text = padls.text(padls.rest())
    dag = builder.build(padl.read_text(text, "/p.json"), Origin("/p.json", text, 0.0))
    with pytest.raises(AirflowSkipException):
        dag.get_task(stage).execute({"params": {"dry_run": True}, "run_id": "run"})
