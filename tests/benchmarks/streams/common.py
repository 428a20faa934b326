"""What the stream benchmarks share: units as processes, medians, and what comes of a measurement."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

from packer_lib import artefacts, bundle, settings
from packer_lib.padl import read_text
from packer_lib.plan import plan
from tests.support import free_port, wait_for


@dataclass(slots=True)
class Found:
    """`rates` in messages per second, `ratios` of ours to theirs, `latency` in milliseconds."""

    rates: dict[str, float] = field(default_factory=dict)
    ratios: dict[str, float] = field(default_factory=dict)
    latency: dict[str, float] = field(default_factory=dict)


def medians(measures: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """The median of `rounds` figures of each; every round takes all in turn, so that all share what disturbs."""
    figures: dict[str, list[float]] = {name: [] for name in measures}
    for number in range(rounds):
        for name, measure in measures.items():
            figures[name].append(measure())
            print(f"[bench] round {number + 1}: {name} {figures[name][-1]:,.0f}/s", flush=True)
    return {name: statistics.median(values) for name, values in figures.items()}


def queue(connector: str, server: str, port: int, topic: str, **props: Any) -> dict[str, Any]:
    """As PADL has it."""
    return {"connector": connector, "props": {"server": server, "port": port, "topic": topic, **props}}


def our_bundle(folder: Path, model: Path, source: Any, sink: Any, **step: Any) -> Path:
    """The bundle that `mlpacker bundle` writes for one step between two queues, under a name of its own.

    Without more in `step` that is a scikit-learn model in a joblib file. `model` is the file, or a code step's folder.
    """
    name = f"bench-{uuid.uuid4().hex[:8]}"
    joblib = {"type": "model", "framework": "scikit-learn", "serializer": "joblib"}
    step = {**({} if "type" in step else joblib), **step}
    props = {"path": f"./{model.name}", "input_format": "json"}
    if serializer := step.pop("serializer", None):
        props["serializer"] = serializer
    padl = {
        "version": "1.1",
        "id": name,
        "containerized": False,
        "package-mode": "stream",
        "deploy-mode": "local",
        "pipeline": {"step": {**step, "props": props, "queues": {"input": "source", "output": "sink"}}},
        "queues": {"source": source, "sink": sink},
    }
    ours = plan(read_text(json.dumps(padl), str(model.parent / "bench.padl.json")))
    unit = ours.units[0]
    fetched = artefacts.fetch(ours, unit, settings.read())
    return bundle.write(ours, unit, fetched, folder / "bundles" / name).path


@contextmanager
def running(command: Sequence[str], folder: Path, **environment: str) -> Iterator[int]:
    """`command` in a process of its own until the block ends; its output goes to a log in `folder`. Its port."""
    port = free_port()
    variables = {**os.environ, "MLPACKER_PORT": str(port), **environment}
    with (folder / "peer.log").open("ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=variables, cwd=folder)
        try:
            yield port
        finally:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def unit_running(main: Path, folder: Path, **environment: str) -> Iterator[int]:
    """As `running`, for a bundle; it is ready."""
    with running([sys.executable, str(main / "main.py")], folder, **environment) as port:
        wait_for(lambda: is_ready(port), 120, "the unit is ready")
        yield port


def is_ready(port: int) -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{port}/readyz", timeout=1) as answer:
            return bool(answer.status == 200)
    except (URLError, ConnectionError, TimeoutError):
        return False
