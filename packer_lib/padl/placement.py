"""Rules about where steps run: machines, links between them, ports and replicas of units. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from packer_lib.padl import control, graph
from packer_lib.padl.containers import is_loopback
from packer_lib.padl.document import Finding
from packer_lib.padl.links import place, suggestion
from packer_lib.padl.model import Link, Machine, Pipeline, Step


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


def twins(pipeline: Pipeline) -> Iterator[Finding]:
    """One machine has one id: two would share its folder, and each wait for the other's lock."""
    first: dict[tuple[str, int], Machine] = {}
    for machine in pipeline.machines:
        other = first.setdefault(_address(machine), machine)
        if other is machine:
            continue
        here = ("infra", machine.id)
        if _account(machine) == _account(other):
            message = f"this is machine '{other.id}': the same host, port and user"
            yield Finding(here, message, f"describe it once, and let steps name '{other.id}'", on="key")
        else:
            message = f"this is machine '{other.id}' by another user: each has its own folder, and they share its ports"
            yield Finding(here, message, level="warning", on="key")


def _address(machine: Machine) -> tuple[str, int]:
    return machine.hostname.rstrip(".").lower(), machine.port


def _account(machine: Machine) -> object:
    """Who logs in, as far as the file says: a connection has a user of its own."""
    by_connection = machine.secret is not None and machine.secret.kind == "conn"
    return machine.user, machine.secret if by_connection and not machine.user else None


def calls(pipeline: Pipeline) -> Iterator[Finding]:
    """`link` is for calls between units; who is called from another machine has a name that means it there."""
    if pipeline.package_mode != "api":
        if pipeline.link != Link():
            yield _no_calls("the units of a stream pipeline are joined by queues")
        return
    groups = graph.groups(pipeline)
    if len(groups) == 1 and pipeline.link != Link():
        yield _no_calls("the pipeline is one unit, which calls no other")
    if pipeline.deploy_mode == "remote":
        yield from _called_by_loopback(pipeline)


def _no_calls(message: str) -> Finding:
    return Finding(("link",), message, "take it out", level="warning", on="key")


def _called_by_loopback(pipeline: Pipeline) -> Iterator[Finding]:
    home = {step.name: step.machine for step in pipeline.steps}
    links = [(name, other) for name, following in graph.links(pipeline).items() for other in following]
    called = {home[other] for name, other in links if home[name] != home[other]}
    for machine in pipeline.machines:
        if machine.id in called and is_loopback(machine.hostname):
            message = f"for another machine '{machine.hostname}' is that machine itself, and it calls this one"
            yield Finding(("infra", machine.id, "hostname"), message, "a name that both know", level="warning")


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
    """A unit has one port, and a machine gives a port to one unit; so it does with admin ports."""
    taken: dict[tuple[object, int], tuple[str, str]] = {}
    hosts = {machine.id: _address(machine) for machine in pipeline.machines}
    local = pipeline.deploy_mode == "local"
    yield from _admin_ports(pipeline, hosts)
    for group in graph.groups(pipeline):
        for step in group:
            if step.port is None:
                continue
            key = (None if local else hosts.get(step.machine or "", step.machine), step.port)
            yield from _second_port(step, group)
            unit, first = taken.setdefault(key, (group[0].name, step.name))
            if unit != group[0].name:
                message = f"port {step.port} is taken by step '{first}' on the same machine"
                yield Finding(("pipeline", step.name, "port"), message)


def _admin_ports(pipeline: Pipeline, hosts: dict[str, tuple[str, int]]) -> Iterator[Finding]:
    """Which of them a step has for its own."""
    machines = {step.name: step.machine if pipeline.deploy_mode == "remote" else None for step in pipeline.steps}
    places = {name: hosts.get(machine or "", machine) for name, machine in machines.items()}
    admin = {(places[unit], port): unit for unit, port in control.admin_ports(pipeline).items()}
    for step in pipeline.steps:
        unit = admin.get((places[step.name], step.port or 0))
        if unit:
            message = f"port {step.port} is the admin port of unit '{unit}' on the same machine"
            yield Finding(("pipeline", step.name, "port"), message, "give one of them another port")


def _second_port(step: Step, group: tuple[Step, ...]) -> Iterator[Finding]:
    first = next(other for other in group if other.port is not None)
    if first.port != step.port:
        message = f"'{first.name}' has port {first.port}, and both steps are one unit with one port"
        yield Finding(("pipeline", step.name, "port"), message, "keep one of them")


def replicas(pipeline: Pipeline) -> Iterator[Finding]:
    """Steps of one unit share its processes. An address that a unit listens on for a queue is for one process, and what
    a WebSocket sends goes to everybody who is connected."""
    listening = {queue.id for queue in pipeline.queues if queue.options.get("role") == "server"}
    sockets = {queue.id for queue in pipeline.queues if queue.connector == "websocket"}
    for group in graph.groups(pipeline):
        several = [step for step in group if step.replicas > 1]
        for step in several:
            here = ("pipeline", step.name, "replicas")
            if step.replicas != several[0].replicas:
                message = f"'{several[0].name}' has {several[0].replicas}, and both steps are one unit"
                yield Finding(here, message, "keep one of them")
        if several and pipeline.package_mode == "stream":
            yield from _not_shared(group, several[0], listening, sockets)


def _not_shared(group: tuple[Step, ...], first: Step, listening: set[str], sockets: set[str]) -> Iterator[Finding]:
    here = ("pipeline", first.name, "replicas")
    read = {name for step in group for name in step.inputs}
    names = read | {name for step in group for name in step.outputs}
    if names & listening:
        queue = min(names & listening)
        yield Finding(here, f"the unit listens for '{queue}' as a websocket server, which one process can do")
    elif read & sockets:
        message = f"the unit reads the websocket '{min(read & sockets)}', which sends every replica every message"
        yield Finding(here, message, "put a queue of mqtt or kafka between them, or take 'replicas' out")
