"""Rules about what containers change: images, limits, and what `localhost` means inside one. Pure.

A key that has no effect in this file is a warning: `containerized` is a switch that people turn back and forth.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

from packer_lib.padl import graph
from packer_lib.padl.document import Finding, Pointer
from packer_lib.padl.model import NO_LIMITS, Pipeline, Queue, Step

HOST = "host.docker.internal"
"""What the machine is called inside its containers (the run profile sees to it on Linux, too)."""

_LEAST_MEMORY = 6 * 1024 * 1024  # Docker's own minimum: "Minimum memory limit allowed is 6MB"
_UNITS = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}
_TAKE_OUT = 'take it out, or set "containerized": true'


def is_loopback(name: str) -> bool:
    """Whether `name` is the machine itself, whichever asks: localhost, 127.0.0.0/8, ::1."""
    plain = name.rstrip(".").lower()
    if plain == "localhost" or plain.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(plain).is_loopback
    except ValueError:
        return False


def without_effect(pipeline: Pipeline) -> Iterator[Finding]:
    """What only containers have: a registry, limits, Docker."""
    if pipeline.containerized:
        return
    if pipeline.registry:
        yield _idle(("registry",), "units run natively, and there is no image for a registry")
    for step in pipeline.steps:
        if step.resources != NO_LIMITS:
            yield _idle(("pipeline", step.name, "resources"), "units run natively, and native processes have no limits")
    for machine in pipeline.machines:
        if machine.install:
            yield _idle(("infra", machine.id, "install"), "units run natively, and need no Docker")


def _idle(pointer: Pointer, message: str) -> Finding:
    return Finding(pointer, message, _TAKE_OUT, level="warning", on="key")


def limits(pipeline: Pipeline) -> Iterator[Finding]:
    """A unit has one set of limits, and Docker takes no less than 6 MB."""
    for group in graph.groups(pipeline):
        given = [step for step in group if step.resources != NO_LIMITS]
        for step in given:
            yield from _too_little(step)
            if step.resources != given[0].resources:
                message = f"'{given[0].name}' has other limits, and both steps are one unit"
                yield Finding(("pipeline", step.name, "resources"), message, "keep one of them", on="key")


def _too_little(step: Step) -> Iterator[Finding]:
    match = re.fullmatch(r"([0-9]+)([kmg]?)", step.resources.memory)
    if match and int(match[1]) * _UNITS[match[2]] < _LEAST_MEMORY:
        here = ("pipeline", step.name, "resources", "memory")
        yield Finding(here, f"expected at least 6m, got {step.resources.memory}", "a Python process takes 50m and more")


def brokers(pipeline: Pipeline) -> Iterator[Finding]:
    """Inside a container `localhost` is the container."""
    if not pipeline.containerized:
        return
    for queue in pipeline.queues:
        if is_loopback(queue.server):
            yield _of_the_container(queue)


def _of_the_container(queue: Queue) -> Finding:
    here = ("queues", queue.id, "props", "server")
    if queue.options.get("role") == "server":
        message = f"inside a container nobody else reaches '{queue.server}'"
        return Finding(here, message, "listen on 0.0.0.0", level="warning")
    message = f"inside a container '{queue.server}' is the container itself"
    return Finding(here, message, f"{HOST} is the machine that it runs on", level="warning")
