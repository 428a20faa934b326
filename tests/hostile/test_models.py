"""T4 from outside: the command line says no with exit code 4 and the reason; Airflow's parsing never opens a model."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.artefacts import hostile
from tests.support import ROOT
from tests.test_cli import MODEL, mlpacker

CASES = ("object array", "lambda in h5", "zip slip in skops")
PARSE = """
import sys
opened = []
sys.addaudithook(lambda event, args: event == "open" and opened.append(str(args[0])))
from airflow.dag_processing.dagbag import BundleDagBag
bag = BundleDagBag(sys.argv[1], bundle_path=sys.argv[1], bundle_name="dags-folder")
assert set(bag.dags) == {"mlpacker.p"}, (bag.dags, bag.import_errors)
assert any(name.endswith("p.yaml") for name in opened), "the hook sees nothing"
assert not [name for name in opened if name.endswith("model.pickle")]
"""


def write(folder: Path, name: str, canary: Path) -> Path:
    serializer, make = hostile.cases(canary)[name]
    path = hostile.write(folder, serializer, make())
    framework = hostile.FRAMEWORK.get(serializer, "scikit-learn")
    text = MODEL.format(id="p", path=f"./{path}").replace("skops", serializer).replace("scikit-learn", framework)
    file = folder / "p.yaml"
    file.write_text(text, encoding="utf-8")
    return file


@pytest.mark.parametrize("name", CASES)
def test_the_command_line_refuses_a_hostile_model(tmp_path: Path, name: str) -> None:
    canary = tmp_path / "canary"
    file = write(tmp_path, name, canary)
    for words in (["validate", "--artefacts"], ["deploy"]):
        done = mlpacker(*words, file, home=tmp_path / "home")
        assert done.returncode == 4, done.stderr
        assert "the model " in done.stderr
        assert "it was not loaded" in done.stderr
    assert not canary.exists()


def test_a_warning_is_said_and_stands_in_nobodys_way(tmp_path: Path) -> None:
    file = write(tmp_path, "reduce", tmp_path / "canary")
    (tmp_path / "model.pickle").write_bytes(b"\x80\x04N.")
    done = mlpacker("validate", "--artefacts", file, home=tmp_path)
    assert (done.returncode, done.stdout) == (0, f"{file}: valid\n")
    assert ": warning: pipeline.step.props.serializer: pickle can run code of its author" in done.stderr
    assert done.stderr.count("\n") == 1
    strict = mlpacker("validate", "--artefacts", file, home=tmp_path, MLPACKER__SECURITY__STRICT="true")
    assert strict.returncode == 4
    assert "strict mode" in strict.stderr


def test_parsing_in_airflow_opens_no_model(tmp_path: Path) -> None:
    pytest.importorskip("airflow")
    canary = tmp_path / "canary"
    write(tmp_path, "reduce", canary)
    subprocess.run(
        [sys.executable, "-c", PARSE, str(ROOT / "dags")],
        env={
            **{"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "AIRFLOW_HOME": str(tmp_path / "airflow")},
            **{"MLPACKER__PATHS__PIPELINES": str(tmp_path), "PYTHONPATH": f"{ROOT}:{ROOT / 'plugins'}"},
            **{"MLPACKER__PATHS__HOME": str(tmp_path / "home")},
        },
        check=True,
        timeout=300,
    )
    assert not canary.exists()
