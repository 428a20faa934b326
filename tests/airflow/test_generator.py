"""The second door: all DAGs from `dags/padl_pipelines.py`, in an Airflow whose configuration is stock."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from airflow.dag_processing.dagbag import BundleDagBag
from airflow.sdk.exceptions import AirflowFailException
from mlpacker_airflow import document, generator

from tests.airflow import padls
from tests.support import ROOT

CONTEXT = "_AIRFLOW_PARSING_CONTEXT_DAG_ID"


@pytest.fixture
def pipelines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MLPACKER__PATHS__PIPELINES", str(tmp_path))
    return tmp_path


def put(place: Path, name: str) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(padls.text(padls.rest(name)), encoding="utf-8")


def bag() -> BundleDagBag:
    return BundleDagBag(ROOT / "dags", bundle_path=ROOT / "dags", bundle_name="dags-folder")


def test_every_file_is_a_dag(pipelines: Path) -> None:
    put(pipelines / "one.json", "one")
    put(pipelines / "examples" / "two.yaml", "two")
    found = bag()
    assert found.import_errors == {}
    assert set(found.dags) == {"mlpacker.one", "mlpacker.two"}


def test_broken_and_double_files_are_failing_dags_and_disturb_no_other(pipelines: Path) -> None:
    put(pipelines / "one.json", "one")
    put(pipelines / "a.json", "same")
    put(pipelines / "b.json", "same")
    (pipelines / "bro ken.json").write_text("{")
    found = bag()
    assert found.import_errors == {}
    assert set(found.dags) == {
        "mlpacker.one",
        "mlpacker-invalid.a.json",
        "mlpacker-invalid.b.json",
        "mlpacker-invalid.bro_20_ken.json",
    }
    broken = found.dags["mlpacker-invalid.bro_20_ken.json"]
    assert broken.tags == {"mlpacker", "padl:invalid"}
    assert document.escape("bro ken.json:1:") in broken.doc_md
    task = broken.get_task("validate")
    with pytest.raises(AirflowFailException, match=r"mlpacker-invalid\.bro_20_ken\.json"):
        task.execute({"ti": task})


@pytest.mark.parametrize("wanted", ["mlpacker.one", "mlpacker-invalid.broken.json"])
def test_a_task_process_builds_the_one_dag_it_runs(
    pipelines: Path, monkeypatch: pytest.MonkeyPatch, wanted: str
) -> None:
    put(pipelines / "one.json", "one")
    put(pipelines / "two.json", "two")
    (pipelines / "broken.json").write_text("{")
    monkeypatch.setenv(CONTEXT, wanted)
    assert [dag.dag_id for dag in generator.dags(pipelines)] == [wanted]


def test_it_stands_back_where_the_bundle_is_configured(pipelines: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(pipelines / "one.json", "one")
    ours = {"name": "mlpacker", "classpath": "mlpacker_airflow.bundle.PadlDagBundle", "kwargs": {"source": "/x"}}
    monkeypatch.setenv("AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST", json.dumps([ours]))
    assert list(generator.dags(pipelines)) == []


def test_names_of_broken_files_never_meet() -> None:
    names = ["a b.json", "a_b.json", "a/b.json", "a_20_b.json", "a.b.json", "ä.json"]
    assert len({generator.broken_id(name) for name in names}) == len(names)


def test_two_hundred_files_are_parsed_well_within_airflows_limit_of_thirty_seconds(pipelines: Path) -> None:
    for number in range(200):
        put(pipelines / f"{number}.json", f"p{number}")
    begun = time.perf_counter()
    assert len(list(generator.dags(pipelines))) == 200
    assert time.perf_counter() - begun < 5.0
