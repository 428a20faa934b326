"""Rules about where steps run: machines, links between them, ports and replicas of units. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from packer_lib.padl import graph
from packer_lib.padl.document import Finding
from packer_lib.padl.links import place, suggestion
from packer_lib.padl.model import Pipeline, Step


def machines(pipeline: Pipeline) -> Iterator[Finding]:
    """A remote pipeline has a machine for every step; a local one runs here whatever it names."""
    known = [machine.id for machine in pipeline.machines]
    for step in pipeline.steps:
        if step.machine and step.machine not in known:
            message = f"no machine is called '{step.machine}'"
            yield Finding(("pipeline", step.name, "infra"), message, suggestion(step.machine, known, "infra"))
        elif not step.machine and pipeline.deploy_mode == "remote":
            message = "missing 'infra': every step of a remote pipeline names its machine"
            yield Finding(("pipeline", step.name), message, _machine_hint(known), on="key")
    if pipeline.deploy_mode == "local" and any(step.machine for step in pipeline.steps):
        message = "everything runs on this machine, and the machines of infra only tell which steps share a process"
        yield Finding(("deploy-mode",), message, 'set "deploy-mode": "remote" to use them', level="warning")


def _machine_hint(known: list[str]) -> str:
    return f"there is {', '.join(known)}" if known else 'describe one in "infra", or set "deploy-mode": "local"'


def neighbours(pipeline: Pipeline) -> Iterator[Finding]:
    """In a stream, linked steps are one process, so that they are on one machine."""
    if pipeline.package_mode != "stream":
        return
    steps = {step.name: step for step in pipeline.steps if _placed(step, pipeline)}
    for name, following in graph.links(pipeline).items():
        for other in following:
            if name in steps and other in steps and steps[name].machine != steps[other].machine:
                yield _apart(steps[name], steps[other])


def _placed(step: Step, pipeline: Pipeline) -> bool:
    """Whether `machines` has nothing against the step's machine."""
    if step.machine is None:
        return pipeline.deploy_mode == "local"
    return step.machine in {machine.id for machine in pipeline.machines}


def _apart(step: Step, other: Step) -> Finding:
    message = (
        f"'{step.name}' is on {_named(step)} and '{other.name}' on {_named(other)}, "
        "and a direct link joins steps of one process"
    )
    return Finding(place(step, "output", other.name), message, "put a queue between them")


def _named(step: Step) -> str:
    return f"machine '{step.machine}'" if step.machine else "no machine"


def ports(pipeline: Pipeline) -> Iterator[Finding]:
    """A unit has one port, and a machine gives a port to one unit."""
    taken: dict[tuple[str | None, int], tuple[str, str]] = {}
    local = pipeline.deploy_mode == "local"
    for group in graph.groups(pipeline):
        for step in group:
            if step.port is None:
                continue
            key = (None if local else step.machine, step.port)
            yield from _second_port(step, group)
            unit, first = taken.setdefault(key, (group[0].name, step.name))
            if unit != group[0].name:
                message = f"port {step.port} is taken by step '{first}' on the same machine"
                yield Finding(("pipeline", step.name, "port"), message)


def _second_port(step: Step, group: tuple[Step, ...]) -> Iterator[Finding]:
    first = next(other for other in group if other.port is not None)
    if first.port != step.port:
        message = f"'{first.name}' has port {first.port}, and both steps are one unit with one port"
        yield Finding(("pipeline", step.name, "port"), message, "keep one of them")


def replicas(pipeline: Pipeline) -> Iterator[Finding]:
    """Steps of one unit share its processes; an address that a unit listens on is for one process."""
    listening = {queue.id for queue in pipeline.queues if queue.options.get("role") == "server"}
    for group in graph.groups(pipeline):
        several = [step for step in group if step.replicas > 1]
        for step in several:
            here = ("pipeline", step.name, "replicas")
            if step.replicas != several[0].replicas:
                message = f"'{several[0].name}' has {several[0].replicas}, and both steps are one unit"
                yield Finding(here, message, "keep one of them")
        names = {name for step in group for name in (*step.inputs, *step.outputs)}
        if several and names & listening:
            queue = min(names & listening)
            here = ("pipeline", several[0].name, "replicas")
            yield Finding(here, f"the unit listens for '{queue}' as a websocket server, which one process can do")
