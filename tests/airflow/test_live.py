"""One running Airflow, as it is shipped: what dropping, breaking, editing and removing a file does, and how soon."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from packer_lib import release, settings, status
from packer_lib.errors import MLPackerError
from packer_lib.standalone import Airflow, free_ports
from tests.airflow import padls
from tests.airflow.running import Running
from tests.support import wait_for

pytestmark = [pytest.mark.airflow, pytest.mark.native, pytest.mark.timeout(900)]

SECRET = "hunter2-s3cret"
BROKEN = '{\n  "version": "1.1",\n  "id": "broken",\n  "contanerized": false\n}\n'


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """`mlpacker airflow` as a person starts and ends it."""
    home = tmp_path_factory.mktemp("live")
    ours = replace(settings.read(), home=home / "mlpacker")
    airflow = Airflow(ours.home / "airflow", home / "pipelines", free_ports())
    command = [Path(sys.executable).with_name("mlpacker"), "airflow", airflow.pipelines, "--port", airflow.ports.api]
    env = {**os.environ, "MLPACKER__PATHS__HOME": str(ours.home), "MLPACKER__DEPLOY__RETIRE_AFTER": "1"}
    with subprocess.Popen([str(word) for word in command], env=env, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == f"{airflow.url}  user admin  password {airflow.password}\n"
            yield Running(airflow, airflow.token(), ours)
        finally:
            process.terminate()
            process.wait(60)
            for pipeline in status.status(ours):
                release.undeploy(pipeline["pipeline"], ours, progress=lambda _: None)
    assert process.returncode == 128 + signal.SIGTERM
    assert still_there(airflow.home) == []


def still_there(home: Path) -> list[str]:
    """Processes that have `home` as their Airflow home."""
    wanted = f"AIRFLOW_HOME={home}".encode()
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if wanted in path.read_bytes().split(b"\0"):
                found.append(path.parent.name)
    return found


@pytest.fixture(scope="module")
def model(running: Running) -> Any:
    """A scikit-learn model, saved beside the PADL files."""
    import skops.io
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression

    data = load_iris()
    fitted = LogisticRegression(max_iter=500).fit(data.data, data.target)
    skops.io.dump(fitted, running.airflow.pipelines / "iris.skops")
    return fitted


def allowed(seconds: float) -> float:
    """The time that something may take, stretched by as much as this machine is busy with other things."""
    return seconds * max(1.0, 2 * os.getloadavg()[0] / (os.cpu_count() or 1))


def post(url: str, body: Any) -> Any:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.loads(answer.read())


def test_a_dropped_file_is_deployed_by_itself_and_answers_what_the_model_answers(running: Running, model: Any) -> None:
    rows = [[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3], [5.9, 3.0, 4.2, 1.5]]
    dropped = time.monotonic()
    running.drop("iris.json", padls.rest("iris", description="{{ 7 * 7 }}"))
    wait_for(lambda: running.dag("iris"), what="the DAG appears")
    appeared = time.monotonic() - dropped
    assert wait_for(lambda: running.ended("iris"), 600, "the first run ends") == "success", running.log(
        "iris", "verify"
    )
    (unit,) = status.status(running.settings, "iris")[0]["units"]
    answer = post(f"{unit['endpoint']}/predict", {"data": rows})
    assert answer["predictions"] == model.predict(rows).tolist()
    assert running.dag("iris")["description"] == "{{ 7 * 7 }}"
    assert appeared < allowed(3), f"the DAG appeared after {appeared:.1f} s"


def test_a_second_pipeline_with_the_same_needs_answers_within_fifteen_seconds(running: Running, model: Any) -> None:
    dropped = time.monotonic()
    running.drop("warm.json", padls.rest("warm"))
    assert wait_for(lambda: running.ended("warm"), 120, "the first run ends") == "success"
    (unit,) = status.status(running.settings, "warm")[0]["units"]
    assert post(f"{unit['endpoint']}/predict", {"data": [[5.1, 3.5, 1.4, 0.2]]})["predictions"] == [0]
    took = time.monotonic() - dropped
    assert took < allowed(15), f"dropped to answered in {took:.1f} s"


def test_each_task_says_in_its_log_what_it_did(running: Running, model: Any) -> None:
    running.drop("iris.json", padls.rest("iris", description="{{ 7 * 7 }}"))
    wait_for(lambda: running.ended("iris"), 600)
    assert "iris: model ./iris.skops, sha256 " in running.log("iris", "validate")
    assert "answers at http://127.0.0.1:" in running.log("iris", "verify")


def test_a_broken_file_is_reported_with_its_places_and_disturbs_no_other(running: Running, model: Any) -> None:
    running.drop("steady.json", padls.rest("steady", autodeploy=False))
    wait_for(lambda: running.dag("steady"))
    place = running.drop("broken.json", BROKEN)
    report = wait_for(lambda: running.errors().get("broken.json.py"), what="the import error")
    assert "broken.json:4:3: contanerized: unknown key 'contanerized' (did you mean 'containerized'?)" in report
    assert "missing 'pipeline'" in report
    assert "Traceback" not in report
    assert not running.gone("steady")
    place.write_text(padls.text(padls.rest("broken", autodeploy=False)))
    wait_for(lambda: running.dag("broken"), what="the mended file is a DAG")
    wait_for(lambda: "broken.json.py" not in running.errors(), what="the error goes away")


def test_an_edited_file_shows_its_new_shape(running: Running) -> None:
    document = padls.rest("edited", autodeploy=False)
    running.drop("edited.json", document)
    wait_for(lambda: running.dag("edited"))
    assert {task for task in running.tasks("edited") if "." in task} == {
        "iris.template",
        "iris.build",
        "iris.test",
        "iris.stage",
    }
    version = running.dag("edited")["bundle_version"]
    document["pipeline"] = {"other": document["pipeline"]["iris"]}
    running.drop("edited.json", document)
    wait_for(lambda: "other.stage" in running.tasks("edited"), what="the new shape")
    assert "iris.stage" not in running.tasks("edited")
    assert running.dag("edited")["bundle_version"] != version


def test_a_changed_file_is_deployed_by_itself_and_only_when_its_text_changes(running: Running, model: Any) -> None:
    document = padls.rest("changing", pipeline={"x": _missing_model()})  # fails soon: here only runs are counted
    path = running.drop("changing.json", document)
    wait_for(lambda: running.ended("changing"), 60, "the first run")
    path.touch()
    running.drop("changing.json", {**document, "description": "changed"})
    wait_for(lambda: running.ended("changing", 2), 60, "the second run")
    assert len(running.runs("changing")) == 2
    assert {run["run_type"] for run in running.runs("changing")} == {"scheduled"}
    path.unlink()
    wait_for(lambda: running.gone("changing"), 10)
    running.drop("changing.json", document)
    wait_for(lambda: running.ended("changing", 3), 60, "the run of the file that came back")


def test_clearing_an_old_run_behind_validate_deploys_text_and_model_of_its_time(running: Running, model: Any) -> None:
    import skops.io
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression

    mine = running.airflow.pipelines / "back.skops"
    mine.write_bytes((running.airflow.pipelines / "iris.skops").read_bytes())
    document = padls.rest("back")
    document["pipeline"]["iris"]["props"]["path"] = "./back.skops"
    running.drop("back.json", document)
    assert wait_for(lambda: running.ended("back"), 120) == "success"
    first, run = running.model("back"), running.runs("back")[0]["dag_run_id"]

    data = load_iris()
    skops.io.dump(LogisticRegression(C=0.01, max_iter=500).fit(data.data, data.target), mine)
    running.drop("back.json", {**document, "description": "another model"})
    assert wait_for(lambda: running.ended("back", 2), 120) == "success"
    assert running.model("back") != first

    clear = {"dag_run_id": run, "task_ids": ["iris.template"], "include_downstream": True}
    running.ask(
        "/api/v2/dags/mlpacker.back/clearTaskInstances",
        "POST",
        {**clear, "dry_run": False, "only_failed": False, "reset_dag_runs": True},
    )
    wait_for(lambda: running.model("back") == first, 120, "the first model is back")


def test_a_removed_file_takes_its_dag_along(running: Running) -> None:
    place = running.drop("removed.json", padls.rest("removed", autodeploy=False))
    wait_for(lambda: running.dag("removed"))
    place.unlink()
    wait_for(lambda: running.gone("removed"), 10, "the DAG disappears")


def test_a_pipeline_whose_file_is_gone_is_taken_down_and_its_run_says_so(running: Running, model: Any) -> None:
    place = running.drop("leaving.json", padls.rest("leaving"))
    assert wait_for(lambda: running.ended("leaving"), 240) == "success"
    (unit,) = status.status(running.settings, "leaving")[0]["units"]
    place.unlink()
    tasks = "/api/v2/dags/mlpacker-retire/dagRuns/~/taskInstances?limit=100&order_by=-start_date"
    done = wait_for(
        lambda: [
            task
            for task in (running.maybe(tasks) or {"task_instances": []})["task_instances"]
            if (task["task_id"], task["state"]) == ("leaving", "success")
        ],
        120,
        "the pipeline is retired",
    )
    assert len(done) == 1
    with pytest.raises(urllib.error.URLError):
        post(f"{unit['endpoint']}/predict", {"data": [[5.1, 3.5, 1.4, 0.2]]})
    assert "leaving" not in {entry["pipeline"] for entry in status.status(running.settings)}
    assert running.gone("leaving")


WAITS = """\
import os
import time

