"""What is measured: how each system is started, and what it is asked. All peers have environments of their own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from packer_lib import artefacts, bundle, settings
from packer_lib.padl import read_text
from packer_lib.plan import plan
from tests.benchmarks.common import PEERS, own_environment
from tests.support import free_port

PADL = """
version: "1.1"
id: bench
containerized: false
package-mode: api
deploy-mode: local
pipeline:
  model:
    type: model
    framework: %(framework)s
    props: {path: ./%(file)s, serializer: %(serializer)s, input_format: json}
"""
SCIKIT = {"framework": "scikit-learn", "file": "model.joblib", "serializer": "joblib"}
WIDE = {**SCIKIT, "file": "wide.joblib"}
KERAS = {"framework": "tensorflow", "file": "lstm.keras", "serializer": "keras"}
BENTOML = ("bentoml==1.4.39", "scikit-learn==1.9.1", "joblib", "uvloop", "httptools")
INFER = "/v2/models/model/infer"
START_SECONDS = 120


@dataclass(frozen=True)
class System:
    """How to start one system (PORT is filled in), and what it is asked by default: a route, and a file."""

    command: list[str]
    folder: Path
    route: str = "/predict"
    body: str = "one.json"
    environment: Mapping[str, str] = field(default_factory=dict)


def small(folder: Path) -> dict[str, System]:
    """Everybody who answers a row of the breast-cancer model, and the limit."""
    return {"echo": echo(folder), "ours": ours(folder), **bentoml(folder), "mlserver": mlserver(folder)}


def echo(folder: Path) -> System:
    uvicorn = [sys.executable, "-m", "uvicorn", "echo:app", "--port", "PORT", "--log-level", "warning"]
    command = [*uvicorn, "--loop", "uvloop", "--http", "httptools", "--lifespan", "off"]
    return System(command, prepare(folder / "ours", sys.executable), "/")


def ours(folder: Path, model: Mapping[str, str] = SCIKIT, body: str = "one.json") -> System:
    """The bundle that `mlpacker bundle` writes, under `python service.py`."""
    here = prepare(folder / "ours", sys.executable)
    made = plan(read_text(PADL % model, str(here / "bench.padl.yaml")))
    output = here / f"bundle-{model['file']}"
    shutil.rmtree(output, ignore_errors=True)
    found = artefacts.fetch(made, made.units[0], settings.read())
    path = bundle.write(made, made.units[0], found, output).path
    return System([sys.executable, "service.py"], path, "/predict", str(here / body), {"MLPACKER_PORT": "PORT"})


def bentoml(folder: Path) -> dict[str, System]:
    """Written by hand: plain and batchable; and our bundle under `bentoml serve`."""
    python = own_environment(folder, "bentoml", *BENTOML)
    there = prepare(folder / "bentoml", python)
    unit = ours(folder)
    return {
        "ours_bentoml": System(serve(sys.executable, "service:Service"), unit.folder, "/predict", unit.body),
        "bentoml_plain": System(serve(python, "bento_by_hand:Plain"), there),
        "bentoml_batchable": System(serve(python, "bento_by_hand:Batchable"), there),
    }


def lstm(folder: Path) -> dict[str, System]:
    """The autoencoder of the stream benchmark. Both of them run on the same TensorFlow, that of this environment."""
    here = prepare(folder / "ours", sys.executable)
    if not (here / KERAS["file"]).exists():
        train = [sys.executable, str(PEERS / "keras_per_message.py"), "train", KERAS["file"]]
        subprocess.run(train, cwd=here, check=True)
    window = [[round(0.1 * step + column, 2) for column in range(3)] for step in range(30)]
    (here / "window.json").write_text(json.dumps({"data": [window]}))
    by_hand = System(serve(sys.executable, "bento_keras:Autoencoder"), here, body="window.json")
    return {"lstm_ours": ours(folder, KERAS, "window.json"), "lstm_bentoml": by_hand}


def mlserver(folder: Path) -> System:
    python = own_environment(folder, "mlserver", "mlserver", "mlserver-sklearn")
    there = prepare(folder / "mlserver", python)
    model = {"name": "model", "implementation": "mlserver_sklearn.SKLearnModel", "parameters": {"uri": "model.joblib"}}
    ports = {"grpc_port": free_port(), "metrics_port": free_port()}
    (there / "model-settings.json").write_text(json.dumps(model))
    (there / "settings.json").write_text(json.dumps({**ports, "parallel_workers": 0, "debug": False}))
    start = [python, "-m", "mlserver.cli.main", "start", "."]
    return System(start, there, INFER, "v2.json", {"MLSERVER_HTTP_PORT": "PORT"})


def serve(python: str, service: str) -> list[str]:
    return [python, "-m", "bentoml", "serve", service, "--host", "127.0.0.1", "--port", "PORT"]


def prepare(folder: Path, python: str) -> Path:
    """`folder` with the peers' files and the model, trained by the scikit-learn that is going to load it."""
    if not (folder / "v2.json").exists() or not (folder / "bento_keras.py").exists():
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("echo.py", "bento_by_hand.py", "bento_keras.py", "train.py"):
            shutil.copyfile(PEERS / name, folder / name)
        subprocess.run([python, "train.py"], cwd=folder, check=True)
    return folder


@dataclass(frozen=True)
class Running:
    """`process` leads a process group of its own; `ready` seconds after its start it gave its first answer."""

    system: System
    process: subprocess.Popen[bytes]
    url: str
    ready: float


@contextmanager
def running(system: System, log: Path) -> Iterator[Running]:
    """`system`, which answers its question with 200, until the block ends."""
    port = str(free_port())
    started = time.perf_counter()
    process = _start(system, port, log)
    try:
        url = f"http://127.0.0.1:{port}"
        body = (system.folder / system.body).read_bytes()
        while not answers(url + system.route, body):
            if time.perf_counter() > started + START_SECONDS or process.poll() is not None:
                raise RuntimeError(f"{system.command} does not answer, see {log}")
            time.sleep(0.01)
        yield Running(system, process, url, time.perf_counter() - started)
    finally:
        stop(process)


def _start(system: System, port: str, log: Path) -> subprocess.Popen[bytes]:
    given = {name: value.replace("PORT", port) for name, value in system.environment.items()}
    own = {"BENTOML_DO_NOT_TRACK": "true", "BENTOML_HOME": str(log.parent / "bentoml-home")}
    with log.open("wb") as output:
        return subprocess.Popen(
            [word.replace("PORT", port) for word in system.command],
            cwd=system.folder,
            env={**os.environ, **own, **given},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def answers(url: str, body: bytes) -> bool:
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        process.wait()


def memory(process: subprocess.Popen[bytes]) -> float:
    """Megabytes of the process and all of its children, each page counted by its share (PSS)."""
    group: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        group.setdefault(parent, []).append(int(entry.name))
    tree = [process.pid]
    for each in tree:
        tree += group.get(each, [])
    return sum(map(_pss, tree)) / 1024


def _pss(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


def any_figures(value: Any) -> Any:
    """`value` with its numbers rounded to what they are worth."""
    if isinstance(value, float):
        return round(value, 3)
    return {key: any_figures(each) for key, each in value.items()} if isinstance(value, dict) else value
