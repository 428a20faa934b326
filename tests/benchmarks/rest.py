"""One row a request, one model, ours beside the peers, in one run; `python -m tests.benchmarks rest [--seconds N]`.

The model is the breast-cancer one of the stream benchmark. Every system has one worker and the same load: wrk, with 1
and with 16 connections. All run at the same time and are asked in turn, several times over, so that what else happens
on the machine happens to all of them; the figures are medians. wrk itself takes its share, so that only ratios count.

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
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from packer_lib import artefacts, bundle, settings
from packer_lib.padl import read_text
from packer_lib.plan import plan
from tests.benchmarks.common import PEERS, own_environment, train
from tests.support import free_port, require, wait_for

CONNECTIONS = (1, 16)
ROUNDS = 4
WHAT = (
    "One row of 30 numbers a request, scikit-learn's scaler and logistic regression, one worker each. `echo` is the"
    " limit: an ASGI app that answers three bytes. All systems run at the same time and are asked in turn; medians of"
    " four rounds."
)
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
Round = dict[tuple[str, int], dict[str, float]]  # by name and number of connections


@dataclass(frozen=True)
class System:
    """How to start one system (PORT is filled in), and what to ask it: a route and a file below its folder."""

    command: list[str]
    route: str
    folder: Path
    body: str = "one.json"
    environment: Mapping[str, str] = field(default_factory=dict)


def main(folder: Path, seconds: int = 8) -> dict[str, Any]:
    """What the page shows (`rates`: requests per second at 16 connections; `ratios`: ours divided by theirs), and in
    `systems` all figures by name and number of connections. Each load lasts `seconds` in all."""
    require("wrk", "apt-get install wrk")
    with ExitStack() as stack:
        started = {
            name: (system, stack.enter_context(running(system, folder / "rest" / f"{name}.log")))
            for name, system in systems(folder / "rest")
        }
        rounds = [one_round(started, max(1, seconds // ROUNDS)) for _ in range(ROUNDS)]
    figures = {name: {str(count): medians(rounds, (name, count)) for count in CONNECTIONS} for name in started}
    ratios = {
        name: {str(count): ratio(rounds, name, count) for count in CONNECTIONS} for name in started if name != "ours"
    }
    show(figures, ratios)
    return {
        "title": "REST",
        "what": WHAT,
        "unit": "requests per second, 16 connections",
        "rates": {name: figure["16"]["rps"] for name, figure in figures.items()},
        "ratios": {f"{name}, {count} conn.": value for name, each in ratios.items() for count, value in each.items()},
        "systems": figures,
    }


def one_round(started: dict[str, tuple[System, str]], seconds: int) -> Round:
    """Every system once with every number of connections."""
    return {
        (name, count): load(url, system.folder / system.body, count, seconds)
        for count in CONNECTIONS
        for name, (system, url) in started.items()
    }


def medians(rounds: list[Round], which: tuple[str, int]) -> dict[str, float]:
    return {key: round(median(each[which][key] for each in rounds), 3) for key in rounds[0][which]}


def ratio(rounds: list[Round], name: str, count: int) -> float:
    """Ours to `name`, within each round, in the middle."""
    return round(median(each["ours", count]["rps"] / each[name, count]["rps"] for each in rounds), 2)


def show(figures: dict[str, dict[str, dict[str, float]]], ratios: dict[str, dict[str, float]]) -> None:
    print("[bench] rest                conn.     req/s     p50 ms     p99 ms  failed   ours to it")
    for name, each in figures.items():
        for count, figure in each.items():
            numbers = (
                f"{figure['rps']:>9.0f} {figure['p50_ms']:>10.2f} {figure['p99_ms']:>10.2f} {figure['failed']:>7.0f}"
            )
            print(
                f"[bench] {name:<18} {count:>6} {numbers} {ratios.get(name, {}).get(count, 1.0):>10.2f} ×", flush=True
            )


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