while os.path.exists(os.environ["HOLD"]):
    time.sleep(0.05)


def handler(value):
    return value + 1
"""


def test_a_task_that_is_killed_is_done_again_and_leaves_nothing(running: Running, tmp_path: Path) -> None:
    hold = tmp_path / "hold"
    hold.touch()
    (running.airflow.pipelines / "waits").mkdir()
    (running.airflow.pipelines / "waits" / "main.py").write_text(WAITS)
    step = {"type": "code", "language": "python", "props": {"path": "./waits"}}
    running.drop("killed.json", padls.rest("killed", pipeline={"step": step}, env={"HOLD": str(hold)}))
    check = wait_for(lambda: checking(running.settings.home), 240, "the unit is being loaded")
    os.kill(int(Path(f"/proc/{check}/stat").read_text().rpartition(")")[2].split()[1]), signal.SIGKILL)
    hold.unlink()
    assert wait_for(lambda: running.ended("killed"), 240) == "success", running.log("killed", "step.test")
    (unit,) = status.status(running.settings, "killed")[0]["units"]
    assert post(f"{unit['endpoint']}/predict", {"data": [1]})["predictions"] == [2]
    tries = running.ask(f"/api/v2/dags/mlpacker.killed/dagRuns/{running.runs('killed')[0]['dag_run_id']}/taskInstances")
    assert {task["task_id"]: task["try_number"] for task in tries["task_instances"]}["step.test"] == 2
    assert checking(running.settings.home) is None


def checking(home: Path) -> int | None:
    """The process that loads a unit's code for its test."""
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            words = file.read_text(errors="replace").split("\0")
            if "--check" in words and words[0].startswith(str(home)):
                return int(file.parent.name)
    return None


