"""The command line from outside: what is on stdout and stderr, and the exit codes."""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from packer_lib.cli import mapped_errors
from packer_lib.cli.report import ago
from tests.support import ROOT

EXAMPLES = ROOT / "pipelines" / "examples"
MODEL = """
version: "1.1"
id: {id}
containerized: false
package-mode: api
deploy-mode: local
pipeline:
  step:
    type: model
    framework: scikit-learn
    props: {{path: {path}, serializer: skops}}
"""


def mlpacker(*words: str | Path, home: Path, **env: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MLPACKER")}
    return subprocess.run(
        (Path(sys.executable).with_name("mlpacker"), *words),
        env={**inherited, "MLPACKER__PATHS__HOME": str(home), **env},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def _padl(folder: Path, name: str = "p.yaml", *, id: str = "p", path: str = "./model.skops") -> Path:
    file = folder / name
    file.write_text(MODEL.format(id=id, path=path))
    return file


def test_a_valid_file_is_said_to_be_valid(tmp_path: Path) -> None:
    done = mlpacker("validate", EXAMPLES / "iris-rest.yaml", home=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{EXAMPLES / 'iris-rest.yaml'}: valid\n"


def test_every_problem_of_every_file_is_on_stderr_with_its_place(tmp_path: Path) -> None:
    bad = tmp_path / "bad.json"
    bad.write_text('{"version": "1.0",\n "id": "A",\n "containerised": false}')
    done = mlpacker("validate", bad, tmp_path / "none.yaml", home=tmp_path)
    assert done.returncode == 3
    assert done.stdout == ""
    assert re.search(rf"{bad}:2:\d+: id: ", done.stderr)
    assert re.search(rf"{bad}:3:\d+: containerised: .*containerized", done.stderr)
    assert f"{tmp_path / 'none.yaml'}:1:1: the file cannot be read" in done.stderr


def test_reports_for_machines_are_one_object_per_file_and_line(tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("version: '1.0'\nid: [")
    done = mlpacker("validate", "--json", bad, EXAMPLES / "iris-rest.yaml", home=tmp_path)
    assert done.returncode == 3
    first, second = (json.loads(line) for line in done.stdout.splitlines())
    assert (first["file"], first["valid"]) == (str(bad), False)
    assert {"line", "column", "path", "message", "hint", "level"} <= first["problems"][0].keys()
    assert second == {"file": str(EXAMPLES / "iris-rest.yaml"), "valid": True, "problems": []}


def test_a_warning_does_not_fail_a_file(tmp_path: Path) -> None:
    file = _padl(tmp_path)
    file.write_text(file.read_text() + "queues: {q: {connector: mqtt, props: {server: h, port: 1883, topic: t}}}\n")
    done = mlpacker("validate", "--json", file, home=tmp_path)
    report = json.loads(done.stdout)
    assert (done.returncode, report["valid"]) == (0, True)
    assert [problem["level"] for problem in report["problems"]] == ["warning"]
    assert report["problems"][0]["line"] == 12


def test_two_files_with_one_id_name_each_other(tmp_path: Path) -> None:
    one, two = _padl(tmp_path, "one.yaml"), _padl(tmp_path, "two.yaml")
    done = mlpacker("validate", one, two, one, home=tmp_path)
    assert done.returncode == 3
    assert f"{one}:3:5: id: the id 'p' is also in {two}" in done.stderr
    assert done.stderr.count("is also in") == 2


def test_artefacts_are_looked_at_when_asked(tmp_path: Path) -> None:
    missing = _padl(tmp_path)
    assert mlpacker("validate", missing, home=tmp_path).returncode == 0
    done = mlpacker("validate", "--artefacts", missing, home=tmp_path)
    assert done.returncode == 3
    assert "model.skops" in done.stderr
    outside = mlpacker("validate", "--artefacts", _padl(tmp_path, path="/etc/model.skops"), home=tmp_path)
    assert outside.returncode == 4
    assert "MLPACKER__PATHS__MODEL_ROOTS" in outside.stderr


def test_a_plan_is_a_picture_or_data(tmp_path: Path) -> None:
    file = EXAMPLES / "lstm-distributed.yaml"
    seen = mlpacker("plan", file, home=tmp_path)
    assert seen.returncode == 0
    names = re.findall(r"[├└]── (\w+)$", seen.stdout, re.MULTILINE)
    assert names == ["preparation", "lstm", "outliers_filter"]
    data = json.loads(mlpacker("plan", "--json", file, home=tmp_path).stdout)
    assert [unit["name"] for unit in data["units"]] == names
    assert data["mode"] == "stream-local-native"
    assert not list(tmp_path.iterdir())


def test_a_plan_takes_less_than_a_second_of_processor_time(tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    mlpacker("plan", EXAMPLES / "lstm-atomic.yaml", home=tmp_path)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime) < 1.0


def test_planning_imports_neither_airflow_nor_a_framework() -> None:
    code = (
        "import sys\nfrom packer_lib import cli\nsys.argv = ['mlpacker', 'plan', sys.argv[1]]\n"
        "try:\n    cli.main()\nexcept SystemExit:\n    pass\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    said = subprocess.run(
        (sys.executable, "-c", code, EXAMPLES / "iris-rest.yaml"),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout.splitlines()[-1]
    loaded = set(re.findall(r"'(\w+)'", said))
    assert "typer" in loaded
    assert not loaded & {"airflow", "bentoml", "sklearn", "tensorflow", "numpy", "supervisor", "jinja2"}


def test_a_bundle_is_written_where_it_is_asked_for(tmp_path: Path) -> None:
    done = mlpacker("bundle", EXAMPLES / "iris-rest.yaml", "--output", tmp_path / "out", home=tmp_path / "home")
    assert done.returncode == 0, done.stderr
    path, digest = done.stdout.split()
    assert path == str(tmp_path / "out" / "iris")
    assert re.fullmatch(r"[0-9a-f]{64}", digest)
    assert (tmp_path / "out" / "iris" / "service.py").is_file()


def test_a_dry_run_deploys_nothing(tmp_path: Path) -> None:
    done = mlpacker("deploy", "--dry-run", "--json", EXAMPLES / "iris-rest.yaml", home=tmp_path)
    assert done.returncode == 0, done.stderr
    (unit,) = json.loads(done.stdout)["units"]
    assert unit == {"unit": "iris", "action": "create", "release": "", "endpoint": "", "machine": None}
    assert {path.name for path in tmp_path.iterdir()} <= {"store", "locks-cache"}


def test_what_cannot_be_deployed_is_refused_with_its_code(tmp_path: Path) -> None:
    several = tmp_path / "several.yaml"
    several.write_text(MODEL.format(id="p", path="./model.skops") + "    replicas: 65\n")
    refused = mlpacker("deploy", several, home=tmp_path / "home")
    assert refused.returncode == 3
    assert "pipeline.step.replicas: expected 1 to 64, got 65" in refused.stderr
    missing = mlpacker("deploy", _padl(tmp_path), home=tmp_path / "home")
    assert missing.returncode == 3
    assert "model.skops" in missing.stderr
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("m.skops", "--promote"),
        ("--promote", "--discard"),
        ("--discard", "--stage"),
        ("--promote", "--sha256", "ab"),
    ],
)
def test_a_swap_is_told_one_thing(words: tuple[str, ...], tmp_path: Path) -> None:
    done = mlpacker("swap", "p", "step", *words, home=tmp_path)
    assert done.returncode == 2
    assert "name a MODEL" in done.stderr
    unknown = mlpacker("swap", "p", "step", "--shadow", "0.5", home=tmp_path)
    assert (unknown.returncode, "no pipeline 'p' was deployed from here" in unknown.stderr) == (2, True)


def test_a_pipeline_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    for words in (("status", "nobody"), ("logs", "nobody")):
        done = mlpacker(*words, home=tmp_path)
        assert done.returncode == 2
        assert "no pipeline 'nobody' is deployed here" in done.stderr
    assert mlpacker("undeploy", "nobody", home=tmp_path).returncode == 0


def test_nothing_deployed_is_not_an_error(tmp_path: Path) -> None:
    assert mlpacker("status", home=tmp_path).stdout.strip() == "nothing is deployed here"
    assert json.loads(mlpacker("status", "--json", home=tmp_path).stdout) == []


@pytest.mark.parametrize("words", [(), ("no-such-command",), ("plan",), ("plan", "x.yaml", "--no-such-option")])
def test_wrong_usage_is_2(words: tuple[str, ...], tmp_path: Path) -> None:
    assert mlpacker(*words, home=tmp_path).returncode == 2


def test_the_schema_is_what_is_published(tmp_path: Path) -> None:
    for version in ("1.0", "1.1"):
        published = (ROOT / "padl_schemas" / f"padl-{version}.schema.json").read_text()
        assert mlpacker("schema", version, home=tmp_path).stdout == published
    assert mlpacker("schema", "9", home=tmp_path).returncode == 2


def test_doctor_says_what_is_there(tmp_path: Path) -> None:
    done = mlpacker("doctor", "--json", home=tmp_path / "deep" / "home")
    assert done.returncode == 0, done.stdout
    found = {finding["name"]: finding for finding in json.loads(done.stdout)}
    assert found["uv"]["ok"]
    assert found["supervisor"]["detail"] == "4.3.0"
    assert not (tmp_path / "deep").exists()


@pytest.mark.parametrize("debug", [False, True])
def test_an_unexpected_error_is_one_line_and_a_traceback_only_when_asked(
    debug: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLPACKER_DEBUG", "1" if debug else "")
    with pytest.raises(SystemExit, match="1"), mapped_errors():
        raise ZeroDivisionError("of ours")
    said = capsys.readouterr().err
    assert said.endswith(
        "error: ZeroDivisionError: of ours\n  this is a bug; run it again with --debug and report it\n"
    )
    assert ("Traceback" in said) is debug


def test_a_wrong_setting_and_a_wrong_place_are_said_without_blaming_us(tmp_path: Path) -> None:
    wrong = mlpacker("doctor", home=tmp_path, MLPACKER__DEPLOY__READY_TIMEOUT="soon")
    assert (wrong.returncode, wrong.stderr) == (
        1,
        "error: MLPACKER__DEPLOY__READY_TIMEOUT: expected a number, got 'soon'\n",
    )
    taken = tmp_path / "taken"
    taken.touch()
    done = mlpacker("bundle", EXAMPLES / "iris-rest.yaml", "-o", taken, home=tmp_path / "home")
    assert done.returncode == 1
    assert re.fullmatch(r"error: .*taken.*: (File exists|Not a directory)\n", done.stderr)
    assert mlpacker("doctor", home=taken).returncode == 1


def test_a_name_from_a_file_cannot_drive_the_terminal(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text('version: "1.0"\n"id\\x1b]0;title\\x07": x\n')
    done = mlpacker("validate", file, home=tmp_path)
    assert done.returncode == 3
    assert "\x1b" not in done.stderr + done.stdout


def test_the_version_is_on_stdout(tmp_path: Path) -> None:
    from packer_lib import __version__

    assert mlpacker("--version", home=tmp_path).stdout == f"{__version__}\n"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (119, "119 s"), (120, "2 min"), (7199, "119 min"), (7200, "2 h"), (200000, "2 d")]
)
def test_how_long_something_runs_is_said_in_its_largest_unit(seconds: int, text: str) -> None:
    now = datetime(2026, 1, 5, tzinfo=UTC)
    assert ago((now - timedelta(seconds=seconds)).isoformat(), now) == text
    assert ago("", now) == ""
