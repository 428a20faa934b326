"""Bundles with a small real model, and the lab's settings: what the tests of images and containers build."""

from __future__ import annotations

import json
import pickle
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from packer_lib import artefacts
from packer_lib import bundle as bundles
from packer_lib import settings as installation
from packer_lib.bundle import Bundle
from packer_lib.padl.model import Golden, PackageMode, Queue, Step
from packer_lib.plan import Plan, Unit
from packer_lib.settings import Settings
from tests.lab import lab

DOCKER = "/usr/bin/docker"


def docker(*argv: str, client: Sequence[str] = (DOCKER,), check: bool = True) -> str:
    """What the client prints; for looking, and for clearing up."""
    done = subprocess.run([*client, *argv], capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, done.stderr
    return done.stdout


def settings(folder: Path, auth: bool = False, registry: bool = True, **more: Any) -> Settings:
    """The lab's, with a home in `folder`."""
    env = {**lab.settings_env(), **(lab.registry_env(auth) if registry else {})}
    env["MLPACKER__PATHS__HOME"] = str(folder / "home")
    return replace(installation.read(env), **more)


def model(folder: Path, factor: float) -> Path:
    """A pickled regression that answers `factor` times the sum of its two features."""
    import numpy as np
    from sklearn.linear_model import LinearRegression

    trained = LinearRegression().fit(np.eye(2), np.full(2, factor))
    trained.coef_, trained.intercept_ = np.full(2, factor), 0.0
    path = folder / "model.pickle"
    path.write_bytes(pickle.dumps(trained))
    return path


def plan(folder: Path, pipeline: str = "images", mode: PackageMode = "api", code: bool = False, **unit: Any) -> Plan:
    """One unit `model` of one step: a model behind REST, or a function; a stream one reads and writes MQTT."""
    queues = (
        Queue("in", "mqtt", "mqtt_1", 1883, f"{pipeline}/in"),
        Queue("out", "mqtt", "mqtt_1", 1883, f"{pipeline}/out"),
    )
    ends = {"inputs": ("in",), "outputs": ("out",)} if mode == "stream" else {"inputs": (), "outputs": ()}
    step = Step(
        "model", "model", "model.pickle", framework="scikit-learn", serializer="pickle", test=Golden([2.0, 3.0]), **ends
    )
    step = Step("model", "code", "./code", **ends) if code else step
    names = {"sources": ("in",), "sinks": ("out",)} if mode == "stream" else {}
    file = folder / "pipeline.json"
    file.write_text(json.dumps({"id": pipeline, "pipeline": {"model": {}}}))
    made = Unit("model", (step,), **names, **unit)
    return Plan(pipeline, mode, "local", True, (made,), queues if mode == "stream" else (), file=str(file))


def bundle(folder: Path, plan: Plan, settings: Settings, factor: float = 2.0, answer: str = "return value") -> Bundle:
    """The bundle of the plan's unit, with a model or a function that has not been there before."""
    if plan.units[0].steps[0].kind == "code":
        (folder / "code").mkdir(exist_ok=True)
        (folder / "code" / "main.py").write_text(f"def handler(value):\n    {answer}\n")
    else:
        model(folder, factor)
    fetched = artefacts.fetch(plan, plan.units[0], settings)
    return bundles.write(plan, plan.units[0], fetched, folder / "bundle", settings)


def clear(pipeline: str, client: Sequence[str] = (DOCKER,)) -> None:
    """No container, volume or image of the pipeline on that engine."""
    label = f"label=io.mlpacker.pipeline={pipeline}"
    for kind, words in (("container", ("rm", "--force")), ("volume", ("rm", "--force")), ("image", ("rm", "--force"))):
        listing = ("ls", "--quiet", "--filter", label, *(("--all",) if kind != "volume" else ()))
        found = sorted(set(docker(kind, *listing, client=client).split()))
        if found:
            docker(kind, *words, *found, client=client, check=False)
