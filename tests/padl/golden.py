"""The golden files of the language: adding a case is adding a file.

`python -m tests.padl.golden` rewrites what is expected.

golden/valid/<case>/pipeline.{json,yaml}   plan.json: its `plan --json`; warnings.txt when there are any;
                                           bundles/: see tests/bundle/golden.py
golden/invalid/<case>.{json,yaml}          <case>.<suffix>.expected: the exact message
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from packer_lib import padl
from packer_lib.errors import PadlInvalid
from packer_lib.padl.model import Pipeline
from packer_lib.plan import plan, summary
from tests.support import ROOT

GOLDEN = ROOT / "tests" / "golden"
VALID = sorted(path for path in (GOLDEN / "valid").glob("*/pipeline.*"))
INVALID = sorted(path for path in (GOLDEN / "invalid").iterdir() if path.suffix != ".expected")


def read(path: Path) -> Pipeline:
    """The pipeline, read in the file's own folder, so that messages name the file alone."""
    before = Path.cwd()
    os.chdir(path.parent)
    try:
        return padl.read(Path(path.name))
    finally:
        os.chdir(before)


def message(path: Path) -> str:
    """What is said about a file; empty when nothing is wrong with it."""
    try:
        read(path)
    except PadlInvalid as invalid:
        return f"{invalid}\n"
    return ""


def plan_text(pipeline: Pipeline) -> str:
    return json.dumps(summary(plan(pipeline)), indent=2, ensure_ascii=False) + "\n"


def warnings_text(pipeline: Pipeline) -> str:
    return "".join(f"{warning}\n" for warning in pipeline.warnings)


def expected(path: Path) -> Path:
    return path.with_name(f"{path.name}.expected")


def update() -> None:
    """Writes down what is said and planned now. Read the difference before you commit it."""
    for path in INVALID:
        expected(path).write_text(message(path), encoding="utf-8")
    for path in VALID:
        pipeline = read(path)
        path.with_name("plan.json").write_text(plan_text(pipeline), encoding="utf-8")
        if pipeline.warnings:
            path.with_name("warnings.txt").write_text(warnings_text(pipeline), encoding="utf-8")


if __name__ == "__main__":
    from tests.bundle import golden as bundles

    update()
    bundles.update()
