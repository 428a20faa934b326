"""Where in the PADL file a person looks when a release fails."""

from __future__ import annotations

from pathlib import Path

from packer_lib.errors import Problem
from packer_lib.padl import locate
from packer_lib.plan import Plan, Unit


def placed(plan: Plan, pointer: tuple[str, ...], message: str) -> str:
    """`file:line:column: path: message` for the value at `pointer`, as every problem of a file is told."""
    return str(Problem(plan.file, *locate(Path(plan.file), pointer), ".".join(pointer), message))


def blamed(plan: Plan, unit: Unit, said: str) -> tuple[str, ...]:
    """What a message of `unit` is about: the queue whose address is in it, the step that it names, or the first one."""
    for queue in plan.queues:
        if f" {queue.server}:{queue.port}: " in said:
            return ("queues", queue.id)
    step = next((step for step in unit.steps if f"step {step.name!r}: " in said), unit.steps[0])
    return ("pipeline", step.name)
