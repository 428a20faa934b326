"""PADL texts for the tests of DAGs."""

from __future__ import annotations

import json
from typing import Any


def rest(name: str = "iris", **more: Any) -> dict[str, Any]:
    """One scikit-learn model behind REST."""
    step = {
        "type": "model",
        "framework": "scikit-learn",
        "props": {"path": "./iris.skops", "serializer": "skops"},
    }
    head = {"version": "1.1", "id": name, "containerized": False, "package-mode": "api", "deploy-mode": "local"}
    return {**head, "pipeline": {"iris": step}, **more}


def stream(name: str = "lines", password: str = "vagrant", containerized: bool = True) -> dict[str, Any]:
    """Two steps on two machines, joined by a queue: the shape of the paper's first listing."""

    def queue(topic: str) -> dict[str, Any]:
        return {"connector": "kafka", "props": {"server": "broker", "port": 9092, "topic": topic}}

    def step(source: str, sink: str, machine: str) -> dict[str, Any]:
        return {
            "type": "code",
            "language": "python",
            "infra": machine,
            "queues": {"input": source, "output": sink},
            "props": {"path": "./code", "function": "handler"},
        }

    login = {"user": "vagrant", "pass": password}
    return {
        "version": "1.0",
        "id": name,
        "containerized": containerized,
        "package-mode": "stream",
        "deploy-mode": "remote",
        "queues": {"in": queue("raw"), "between": queue("clean"), "out": queue("found")},
        "infra": {f"m{n}": {"hostname": f"10.0.0.{n}", "sshConfig": login} for n in (1, 2)},
        "pipeline": {"clean": step("in", "between", "m1"), "find": step("between", "out", "m2")},
    }


def chain(name: str = "chain") -> dict[str, Any]:
    """A code step on one machine that calls a model on another over HTTP."""
    document = rest(name, **{"deploy-mode": "remote"})
    document["infra"] = {f"m{n}": {"hostname": f"10.0.0.{n}"} for n in (1, 2)}
    first = {"type": "code", "language": "python", "props": {"path": "./code"}, "queues": {"output": "iris"}}
    model = {**document["pipeline"]["iris"], "queues": {"input": "scale"}, "infra": "m2"}
    return {**document, "pipeline": {"scale": {**first, "infra": "m1"}, "iris": model}}


def text(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2)
