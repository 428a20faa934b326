"""Which pipelines are to be taken down because their file is gone, and which only look as if they were."""

from __future__ import annotations

import shutil
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowSkipException
from mlpacker_airflow import retire
from mlpacker_airflow.bundle import PadlDagBundle
from mlpacker_airflow.gone import Known
from mlpacker_airflow.retire import Lost

from tests.airflow import padls
from tests.airflow.test_bundle import put, version

Start = Callable[[], PadlDagBundle]


@pytest.fixture(autouse=True)
def no_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLPACKER__DEPLOY__RETIRE_AFTER", "0")


@pytest.fixture
def pipelines(tmp_path: Path) -> Path:
    place = tmp_path / "pipelines"
    put(place / "one.json", padls.rest("one"))
    put(place / "two.json", padls.rest("two"))
    return place


@pytest.fixture
def start(pipelines: Path) -> Start:
    """Every call is a DAG processor that has just started, over the same folder."""
    name = f"b-{uuid.uuid4().hex}"

    def started() -> PadlDagBundle:
        bundle = PadlDagBundle(name=name, source=str(pipelines), refresh_interval=1)
        bundle.initialize()
        return bundle

    return started


def lost(bundle: PadlDagBundle) -> list[str]:
    """The pipelines that the DAG takes down."""
    path = bundle.path / retire.FILE
    return sorted(task.task_id for task in retire.dag_of(str(path)).tasks) if path.exists() else []


def test_a_removed_file_is_retired_after_its_grace(
    pipelines: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLPACKER__DEPLOY__RETIRE_AFTER", "45")
    bundle = start()
    assert not (bundle.path / retire.FILE).exists()
    (pipelines / "two.json").unlink()
    before = time.time()
    bundle.refresh()
    assert not (bundle.path / retire.FILE).exists()
    bundle.clock = lambda: time.time() + 46
    bundle.refresh()
    assert lost(bundle) == ["two"]
    due = retire.dag_of(str(bundle.path / retire.FILE)).timetable.changed
    assert before + 45 <= due.timestamp() <= time.time() + 45


def test_a_file_that_comes_back_within_the_grace_was_never_gone(
    pipelines: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLPACKER__DEPLOY__RETIRE_AFTER", "45")
    bundle = start()
    text = (pipelines / "two.json").read_text()
    (pipelines / "two.json").unlink()
    bundle.refresh()
    put(pipelines / "two.json", text)
    bundle.refresh()
    bundle.clock = lambda: time.time() + 46
    bundle.refresh()
    assert not (bundle.path / retire.FILE).exists()


def test_a_file_that_comes_back_is_not_retired(pipelines: Path, start: Start) -> None:
    bundle = start()
    text = (pipelines / "two.json").read_text()
    (pipelines / "two.json").unlink()
    bundle.refresh()
    put(pipelines / "two.json", text)
    bundle.refresh()
    assert lost(bundle) == []
    assert retire.dag_of(str(bundle.path / retire.FILE)).timetable.can_be_scheduled is False


@pytest.mark.parametrize("name", ["three.json", "deeper/two.json", "two.yaml"])
def test_a_file_that_was_moved_is_not_gone(pipelines: Path, start: Start, name: str) -> None:
    bundle = start()
    (pipelines / name).parent.mkdir(exist_ok=True)
    (pipelines / "two.json").rename(pipelines / name)
    bundle.refresh()
    assert lost(bundle) == []


def test_a_file_that_broke_is_not_gone_and_one_with_another_id_is(pipelines: Path, start: Start) -> None:
    bundle = start()
    put(pipelines / "two.json", '{"version": "1.1",')
    bundle.refresh()
    assert lost(bundle) == []
    put(pipelines / "two.json", padls.rest("three"))
    bundle.refresh()
    assert lost(bundle) == ["two"]


def test_the_last_file_that_is_removed_is_gone(pipelines: Path, start: Start) -> None:
    bundle = start()
    for path in pipelines.iterdir():
        path.unlink()
    bundle.refresh()
    assert lost(bundle) == ["one", "two"]


def test_what_went_while_airflow_was_down_is_gone(pipelines: Path, start: Start) -> None:
    start()
    (pipelines / "two.json").unlink()
    assert lost(start()) == ["two"]


def test_an_empty_folder_at_the_start_says_nothing(pipelines: Path, start: Start) -> None:
    start()
    shutil.rmtree(pipelines)
    pipelines.mkdir()
    bundle = start()
    bundle.refresh()
    assert lost(bundle) == []
    put(pipelines / "one.json", padls.rest("one"))
    bundle.refresh()
    assert lost(bundle) == ["two"]


def test_another_folder_in_its_place_says_nothing_while_it_is_empty(pipelines: Path, start: Start) -> None:
    bundle = start()
    pipelines.rename(pipelines.with_name("unmounted"))
    pipelines.mkdir()
    bundle.refresh()
    assert lost(bundle) == []


def test_a_folder_that_cannot_be_read_says_nothing(pipelines: Path, start: Start) -> None:
    bundle = start()
    pipelines.rename(pipelines.with_name("unmounted"))
    with pytest.raises(FileNotFoundError):
        bundle.refresh()
    pipelines.with_name("unmounted").rename(pipelines)
    bundle.refresh()
    assert lost(bundle) == []


def test_it_can_be_switched_off(pipelines: Path, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLPACKER__DEPLOY__RETIRE", "false")
    bundle = start()
    (pipelines / "two.json").unlink()
    bundle.refresh()
    assert not (bundle.path / retire.FILE).exists()
    monkeypatch.setenv("MLPACKER__DEPLOY__RETIRE", "true")
    bundle = start()
    assert lost(bundle) == []  # what went while it was off is nobody's to take down later


def test_a_run_that_is_cleared_after_the_file_came_back_leaves_it_alone(pipelines: Path) -> None:
    dag = retire.build(Lost(str(pipelines), {"two": Known("gone.json", 1.0)}, 30.0))
    with pytest.raises(AirflowSkipException, match=r"two\.json"):
        dag.get_task("two").execute(_context())


def test_a_run_that_cannot_see_the_folder_is_tried_again(tmp_path: Path) -> None:
    dag = retire.build(Lost(str(tmp_path / "unmounted"), {"two": Known("two.json", 1.0)}, 30.0))
    with pytest.raises(FileNotFoundError):
        dag.get_task("two").execute(_context())
    assert dag.get_task("two").retries > 0


def _context() -> dict[str, Any]:
    return {"params": {}, "run_id": "run"}


def test_names_of_files_are_comments(start: Start) -> None:
    text = retire.dag_file(Lost("/p", {"a": Known("x\nimport os\r.json", 1.0)}, 30.0))
    assert "\nimport os" not in text
    assert datetime.fromtimestamp(1.0, UTC).isoformat() in text


def test_an_unchanged_folder_is_one_version(pipelines: Path, start: Start) -> None:
    bundle = start()
    (pipelines / "two.json").unlink()
    bundle.refresh()
    first = version(bundle)
    bundle.refresh()
    assert version(bundle) == first
