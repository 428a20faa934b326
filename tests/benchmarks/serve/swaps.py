"""New models for a unit that is asked all the time: what its users notice, and what it costs.

Model N is the benchmark's whose two classes are called 2N and 2N + 1, so that each answer says which model made it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlsplit

import joblib

from tests.benchmarks.common import PEERS
from tests.benchmarks.serve.systems import System, memory, running
from tests.runtime.swapping import Deployer, digest

RATE = 200
BEFORE_SECONDS = 6.0
AFTER_SECONDS = 3.0
Answers = list[tuple[float, float, Any, str]]


def swaps(unit: System, folder: Path, count: int, seconds: float) -> dict[str, Any]:
    """`count` swaps within `seconds`, spread evenly, after some seconds without any."""
    model = folder / "ours" / "model.joblib"
    deployer = Deployer(unit.folder / ".mlpacker-state", folder / "new")
    marks = {digest(unit.folder / "models" / "model" / "model.joblib")[:12]: 0}
    with running(unit, folder / "swaps.log") as started:
        users = _users(started.url, Path(unit.body), BEFORE_SECONDS + seconds)
        time.sleep(BEFORE_SECONDS)
        before = memory(started.process)
        moments = []
        first = time.monotonic()
        for number in range(1, count + 1):
            new = _called(joblib.load(model), number)
            time.sleep(max(0.0, first + (number - 1) * seconds / count - time.monotonic()))
            begun = time.monotonic()
            staged = deployer.stage(new)
            marks[staged["sha256"][:12]] = number
            told = deployer.answer(deployer.want(staged))
            moments.append((begun, time.monotonic(), told["state"]))
        answers: Answers = [tuple(json.loads(line)) for line in users.communicate()[0].splitlines()]
        time.sleep(AFTER_SECONDS)
        after = memory(started.process)
    return {**_said(answers, moments, marks), "memory_before_mb": before, "memory_after_mb": after}


def _users(url: str, body: Path, seconds: float) -> subprocess.Popen[str]:
    """They have begun to ask when this returns."""
    command = [sys.executable, str(PEERS / "asking.py"), urlsplit(url).netloc, str(RATE), str(seconds), str(body)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    return process


def _called(model: Any, number: int) -> Any:
    """`model`, its classes under other names."""
    model[-1].classes_ = model[-1].classes_ + 2 * number
    return model


def _said(answers: Answers, moments: list[tuple[float, float, str]], marks: dict[str, int]) -> dict[str, Any]:
    good = [each for each in answers if each[2] is not None]
    told = [(each[2][0] // 2, marks.get(each[3].rpartition("=")[2])) for each in good]
    before = [took for asked, took, *_ in good if asked < moments[0][0]]
    within = [took for asked, took, *_ in good if any(a - took <= asked <= b for a, b, _ in moments)]
    live = [b - a for a, b, state in moments if state == "live"]
    return {
        "swaps": len(live),
        "refused": len(moments) - len(live),
        "requests": len(answers),
        "failed": len(answers) - len(good),
        "of_another_model_than_named": sum(made != named for made, named in told),
        "models_that_answered": len({made for made, _ in told}),
        "p99_before_ms": _p99(before),
        "p99_within_ms": _p99(within),
        "p99_within_vs_before": _p99(within) / _p99(before),
        "live_median_s": median(live),
        "live_max_s": max(live),
    }


def _p99(spans: list[float]) -> float:
    return sorted(spans)[len(spans) * 99 // 100] * 1000
