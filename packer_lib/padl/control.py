"""Rules about who may call an API pipeline, and who may change it: its key, its admin port, its token. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from packer_lib.padl import graph
from packer_lib.padl.document import Finding
from packer_lib.padl.model import Pipeline

LAST_PORT = 65535


def admin_ports(pipeline: Pipeline) -> dict[str, int]:
    """By unit; each machine counts from the one in the file on, in the order of the file."""
    if pipeline.admin is None or pipeline.package_mode != "api":
        return {}
    hosts = {machine.id: (machine.hostname.rstrip(".").lower(), machine.port) for machine in pipeline.machines}
    ports: dict[str, int] = {}
    there: dict[object, int] = {}
    for group in graph.groups(pipeline):
        machine = group[0].machine if pipeline.deploy_mode == "remote" else None
        place = hosts.get(machine or "", machine)
        ports[group[0].name] = pipeline.admin.port + there.get(place, 0)
        there[place] = there.get(place, 0) + 1
    return ports


def without_effect(pipeline: Pipeline) -> Iterator[Finding]:
    """Nobody calls a stream: what it answers goes to a queue, and its models come by `mlpacker swap`."""
    if pipeline.package_mode == "api":
        return
    for name, given in (("admin", pipeline.admin), ("key", pipeline.key)):
        if given is not None:
            message = f"'{name}' is for api pipelines, and has no effect on a stream"
            yield Finding((name,), message, "take it out", level="warning", on="key")


def range_of_ports(pipeline: Pipeline) -> Iterator[Finding]:
    """Each unit of a machine takes one."""
    last = max(admin_ports(pipeline).values(), default=0)
    if last > LAST_PORT:
        yield Finding(("admin", "port"), f"the last unit would have port {last}, and there is none beyond {LAST_PORT}")


def references(value: dict[str, Any]) -> Iterator[Finding]:
    """Of the document: one secret each, by reference."""
    for name, key in (("admin", "token_env"), ("key", "key_env")):
        node = value.get(name)
        if not isinstance(node, dict):
            continue
        given = [one for one in (key, "conn_id") if one in node]
        if not given:
            hint = f'the variable that holds it, for example "{key}": "PLANT_{name.upper()}"; or conn_id'
            yield Finding((name,), f"missing '{key}'", hint, on="key")
        elif len(given) > 1:
            message = f"{' and '.join(given)} are given, and one is enough"
            yield Finding((name, given[-1]), message, f"keep {given[0]}", on="key")
