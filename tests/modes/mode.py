"""The sixteen pairs of mode and shape, and the PADL document of each. Pure.

All are one pipeline of three steps, so that they differ in the mode alone: lengths in mm become cm (code), cm become a
class (scikit-learn), the class becomes a name (code). Distributed, the first step is a process of its own.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

NAMES = ("setosa", "versicolor", "virginica")
# Where a remote pipeline runs: containers on machines with an engine, native also on one that has nothing but sshd.
MACHINES = {
    ("container", "atomic"): ("edge_node",),
    ("container", "distributed"): ("edge_node", "cloud_1"),
    ("native", "atomic"): ("bare",),
    ("native", "distributed"): ("cloud_2", "bare"),
}


@dataclass(frozen=True, slots=True, order=True)
class Mode:
    package: str
    deploy: str
    form: str
    shape: str

    @property
    def id(self) -> str:
        return f"{self.package}-{self.deploy}-{self.form}-{self.shape}"

    @property
    def machines(self) -> tuple[str, ...]:
        """Host names of the machines it runs on; none when that is this one."""
        return MACHINES[self.form, self.shape] if self.deploy == "remote" else ()


ALL = tuple(
    Mode(*words)
    for words in itertools.product(
        ("api", "stream"), ("local", "remote"), ("native", "container"), ("atomic", "distributed")
    )
)
# Between them they go through every module; what `make test` has time for.
SHORT = tuple(
    mode
    for mode in ALL
    if mode.id
    in (
        "api-remote-container-distributed",
        "stream-local-container-atomic",
        "stream-remote-native-distributed",
    )
)


def document(mode: Mode, infra: dict[str, Any]) -> dict[str, Any]:
    """The PADL document of `mode`; `infra` are machines by host name, with their logins."""
    steps = _steps(mode)
    head = {
        "version": "1.1",
        "id": mode.id,
        "containerized": mode.form == "container",
        "package-mode": mode.package,
        "deploy-mode": mode.deploy,
        "retries": 4,
    }
    queues = {"queues": _queues(mode)} if mode.package == "stream" else {}
    return {**head, "pipeline": steps, **queues, **({"infra": infra} if infra else {})}


def _steps(mode: Mode) -> dict[str, Any]:
    stream, apart = mode.package == "stream", mode.shape == "distributed"
    between = "between" if stream and apart else ""
    first: dict[str, Any] = {**_code("scale"), "queues": {"output": between or "iris"}}
    model: dict[str, Any] = {**_model(), "queues": {"input": between or "scale", "output": "name"}}
    last: dict[str, Any] = {**_code("name"), "queues": {"input": "iris"}}
    if stream:
        first["queues"]["input"], last["queues"]["output"] = "raw", "found"
    steps = {"scale": first, "iris": model, "name": last}
    for name, machine in _placed(mode).items():
        steps[name]["infra"] = machine
    return steps


def _placed(mode: Mode) -> dict[str, str]:
    """Steps to machines. Locally they say only which steps share a process."""
    machines = mode.machines or (("edge_node", "cloud_1") if mode.shape == "distributed" else ())
    return (
        dict(zip(("scale", "iris", "name"), (machines[0], machines[-1], machines[-1]), strict=True)) if machines else {}
    )


def _code(name: str) -> dict[str, Any]:
    return {"type": "code", "language": "python", "props": {"path": f"./{name}"}}


def _model() -> dict[str, Any]:
    golden = {"input": [5.1, 3.5, 1.4, 0.2], "output": 0}
    props = {"path": "./iris.skops", "serializer": "skops"}
    return {"type": "model", "framework": "scikit-learn", "props": props, "test": golden}


def _queues(mode: Mode) -> dict[str, Any]:
    """MQTT outside; Kafka between the units, where there are two."""
    mqtt = {"server": "mqtt_1", "port": 1883}
    queues = {name: {"connector": "mqtt", "props": {**mqtt, "topic": f"{mode.id}/{name}"}} for name in ("raw", "found")}
    kafka = {"server": "kafka_1", "port": 9092, "topic": f"{mode.id}.between"}
    between = {"between": {"connector": "kafka", "props": kafka}} if mode.shape == "distributed" else {}
    return {**queues, **between}


SCALE = """\
def handler(value):
    return {**value, "data": [length / 10 for length in value["data"]]}
"""
NAME = f"""\
NAMES = {NAMES!r}


def handler(value):
    return {{"id": value["id"], "name": NAMES[value["prediction"]]}}
"""
CODE = {"scale/main.py": SCALE, "name/main.py": NAME}
ROWS = [[51, 35, 14, 2], [67, 30, 52, 23], [59, 30, 42, 15], [49, 25, 45, 17], [60, 22, 40, 10], [77, 38, 67, 22]]
VALUES = [{"id": number, "data": row} for number, row in enumerate(ROWS)]
