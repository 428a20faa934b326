"""The paper's listings as PADL documents, what they need beside them, and what they must answer.

The files as printed are read when they are there (`../shared/padl`); else the same pipeline is written here. What only
the authors have is replaced: their git repositories and home folder become folders beside the PADL file.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from functools import cache
from importlib import util
from pathlib import Path
from typing import Any

from tests.support import ROOT, SHARED

EXAMPLES = ROOT / "pipelines" / "examples"
MODEL = "./packer/models/lstm.h5"
CODE = {"preparation": "./preparation", "outliers_filter": "./outliers_filter"}
MQTT, KAFKA = {"server": "mqtt_1", "port": 1883}, {"server": "kafka_1", "port": 9092}
QUEUES = {
    "q1": {"connector": "mqtt", "props": {**MQTT, "topic": "test1"}},
    "q2": {"connector": "mqtt", "props": {**MQTT, "topic": "test2"}},
    "q3": {"connector": "kafka", "props": {**KAFKA, "topic": "test3"}},
    "q4": {"connector": "kafka", "props": {**KAFKA, "topic": "test4"}},
}
HOSTS = {"m1": "edge_node", "m2": "cloud_1", "m3": "cloud_2"}


def listing(number: int) -> dict[str, Any]:
    """Listing 1 (case C), 2 (case A) or 3 (case B), complete."""
    name = {1: "listing1.json", 2: "listing2_full.json", 3: "listing3_full.json"}[number]
    printed = SHARED / "padl" / name
    document = json.loads(printed.read_text()) if printed.exists() else _written(number)
    for step, body in document["pipeline"].items():
        body["props"]["path"] = CODE.get(step, MODEL)
    return document  # type: ignore[no-any-return]


def _written(number: int) -> dict[str, Any]:
    """The same as printed."""
    head = {"version": "1.0", "id": "1", "containerized": True, "deploy-mode": "remote"}
    if number == 2:
        return {**head, "package-mode": "api", "pipeline": {"lstm": _model({}, "m1")}, "infra": _infra("m1")}
    chain = {
        1: (("q1", "q2", "m1"), ("q2", "q3", "m2"), ("q3", "q4", "m3")),
        3: (("q3", "lstm", "m2"), ("preparation", "outliers_filter", "m2"), ("lstm", "q4", "m2")),
    }[number]
    steps = {
        name: make({"queues": {"input": source, "output": sink}}, machine)
        for (name, make), (source, sink, machine) in zip(
            (("preparation", _code), ("lstm", _model), ("outliers_filter", _code)), chain, strict=True
        )
    }
    queues = QUEUES if number == 1 else {name: QUEUES[name] for name in ("q3", "q4")}
    machines = HOSTS if number == 1 else ("m2",)
    return {**head, "package-mode": "stream", "pipeline": steps, "queues": queues, "infra": _infra(*machines)}


def _code(more: dict[str, Any], machine: str) -> dict[str, Any]:
    props = {"path": "", "entrypoint": "main.py", "function": "handler"}
    return {"language": "python", "type": "code", "props": props, **more, "infra": machine}


def _model(more: dict[str, Any], machine: str) -> dict[str, Any]:
    props = {"path": "", "input_format": "json", "serializer": "h5"}
    return {"framework": "tensorflow", "type": "model", "props": props, **more, "infra": machine}


def _infra(*names: str) -> dict[str, Any]:
    login = {"user": "vagrant", "pass": "vagrant", "port": 22}
    return {name: {"hostname": HOSTS[name], "sshConfig": login} for name in names}


def place(pipelines: Path) -> None:
    """Model and code where the documents say they are."""
    (pipelines / "packer" / "models").mkdir(parents=True, exist_ok=True)
    shutil.copy(EXAMPLES / "models" / "lstm.h5", pipelines / MODEL)
    for name in CODE:
        shutil.copytree(EXAMPLES / name, pipelines / name, dirs_exist_ok=True)


def records(number: int = 45) -> list[dict[str, Any]]:
    """A quiet host whose disk and network go mad from the 36th record on."""
    return [
        {
            "timestamp": second,
            "host": "plant-1",
            "cpu": 20.0 if second < 35 else 99.0,
            "network_in": 5000.0 if second < 35 else 9e8,
            "disk_read": 0.0 if second < 35 else 9e9,
        }
        for second in range(number)
    ]


def anomalies(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the three steps make of `messages` when they are called directly, one after the other."""
    prepare, judge = _handler("preparation"), _handler("outliers_filter")
    windows = [window for message in messages if (window := prepare(message))]
    guesses = reconstruct([window["data"] for window in windows])
    found = [judge({**window, "prediction": guess}) for window, guess in zip(windows, guesses, strict=True)]
    anomalies = [anomaly for anomaly in found if anomaly]
    assert 0 < len(anomalies) < len(windows)
    return anomalies


def reconstruct(windows: Sequence[Any]) -> Any:
    """The model's own answer, as lists."""
    import numpy as np

    return _lstm().predict(np.array(windows, dtype="float32"), verbose=0).tolist()


@cache
def _lstm() -> Any:
    import keras

    return keras.models.load_model(EXAMPLES / "models" / "lstm.h5", compile=False)


def _handler(name: str) -> Any:
    """A fresh copy of the step's function."""
    spec = util.spec_from_file_location(f"paper_{name}", EXAMPLES / name / "main.py")
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.handler
