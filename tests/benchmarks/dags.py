"""How long Airflow takes to parse the plain generator for 10 and 100 files; `python -m tests.benchmarks dags`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.support import ROOT

PROBE = """
import time, sys
from airflow.dag_processing.dagbag import DagBag
seconds = []
for _ in range(3):
    start = time.perf_counter()
    bag = DagBag(sys.argv[1])
    seconds.append(time.perf_counter() - start)
assert not bag.import_errors, bag.import_errors
print(len(bag.dags), min(seconds))
"""

STEP = {"type": "code", "language": "python", "props": {"path": "./step"}}
QUEUE = {"connector": "kafka", "props": {"server": "127.0.0.1", "port": 9092}}


def pipeline(number: int) -> dict[str, object]:
    """A pipeline of three units, joined by queues."""
    steps = {f"step{i}": {**STEP, "queues": {"input": f"q{i}", "output": f"q{i + 1}"}} for i in range(3)}
    queues = {f"q{i}": {**QUEUE, "props": {**QUEUE["props"], "topic": f"t{number}-{i}"}} for i in range(4)}
    head = {"version": "1.1", "id": f"bench-{number}", "containerized": False}
    return {**head, "package-mode": "stream", "deploy-mode": "local", "pipeline": steps, "queues": queues}


def main() -> dict[str, object]:
    """Seconds to parse `dags/` by number of PADL files."""
    return {
        "title": "Parsing the plain generator",
        "what": "Seconds for Airflow to parse `dags/` by number of PADL files of three units (15 tasks each); best of "
        "three in a fresh process, Airflow's own imports left out. A task's process builds only the DAG it runs.",
        "unit": "seconds",
        "rates": {f"{count} files": parse(count) for count in (10, 100)},
    }


def parse(count: int) -> float:
    with tempfile.TemporaryDirectory(prefix="mlpacker-bench-") as folder:
        pipelines = Path(folder, "pipelines")
        (pipelines / "step").mkdir(parents=True)
        for number in range(count):
            (pipelines / f"{number}.json").write_text(json.dumps(pipeline(number)))
        environment = {
            **os.environ,
            "AIRFLOW_HOME": folder,
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
            "MLPACKER__PATHS__PIPELINES": str(pipelines),
            "PYTHONPATH": f"{ROOT}:{ROOT / 'plugins'}",
        }
        command = [sys.executable, "-c", PROBE, str(ROOT / "dags")]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(done.stdout + done.stderr)
        dags, seconds = done.stdout.split()[-2:]
        if int(dags) != count:
            raise RuntimeError(f"{dags} DAGs from {count} files")
        return round(float(seconds), 3)
