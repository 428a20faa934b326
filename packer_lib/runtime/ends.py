"""The ends of a unit: which queues it reads and writes, and the sources and sinks of their connectors."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from .catalogue import CONNECTORS, find
from .contract import Replica, Sink, Source
from .manifest import Manifest, QueueSpec

ONCE = "exactly_once"


def plug(queue: QueueSpec) -> Any:
    """The connector class of the catalogue for `queue`."""
    return find("connector", queue.connector, CONNECTORS).load()


def inputs(manifest: Manifest) -> list[QueueSpec]:
    """The queues that the unit reads, in the order of its steps."""
    return _queues(manifest, (queue for step in manifest.steps for queue in step.inputs))


def outputs(manifest: Manifest) -> list[QueueSpec]:
    """The queues that the unit writes: its outputs, then its dead-letter queues."""
    plain = [queue for step in manifest.steps for queue in step.outputs]
    return _queues(manifest, [*plain, *(step.dead_letter for step in manifest.steps if step.on_error == "dead_letter")])


def _queues(manifest: Manifest, names: Iterable[str]) -> list[QueueSpec]:
    return [manifest.queues[name] for name in dict.fromkeys(names) if name in manifest.queues]


def connectors(
    manifest: Manifest, plug: Callable[[QueueSpec], Any], replica: Replica
) -> tuple[dict[str, Source], dict[str, Sink]]:
    """Queue id → source, and → sink; of one transaction where a step asks for `delivery: exactly_once`.

    `ValueError` where the unit's queues cannot have that.
    """
    name = f"mlpacker.{manifest.pipeline}.{manifest.unit}"
    read, written = inputs(manifest), outputs(manifest)
    if any(step.delivery == ONCE for step in manifest.steps):
        return _once(read, written, plug, name, replica)
    sources = {queue.id: plug(queue).source(queue, name, replica) for queue in read}
    return sources, {queue.id: plug(queue).sink(queue, name, replica) for queue in written}


def _once(
    read: list[QueueSpec], written: list[QueueSpec], plug: Callable[[QueueSpec], Any], name: str, replica: Replica
) -> tuple[dict[str, Source], dict[str, Sink]]:
    """Transactions are of one broker, so that nothing else can be part of them."""
    both = [*read, *written]
    first = read[0]
    for queue in both:
        if not hasattr(plug(queue), "once"):
            raise ValueError(f"delivery exactly_once is for kafka, and queue {queue.id!r} is {queue.connector}")
        if (queue.server, queue.port) != (first.server, first.port):
            raise ValueError(
                f"delivery exactly_once needs one broker, and {queue.id!r} is on {queue.server}:{queue.port}, "
                f"{first.id!r} on {first.server}:{first.port}"
            )
    made: tuple[dict[str, Source], dict[str, Sink]] = plug(first).once(read, written, name, replica)
    return made
