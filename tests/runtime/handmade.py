"""Bundles made by hand (runtime, generated entry file, unit.json in one folder), and services run from them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
from jinja2 import Environment, FileSystemLoader, StrictUndefined

import packer_lib
from packer_lib.runtime.manifest import Manifest, StepSpec
from tests.support import free_port, wait_for

PACKAGE = Path(packer_lib.__file__).parent
NO_BYTECODE = shutil.ignore_patterns("__pycache__")


def model_step(folder: Path, model: Any, name: str = "model", **props: Any) -> StepSpec:
    """A scikit-learn step of `model`, which is written where the spec says."""
    path = f"models/{name}/model.joblib"
    (folder / path).parent.mkdir(parents=True)
    joblib.dump(model, folder / path)
    return StepSpec(name, "model", path, framework="scikit-learn", serializer="joblib", **props)


def code_step(folder: Path, name: str, files: dict[str, str] | str, **props: Any) -> StepSpec:
    """A code step of these files; a text alone is its main.py."""
    for file, text in ({"main.py": files} if isinstance(files, str) else files).items():
        path = folder / "code" / name / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return StepSpec(name, "code", f"code/{name}", **props)


def write_bundle(
    folder: Path, *steps: StepSpec, entry: str = "service.py", mode: str = "api", links: tuple[str, ...] = ()
) -> Path:
    """Makes `folder`, which has the steps' files already, a bundle of these steps; `links` are the units it calls."""
    shutil.copytree(PACKAGE / "runtime", folder / "mlpacker_runtime", ignore=NO_BYTECODE)
    templates = Environment(loader=FileSystemLoader(PACKAGE / "templates"), undefined=StrictUndefined)
    (folder / entry).write_text(templates.get_template(f"{entry}.j2").render(), encoding="utf-8")
    (folder / "unit.json").write_text(
        Manifest("plant", steps[0].name, mode, steps, links=links).to_json(), encoding="utf-8"
    )
    return folder


@dataclass(frozen=True)
class Reply:
    status: int
    body: bytes
    headers: dict[str, str]

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Service:
    """A running service; `process` is the leader of its own process group."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path

    def ask(self, path: str, body: bytes | None = None, method: str = "", **headers: str) -> Reply:
        """GET without `body`, else POST as JSON. Header names are written with `_`."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        if body is not None:
            given = {"content-type": "application/json", **given}
        request = urllib.request.Request(self.url + path, body, given, method=method or None)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return Reply(answer.status, answer.read(), dict(answer.headers))
        except urllib.error.HTTPError as error:
            return Reply(error.code, error.read(), dict(error.headers))

    def predict(self, data: Sequence[Any]) -> Reply:
        return self.ask("/predict", json.dumps({"data": data}).encode())

    def ready(self) -> bool:
        if self.process.poll() is not None:
            raise AssertionError(f"ended with {self.process.returncode}:\n{self.log.read_text()}")
        try:
            return self.ask("/readyz").status == 200
        except OSError:
            return False

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


COMMANDS = {
    "python": lambda port: [sys.executable, "service.py"],
    "bentoml": lambda port: [
        *(sys.executable, "-m", "bentoml", "serve", "service:Service"),
        *("--host", "127.0.0.1", "--port", str(port)),
    ],
}


SERVERS = tuple(COMMANDS)


def start(folder: Path, server: str = "python", **environment: str) -> Service:
    """The service of the bundle in `folder`, started by `python service.py` or by `bentoml serve`; not ready yet."""
    port = free_port()
    home = folder.parent / f"{folder.name}-bentoml"
    settings = {"MLPACKER_PORT": str(port), "BENTOML_HOME": str(home), "MLPACKER_RELEASE": "r1", **environment}
    log = folder.parent / f"{folder.name}-{server}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            COMMANDS[server](port),
            cwd=folder,
            env={**os.environ, **settings},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return Service(process, f"http://127.0.0.1:{port}", log)


@contextmanager
def running(folder: Path, server: str = "python", **environment: str) -> Iterator[Service]:
    """As `start`, ready inside, and ended with all of its children afterwards."""
    service = start(folder, server, **environment)
    try:
        wait_for(service.ready, 60, "/readyz answers 200")
        yield service
    finally:
        end(service)


def end(service: Service) -> None:
    """Whatever state it is in: nothing of it is left."""
    try:
        service.stop()
    except subprocess.TimeoutExpired:
        os.killpg(service.process.pid, signal.SIGKILL)
        service.process.wait(10)
