"""One row a request, one model, ours beside the peers, in one run; `python -m tests.benchmarks rest [--seconds N]`.

The model is the breast-cancer one of the stream benchmark. Every system has one worker and the same load: wrk, with 1 and
with 16 connections. The load generator is on the same machine and takes its share of it, so that only the ratios count.

    echo             the limit: an ASGI app that reads the body and answers three bytes
    ours             `python service.py` of the bundle that mlpacker writes
    ours_bentoml     the same bundle under `bentoml serve`
    bentoml_plain    a BentoML service written by hand; bentoml_batchable: the same with `batchable=True`
    mlserver         MLServer with its scikit-learn runtime
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from packer_lib import artefacts, bundle, settings
from packer_lib.padl import read_text
from packer_lib.plan import plan
from tests.benchmarks.common import PEERS, own_environment, train
from tests.support import free_port, require, wait_for

CONNECTIONS = (1, 16)
PADL = """
version: "1.1"
id: bench
containerized: false
package-mode: api
deploy-mode: local
pipeline:
  model:
    type: model
    framework: scikit-learn
    props: {path: ./model.joblib, serializer: joblib, input_format: json}
"""
BENTOML = ("bentoml==1.4.39", "scikit-learn==1.9.1", "joblib", "uvloop", "httptools")
MICROSECONDS = {"us": 1.0, "ms": 1e3, "s": 1e6, "m": 6e7}


@dataclass(frozen=True)
class System:
    """How to start one system (PORT is filled in), and what to ask it: a route and a file below its folder."""

    command: list[str]
    route: str
    folder: Path
    body: str = "one.json"
    environment: Mapping[str, str] = field(default_factory=dict)


def main(folder: Path, seconds: int = 8) -> dict[str, Any]:
    """`systems`: requests per second, latencies in ms and failed requests, by name and number of connections;
    `ratios`: ours divided by each other's requests per second."""
    require("wrk", "apt-get install wrk")
    figures = {name: measure(name, system, seconds) for name, system in systems(folder / "rest")}
    ratios = {
        name: {count: round(figures["ours"][count]["rps"] / figure["rps"], 2) for count, figure in each.items()}
        for name, each in figures.items()
        if name != "ours"
    }
    return {"systems": figures, "ratios": ratios}


def systems(folder: Path) -> Iterator[tuple[str, System]]:
    python = sys.executable
    here = prepare(folder / "ours", python)
    uvicorn = [python, "-m", "uvicorn", "echo:app", "--port", "PORT", "--log-level", "warning"]
    yield "echo", System([*uvicorn, "--loop", "uvloop", "--http", "httptools", "--lifespan", "off"], "/", here)
    ours = our_bundle(here)
    body = str(here / "one.json")
    yield "ours", System([python, "service.py"], "/predict", ours, body, {"MLPACKER_PORT": "PORT"})
    serve = ["-m", "bentoml", "serve", "--host", "127.0.0.1", "--port", "PORT"]
    yield "ours_bentoml", System([python, *serve, "service:Service"], "/predict", ours, body)
    bento = own_environment(folder, "bentoml", *BENTOML)
    there = prepare(folder / "bentoml", bento)
    yield "bentoml_plain", System([bento, *serve, "bento_by_hand:Plain"], "/predict", there)
    yield "bentoml_batchable", System([bento, *serve, "bento_by_hand:Batchable"], "/predict", there)
    mlserver = own_environment(folder, "mlserver", "mlserver", "mlserver-sklearn")
    there = prepare(folder / "mlserver", mlserver)
    write_mlserver(there)
    start = [mlserver, "-m", "mlserver.cli.main", "start", "."]
    yield "mlserver", System(start, "/v2/models/m/infer", there, "v2.json", {"MLSERVER_HTTP_PORT": "PORT"})


def prepare(folder: Path, python: str) -> Path:
    """`folder` with the peers' files and the model, trained by the scikit-learn that is going to load it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("echo.py", "bento_by_hand.py", "train.py"):
        shutil.copyfile(PEERS / name, folder / name)
    subprocess.run([python, "train.py"], cwd=folder, check=True)
    return folder


def our_bundle(folder: Path) -> Path:
    """The bundle that `mlpacker bundle` writes for the benchmark's PADL."""
    model, _ = train(folder)
    ours = plan(read_text(PADL, str(model.parent / "bench.padl.yaml")))
    output = folder / "bundle"
    shutil.rmtree(output, ignore_errors=True)
    return bundle.write(ours, ours.units[0], artefacts.fetch(ours, ours.units[0], settings.read()), output).path


def write_mlserver(folder: Path) -> None:
    model = {"name": "m", "implementation": "mlserver_sklearn.SKLearnModel", "parameters": {"uri": "model.joblib"}}
    ports = {"grpc_port": free_port(), "metrics_port": free_port()}
    (folder / "model-settings.json").write_text(json.dumps(model))
    (folder / "settings.json").write_text(json.dumps({**ports, "parallel_workers": 0, "debug": False}))


def measure(name: str, system: System, seconds: int) -> dict[str, dict[str, float]]:
    """The figures of `system` by number of connections."""
    with running(system, system.folder.parent / f"{name}.log") as url:
        figures = {str(count): load(url, system.folder / system.body, count, seconds) for count in CONNECTIONS}
    for count, figure in figures.items():
        show = f"{figure['rps']:>9.0f} req/s   p50 {figure['p50_ms']:.2f} ms   p99 {figure['p99_ms']:.2f} ms"
        print(f"[bench] {name:<18} {count:>2} connections {show}   {figure['failed']:.0f} failed", flush=True)
    return figures


@contextmanager
def running(system: System, log: Path) -> Iterator[str]:
    """The URL of `system`, which answers it with 200, in a process group of its own until the block ends."""
    port = str(free_port())
    command = [word.replace("PORT", port) for word in system.command]
    given = {name: value.replace("PORT", port) for name, value in system.environment.items()}
    environment = {**os.environ, "BENTOML_DO_NOT_TRACK": "true", "BENTOML_HOME": str(log.parent / "bentoml-home")}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=system.folder,
            env={**environment, **given},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        url = f"http://127.0.0.1:{port}{system.route}"
        body = (system.folder / system.body).read_bytes()
        wait_for(lambda: answers(url, body), 120, f"{command} answers, see {log}")
        yield url
    finally:
        stop(process)


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


def load(url: str, body: Path, connections: int, seconds: int) -> dict[str, float]:
    """What wrk says of `seconds` of posting `body` to `url`."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", str(PEERS / "post.lua"), url]
    done = subprocess.run(command, env={**os.environ, "BODY": str(body)}, capture_output=True, text=True, check=True)
    failed = re.search(r"Non-2xx or 3xx responses: (\d+)", done.stdout)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    if rate is None:
        raise RuntimeError(done.stdout)
    return {
        "rps": float(rate[1]),
        "p50_ms": latency(done.stdout, "50%"),
        "p99_ms": latency(done.stdout, "99%"),
        "failed": float(failed[1]) if failed else 0.0,
    }


def latency(text: str, quantile: str) -> float:
    """Milliseconds, from wrk's `99%  1.22ms`."""
    found = re.search(rf"^\s+{quantile}\s+([\d.]+)(us|ms|s|m)$", text, re.MULTILINE)
    if found is None:
        raise RuntimeError(text)
    return float(found[1]) * MICROSECONDS[found[2]] / 1e3
