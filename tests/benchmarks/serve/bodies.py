"""Tensors of 1 MB for the Open Inference Protocol, in JSON and in binary, and a unit that takes them."""

from __future__ import annotations

import json
from pathlib import Path

import joblib
import numpy

from tests.benchmarks.serve import systems
from tests.benchmarks.serve.load import Question
from tests.runtime.swapping import line

NUMBERS = (1 << 20) // 8
INPUT = {"name": "x", "shape": [1, NUMBERS], "datatype": "FP64"}


def wide(folder: Path) -> systems.System:
    """A linear model of as many features; writes the bodies below `folder`."""
    here = systems.prepare(folder / "ours", systems.sys.executable)
    joblib.dump(line(0, NUMBERS), here / systems.WIDE["file"])
    row = numpy.random.default_rng(0).normal(size=NUMBERS)
    (here / "wide.json").write_text(json.dumps({"data": [row.tolist()]}))
    (here / "wide-v2.json").write_text(json.dumps({"inputs": [{**INPUT, "data": row.tolist()}]}))
    (here / "wide-v2.bin").write_bytes(_head() + row.astype("<f8").tobytes())
    return systems.ours(folder, systems.WIDE, "wide.json")


def questions(folder: Path, url: str) -> dict[str, Question]:
    here = folder / "ours"
    return {
        "wide_json": Question(url, here / "wide-v2.json"),
        "wide_binary": Question(url, here / "wide-v2.bin", len(_head())),
    }


def _head() -> bytes:
    return json.dumps({"inputs": [{**INPUT, "parameters": {"binary_data_size": 8 * NUMBERS}}]}).encode()
