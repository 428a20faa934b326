"""The example code steps: plain Python that runs without MLPacker."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[2] / "pipelines" / "examples"


def load(folder: Path) -> ModuleType:
    module = ModuleType(folder.name)
    file = folder / "main.py"
    module.__file__ = str(file)
    exec(compile(file.read_text(), str(file), "exec"), module.__dict__)
    return module


@pytest.fixture
def prepare() -> Callable[[Any], Any]:
    handler: Callable[[Any], Any] = load(EXAMPLES / "preparation").handler
    return handler


@pytest.fixture
def outliers(tmp_path: Path) -> ModuleType:
    folder = tmp_path / "outliers_filter"
    shutil.copytree(EXAMPLES / "outliers_filter", folder)
    (folder / "threshold.json").write_text(json.dumps({"threshold": 4.0, "scale": [10.0, 1000.0, 100.0]}))
    return load(folder)


def metrics(number: int, host: str = "edge") -> dict[str, Any]:
    return {"timestamp": number, "cpu": number, "network_in": 2 * number, "disk_read": 3 * number, "host": host}


def test_nothing_comes_before_a_window_is_full(prepare: Callable[[Any], Any]) -> None:
    assert [prepare(metrics(number)) for number in range(29)] == [None] * 29


def test_a_window_holds_the_last_thirty_records_oldest_first(prepare: Callable[[Any], Any]) -> None:
    found = [prepare(metrics(number)) for number in range(31)]
    assert found[29] == {"timestamp": 29, "host": "edge", "data": [[n, 2 * n, 3 * n] for n in range(30)]}
    assert found[30]["data"] == [[n, 2 * n, 3 * n] for n in range(1, 31)]


def test_two_hosts_have_two_windows(prepare: Callable[[Any], Any]) -> None:
    for number in range(29):
        prepare(metrics(number, "a"))
        prepare(metrics(number, "b"))
    assert prepare(metrics(29, "a"))["host"] == "a"


def test_a_record_without_a_feature_is_refused(prepare: Callable[[Any], Any]) -> None:
    with pytest.raises(KeyError, match="disk_read"):
        prepare({"timestamp": 1, "cpu": 2, "network_in": 3})


def test_a_window_that_was_reconstructed_is_dropped(outliers: ModuleType) -> None:
    window = [[50.0, 1000.0, 0.0]] * 30
    assert outliers.handler({"timestamp": 1, "data": window, "prediction": window}) is None


def test_an_outlier_tells_its_error_and_its_last_record(outliers: ModuleType) -> None:
    window = [[50.0, 1000.0, 0.0]] * 29 + [[90.0, 7000.0, 5.0]]
    guess = [[10.0, 1000.0, 0.0]] * 29 + [[50.0, 7000.0, 5.0]]
    found = outliers.handler({"timestamp": 7, "host": "edge", "data": window, "prediction": guess, "else": 1})
    assert found == {
        "timestamp": 7,
        "host": "edge",
        "error": 5.333,
        "threshold": 4.0,
        "cpu": 90.0,
        "network_in": 7000.0,
        "disk_read": 5.0,
    }


def test_the_error_is_the_mean_of_squares_in_standard_deviations(outliers: ModuleType) -> None:
    assert outliers.reconstruction_error([[10.0, 0.0, 0.0]], [[0.0, 2000.0, 0.0]]) == pytest.approx((1 + 4 + 0) / 3)


def test_an_error_at_the_threshold_is_ordinary(outliers: ModuleType) -> None:
    at = {"timestamp": 1, "data": [[20.0, 2000.0, 200.0]], "prediction": [[0.0, 0.0, 0.0]]}
    assert outliers.handler(at) is None


def test_a_reconstruction_of_another_shape_is_refused(outliers: ModuleType) -> None:
    with pytest.raises(ValueError, match="zip"):
        outliers.handler({"timestamp": 1, "data": [[1, 2, 3]] * 2, "prediction": [[1, 2, 3]]})


@pytest.mark.parametrize("step", ["preparation", "outliers_filter"])
def test_a_step_imports_nothing_but_the_standard_library(step: str) -> None:
    """In an isolated interpreter, outside the checkout: no site packages, no current folder on the path."""
    code = f"import runpy; runpy.run_path({str(EXAMPLES / step / 'main.py')!r})"
    subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True, cwd="/", timeout=60)
