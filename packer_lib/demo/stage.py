"""What has to be there before the three cases can run (settings, a model), and how all of it goes away again."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

import psutil

from packer_lib import artefacts, build, bundle, padl, plan, release, settings
from packer_lib.demo import cases, processes
from packer_lib.demo.screen import Tell
from packer_lib.errors import MLPackerError
from packer_lib.hosts.local import LocalHost
from packer_lib.settings import Settings
from packer_lib.standalone import Airflow

STATE = cases.ROOT / ".demo"
PIPELINES = cases.ROOT / "pipelines"
TRAIN_WITHIN = 600.0


def enter(state: Path, mark: str) -> Settings:
    """This process, and so all that it starts, with the demo's own settings and mark in the environment."""
    os.environ |= {
        processes.MARK: mark,
        **processes.KEEP_ENVIRONMENT,
        "MLPACKER__PATHS__HOME": str(state / "mlpacker"),
        "MLPACKER__PATHS__MODEL_ROOTS": str(state / "trained"),
    }
    return settings.read(os.environ)


def airflow(state: Path) -> Airflow:
    """An Airflow without a past: it starts a first run by itself, and a DAG of the last demo has had its first run."""
    home = state / "airflow"
    shutil.rmtree(home, ignore_errors=True)
    return Airflow(home, PIPELINES)


def trained(state: Path, tell: Tell) -> Path:
    """The folder with the model and the code steps; trained anew when the metrics or the script have changed."""
    folder = state / "trained"
    key = _key(_metrics())
    if not _is(folder / "key", key):
        python = trainer(settings.read(os.environ), tell)
        tell(f"on {_metrics().name}")
        _train(python, folder, state / "logs" / "train.log")
        cases.gather(folder)
        (folder / "key").write_text(key, encoding="ascii")
    return folder


def _metrics() -> Path:
    """The records to train on: the bundled sample, or a recording of the user's own."""
    return Path(os.environ.get("MLPACKER__DEMO__METRICS") or cases.SAMPLE)


def _key(metrics: Path) -> str:
    script = Path(__file__).with_name("train.py")
    try:
        return hashlib.sha256(metrics.read_bytes() + script.read_bytes()).hexdigest()
    except OSError as missing:
        remedy = "record some: python -m packer_lib.demo.agent --record FILE; or leave MLPACKER__DEMO__METRICS out"
        raise MLPackerError(f"no metrics to train on: {missing}", remedy) from None


def _is(file: Path, text: str) -> bool:
    with suppress(OSError):
        return file.read_text(encoding="ascii") == text
    return False


def trainer(chosen: Settings, tell: Tell) -> str:
    """A Python with TensorFlow: the environment of case A's unit, which is the same one when Airflow deploys it."""
    planned = plan.plan(padl.read(cases.EXAMPLES / cases.A.example))
    unit = planned.units[0]
    with tempfile.TemporaryDirectory(prefix="mlpacker-demo-") as folder:
        found = artefacts.fetch(planned, unit, chosen)
        written = bundle.write(planned, unit, found, Path(folder) / "bundle")
        return build.environment(LocalHost(chosen), written, chosen, tell).python


def _train(python: str, folder: Path, log: Path) -> None:
    script = Path(__file__).with_name("train.py")
    process = processes.start([python, str(script), str(_metrics()), str(folder)], os.environ, log)
    try:
        code = process.wait(TRAIN_WITHIN)
    except subprocess.TimeoutExpired:
        processes.stop(process)
        raise MLPackerError(f"the training took longer than {TRAIN_WITHIN:.0f} s", f"see {log}") from None
    if code:
        last = "\n  ".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-5:])
        raise MLPackerError(f"the training failed:\n  {last}", f"see {log}")


def undeploy(state: Path) -> None:
    """Takes away the three files, and what is deployed of them; `MLPackerError` with what could not be undone."""
    cases.take_away(PIPELINES)
    chosen = settings.read({"MLPACKER__PATHS__HOME": str(state / "mlpacker")})
    if chosen.home.exists():
        left = [problem for case in cases.CASES if (problem := _undeploy(case.id, chosen))]
        if left:
            raise MLPackerError("still deployed: " + "\n".join(left))


def _undeploy(pipeline: str, chosen: Settings) -> str:
    try:
        release.undeploy(pipeline, chosen, progress=lambda _line: None)
    except MLPackerError as failed:
        return f"{pipeline}: {failed}"
    return ""


def stop_everything(mark: str, state: Path) -> None:
    """Every process that belongs to this run, and whatever else came from this process."""
    processes.stop_all(mark, state)
    processes.stop_processes(psutil.Process().children(recursive=True))