def test_every_machine_has_a_pool_before_a_task_wants_it(running: Running) -> None:
    running.drop("pooled.json", padls.chain("pooled") | {"autodeploy": False})
    wait_for(lambda: running.dag("pooled"))
    pools = {pool["name"]: pool["slots"] for pool in running.ask("/api/v2/pools")["pools"]}
    assert pools["mlpacker.10.0.0.1"] == pools["mlpacker.10.0.0.2"] == 4
    tasks = running.ask("/api/v2/dags/mlpacker.pooled/tasks")["tasks"]
    assert {task["task_id"]: task["pool"] for task in tasks}["iris.stage"] == "mlpacker.10.0.0.2"


def test_two_files_with_one_id_are_an_error_in_both(running: Running) -> None:
    running.drop("a.json", padls.rest("same", autodeploy=False))
    other = running.drop("b.json", padls.rest("same", autodeploy=False))
    wait_for(lambda: {"a.json.py", "b.json.py"} <= set(running.errors()), what="an error in both")
    assert "b.json" in running.errors()["a.json.py"]
    other.unlink()
    wait_for(lambda: not {"a.json.py", "b.json.py"} & set(running.errors()), what="the errors go away")
    assert not running.gone("same")


def test_an_example_is_a_dag_that_does_not_start(running: Running) -> None:
    running.drop("examples/example.json", padls.rest("example", schedule="* * * * *"))
    running.drop("after.json", padls.rest("after", **{"pipeline": {"x": _missing_model()}}))
    assert wait_for(lambda: running.ended("after"), 60) == "failed"  # a later file's run has come and gone
    assert running.dag("example") is not None
    assert running.runs("example") == []


def _missing_model() -> dict[str, Any]:
    return {"type": "model", "framework": "scikit-learn", "props": {"path": "./no.skops", "serializer": "skops"}}


def test_a_missing_model_fails_the_first_task_and_its_log_says_where(running: Running) -> None:
    running.drop("nomodel.json", padls.rest("nomodel", **{"pipeline": {"x": _missing_model()}}))
    assert wait_for(lambda: running.ended("nomodel"), 60) == "failed"
    log = running.log("nomodel", "validate")
    assert "nomodel.json:12:" in log
    assert "no.skops" in log
    assert "nomodel" not in {unit["pipeline"] for unit in status.status(running.settings)}


def test_a_literal_password_is_in_no_log_and_not_in_the_database(running: Running) -> None:
    running.drop("lines.json", padls.stream(password=SECRET))
    assert wait_for(lambda: running.ended("lines"), 60) == "failed"
    logs = [path for path in (running.airflow.home / "logs").rglob("*") if path.is_file()]
    assert not [path for path in logs if SECRET.encode() in path.read_bytes()]
    with sqlite3.connect(running.airflow.home / "airflow.db") as database:
        assert not [line for line in database.iterdump() if SECRET in line]


def test_nobody_reads_the_api_without_signing_in(running: Running) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{running.airflow.url}/api/v2/dags", timeout=10)
    assert refused.value.code == 401


def test_a_taken_port_is_named_before_anything_starts(running: Running, tmp_path: Path) -> None:
    taken = replace(free_ports(), api=running.airflow.ports.api)
    with pytest.raises(MLPackerError, match=f"port {taken.api} is taken"):
        Airflow(tmp_path / "airflow", tmp_path / "pipelines", taken).start()


def test_an_airflow_that_cannot_start_says_which_process_and_leaves_none(tmp_path: Path) -> None:
    extra = {"AIRFLOW__CORE__EXECUTOR": "NoSuchExecutor"}
    second = Airflow(tmp_path / "airflow", tmp_path / "pipelines", extra=extra)
    with pytest.raises(MLPackerError, match="NoSuchExecutor"):
        second.start()
    assert second._running == {}
