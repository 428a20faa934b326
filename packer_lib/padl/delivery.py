"""Rules about what may happen to a message: `delivery`. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from packer_lib.padl import graph
from packer_lib.padl.document import Finding
from packer_lib.padl.model import Pipeline, Queue, Step


def exactly_once(pipeline: Pipeline) -> Iterator[Finding]:
    """One transaction holds what a unit reads and writes; it is of one Kafka broker, and no request has one."""
    queues = {queue.id: queue for queue in pipeline.queues}
    for group in graph.groups(pipeline):
        for step in group:
            if step.delivery == "exactly_once":
                yield from _once(pipeline, step, [queues[name] for name in _names(group) if name in queues])


def _names(group: tuple[Step, ...]) -> tuple[str, ...]:
    named = [name for step in group for name in (*step.inputs, *step.outputs, step.dead_letter or "")]
    return tuple(dict.fromkeys(named))


def _once(pipeline: Pipeline, step: Step, queues: list[Queue]) -> Iterator[Finding]:
    here = ("pipeline", step.name, "delivery")
    hint = 'take it out, or set "at_least_once"'
    if pipeline.package_mode == "api":
        yield Finding(here, "delivery is for stream pipelines", "an api pipeline answers the caller", on="key")
        return
    other = next((queue for queue in queues if queue.connector != "kafka"), None)
    if other is not None:
        yield Finding(here, f"exactly_once is from Kafka to Kafka, and queue '{other.id}' is {other.connector}", hint)
        return
    far = next((queue for queue in queues if (queue.server, queue.port) != (queues[0].server, queues[0].port)), None)
    if far is not None:
        message = f"exactly_once is on one broker, and queue '{far.id}' is on another than '{queues[0].id}'"
        yield Finding(here, message, hint)
