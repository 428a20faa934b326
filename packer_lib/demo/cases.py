"""The three case studies as the demo drops them: the examples, with the demo's brokers, topics and fresh model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from packer_lib.demo.brokers import Broker

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "pipelines" / "examples"
SAMPLE = EXAMPLES / "data" / "metrics.csv"
HEADER = "# Dropped by `make demo`, and taken away when it ends. The example it comes from: examples/{}\n"


@dataclass(frozen=True, slots=True)
class Case:
    """One case study. `source` and `sink` are the ids of its outermost queues ("" behind REST)."""

    id: str
    title: str
    example: str
    source: str = ""
    sink: str = ""

    @property
    def file(self) -> str:
        return f"{self.id}.yaml"


A = Case("demo-a-rest", "A: the model alone, behind REST", "lstm-rest.yaml")
B = Case("demo-b-atomic", "B: three steps in one process, Kafka in and out", "lstm-atomic.yaml", "metrics", "anomalies")
C = Case("demo-c-distributed", "C: three processes, MQTT and Kafka", "lstm-distributed.yaml", "metrics", "anomalies")
CASES = (A, B, C)


def load(case: Case) -> dict[str, Any]:
    """The example that `case` comes from, with the demo's own id and topics; deployed as soon as it is dropped."""
    padl: dict[str, Any] = yaml.safe_load((EXAMPLES / case.example).read_text(encoding="utf-8"))
    padl |= {"id": case.id, "autodeploy": True, "retries": 0, "tags": ["demo", *padl["tags"][1:]]}
    for queue in padl.get("queues", {}).values():
        separator = "/" if queue["connector"] == "mqtt" else "."
        queue["props"]["topic"] = f"mlpacker-demo{separator}{queue['props']['topic']}"
    return padl


def topic(case: Case, queue: str) -> str:
    """The topic behind one of the case's queues."""
    found: str = load(case)["queues"][queue]["props"]["topic"]
    return found


def kafka_topics() -> list[str]:
    """Every Kafka topic of the three cases."""
    return [props["topic"] for props in _props("kafka")]


def _props(connector: str) -> Iterator[dict[str, Any]]:
    for case in CASES:
        yield from (
            queue["props"] for queue in load(case).get("queues", {}).values() if queue["connector"] == connector
        )


def place(padl: dict[str, Any], trained: Path, brokers: dict[str, Broker]) -> dict[str, Any]:
    """The same pipeline with the artefacts in `trained` and the queues on `brokers` (by connector)."""
    steps = {name: _step(step, trained) for name, step in padl["pipeline"].items()}
    queues = {name: _queue(queue, brokers[queue["connector"]]) for name, queue in padl.get("queues", {}).items()}
    return {**padl, "pipeline": steps} | ({"queues": queues} if queues else {})


def _step(step: dict[str, Any], trained: Path) -> dict[str, Any]:
    return {**step, "props": {**step["props"], "path": str(trained / Path(step["props"]["path"]).name)}}


def _queue(queue: dict[str, Any], broker: Broker) -> dict[str, Any]:
    return {**queue, "props": {**queue["props"], "server": broker.host, "port": broker.port}}


def gather(trained: Path) -> None:
    """The code steps beside the model in `trained`, the filter with the threshold of that training."""
    for step in ("preparation", "outliers_filter"):
        shutil.copytree(
            EXAMPLES / step, trained / step, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__")
        )
    found = json.loads((trained / "threshold.json").read_text(encoding="utf-8"))
    (trained / "outliers_filter" / "threshold.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def drop(case: Case, folder: Path, trained: Path, brokers: dict[str, Broker]) -> Path:
    """The case's PADL file in the watched `folder`, whole or not at all."""
    target = folder / case.file
    text = yaml.safe_dump(place(load(case), trained, brokers), sort_keys=False, allow_unicode=True, width=110)
    waiting = target.with_name(f".{case.file}.new")
    waiting.write_text(HEADER.format(case.example) + text, encoding="utf-8")
    waiting.replace(target)
    return target


def take_away(folder: Path) -> None:
    """The three files, where they are there."""
    for case in CASES:
        (folder / case.file).unlink(missing_ok=True)
        (folder / f".{case.file}.new").unlink(missing_ok=True)
