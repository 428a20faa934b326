"""The training script, small: what it writes can be served and judged by the example filter."""

from __future__ import annotations

import csv
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from packer_lib.demo import agent, train
from tests.demo.test_steps import EXAMPLES, load

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of two minutes of a calm, made-up machine."""
    folder = tmp_path_factory.mktemp("trained")
    with (folder / "metrics.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(agent.COLUMNS)
        writer.writerows((beat, *calm(beat)) for beat in range(600))
    argv = [sys.executable, str(Path(train.__file__)), str(folder / "metrics.csv"), str(folder)]
    subprocess.run(argv, check=True, timeout=120, cwd="/")
    return folder


def calm(beat: int) -> tuple[float, float, float]:
    return 20 + 10 * math.sin(beat / 5), 5000 + 3000 * math.cos(beat / 9), 4096.0 * (beat % 7 == 0)


def judge(trained: Path, window: list[tuple[float, float, float]]) -> Any:
    model = keras.saving.load_model(trained / "lstm.h5", compile=False)
    prediction = model.predict_on_batch(np.array([window], dtype="float32"))[0].tolist()
    step = load(EXAMPLES / "outliers_filter")
    found = json.loads((trained / "threshold.json").read_text())
    step.THRESHOLD, step.SCALE = found["threshold"], found["scale"]
    return step.handler({"timestamp": 1, "data": window, "prediction": prediction})


def test_a_calm_window_passes(trained: Path) -> None:
    assert judge(trained, [calm(beat) for beat in range(100, 130)]) is None


def test_a_burst_is_an_outlier(trained: Path) -> None:
    window = [calm(beat) for beat in range(100, 120)] + [(100.0, 5e8, 2e8)] * 10
    found = judge(trained, window)
    assert found["error"] > found["threshold"]
    assert found["cpu"] == 100.0


def test_the_training_reports_what_the_filter_needs(trained: Path) -> None:
    found = json.loads((trained / "threshold.json").read_text())
    assert found["windows"] == 600 - train.WINDOW + 1
    assert len(found["scale"]) == len(train.FEATURES) == 3
    assert found["threshold"] > 0


def test_windows_slide_by_one_record() -> None:
    rows = np.arange(96, dtype="float32").reshape(32, 3)
    found = train.windows(rows)
    assert found.shape == (3, 30, 3)
    assert (found[1] == rows[1:31]).all()
