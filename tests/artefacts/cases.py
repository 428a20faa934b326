"""Small real pipelines for these tests: a PADL file on disk and the plan that belongs to it."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
from pathlib import Path
from typing import Any

from packer_lib.padl.model import PackageMode, Queue, Step
from packer_lib.plan import Plan, Unit
from packer_lib.settings import Settings
from tests.support import require

CODE = "def handler(value):\n    return value\n"
IDENTITY = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b"}
QUEUES = (
    Queue("q1", "mqtt", "broker.example", 1883, "in"),
    Queue("q2", "mqtt", "broker.example", 1883, "out"),
    Queue("h1", "mqtt", "broker.example", 1883, "held", schema={"type": "array"}),
    Queue("k1", "kafka", "broker.example", 9092, "in"),
    Queue("k2", "kafka", "broker.example", 9092, "out"),
    Queue("w1", "websocket", "broker.example", 8765, "in"),
)


def settings(folder: Path, **more: Any) -> Settings:
    return Settings(home=folder / "home", **more)


def model(path: str = "model.pickle", serializer: str = "pickle", **more: Any) -> Step:
    given = {"framework": "scikit-learn", "inputs": ("q1",), "outputs": ("q2",), **more}
    return Step("classify", "model", path, serializer=serializer, **given)


def code(path: str = "./code", **more: Any) -> Step:
    given = {"inputs": ("q1",), "outputs": ("q2",), **more}
    return Step("prepare", "code", path, **given)


def plan(folder: Path, *steps: Step, mode: PackageMode = "stream") -> Plan:
    """One unit of these steps; `folder/pipeline.json` has their props, one key a line."""
    props = {step.name: {"props": {"path": step.path, "serializer": step.serializer}} for step in steps}
    file = folder / "pipeline.json"
    file.write_text(json.dumps({"id": "demo", "pipeline": props}, indent=2), encoding="utf-8")
    names = {queue.id for queue in QUEUES}
    sources = tuple(name for step in steps for name in step.inputs if name in names)
    sinks = tuple(name for step in steps for name in step.outputs if name in names)
    unit = Unit(steps[0].name, steps, sources=sources, sinks=sinks)
    return Plan("demo", mode, "local", False, (unit,), QUEUES if mode == "stream" else (), file=str(file))


def write_model(folder: Path, name: str = "model.pickle", value: Any = 1) -> Path:
    path = folder / name
    path.write_bytes(pickle.dumps(value))
    return path


def write_code(folder: Path, name: str = "code", **files: str) -> Path:
    """A code folder; `files` are its further files, with `__` for the dot."""
    path = folder / name
    path.mkdir(parents=True, exist_ok=True)
    for file, text in {"main__py": CODE, **files}.items():
        (path / file.replace("__", ".")).write_text(text, encoding="utf-8")
    return path


class Repository:
    """A repository on disk with one commit."""

    def __init__(self, folder: Path) -> None:
        require("git", "apt-get install git")
        self.folder = write_code(folder, "repository")
        self.run("init", "--quiet", "--initial-branch=main")
        self.first = self.commit()

    @property
    def url(self) -> str:
        return f"file://{self.folder}"

    def run(self, *argv: str) -> str:
        env = {"PATH": os.environ["PATH"], "HOME": str(self.folder), **IDENTITY}
        options = ("-c", "protocol.file.allow=always")
        done = subprocess.run(
            ["git", *options, *argv], cwd=self.folder, env=env, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    def commit(self) -> str:
        self.run("add", "--all")
        self.run("commit", "--quiet", "--allow-empty", "--message=more")
        return self.run("rev-parse", "HEAD")
