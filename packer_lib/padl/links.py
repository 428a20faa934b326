"""Rules about what steps read and write: names, both ends of a link, loops, the one line of an API pipeline. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from typing import Literal

from packer_lib.padl import graph
from packer_lib.padl.document import Finding, Pointer
from packer_lib.padl.model import Pipeline, Queue, Step

_LONG = 12

Side = Literal["input", "output"]


def identity(queue: Queue) -> object:
    """Equal for queues that are the same topic. A websocket's is its own: both ends of one may be in one pipeline."""
    if queue.connector == "websocket":
        return queue.id
    return queue.connector, queue.server, queue.port, queue.topic


def place(step: Step, side: Side, name: str) -> Pointer:
    """Where `step` names `name` as its input or output."""
    given = step.inputs if side == "input" else step.outputs
    index = (str(given.index(name)),) if len(given) > 1 else ()
    return ("pipeline", step.name, "queues", side, *index)


def suggestion(name: str, known: Sequence[str], section: str, described: bool = True) -> str:
    """A hint for a name that is not there; `section` is where it would be described, if the file had it."""
    if near := get_close_matches(name, known, n=1):
        return f"did you mean '{near[0]}'?"
    if not described or not known:
        return f'the file has no "{section}" section'
    return f"there is {', '.join(known)}"


def names(pipeline: Pipeline) -> Iterator[Finding]:
    """A name is a queue or a step, never both."""
    steps = {step.name for step in pipeline.steps}
    for queue in pipeline.queues:
        if queue.id in steps:
            message = f"'{queue.id}' is the name of a step too, so that a reference to it has two meanings"
            yield Finding(("queues", queue.id), message, "rename one of them", on="key")


def references(pipeline: Pipeline) -> Iterator[Finding]:
    """What a step names is there, and the other end of a link agrees."""
    queues = [queue.id for queue in pipeline.queues]
    steps = {step.name: step for step in pipeline.steps}
    for step, side, name in _references(pipeline):
        if name in steps and name not in queues:
            yield from _link(step, side, steps[name], {*queues, *steps})
        elif name not in queues:
            others = [*queues, *(other for other in steps if other != step.name)]
            hint = suggestion(name, others, "queues", bool(queues))
            yield Finding(place(step, side, name), f"no queue or step is called '{name}'", hint)
    for step in pipeline.steps:
        if step.dead_letter and step.dead_letter not in queues:
            message, hint = f"no queue is called '{step.dead_letter}'", suggestion(step.dead_letter, queues, "queues")
            yield Finding(("pipeline", step.name, "dead_letter"), message, hint)


def _references(pipeline: Pipeline) -> Iterator[tuple[Step, Side, str]]:
    for step in pipeline.steps:
        for name in step.inputs:
            yield step, "input", name
        for name in step.outputs:
            yield step, "output", name


def _link(step: Step, side: Side, other: Step, known: set[str]) -> Iterator[Finding]:
    here = place(step, side, other.name)
    if other is step:
        yield Finding(here, "a step cannot be its own neighbour")
        return
    back, given = ("output", other.outputs) if side == "input" else ("input", other.inputs)
    if step.name not in given and known.issuperset(given):
        message = f"'{other.name}' does not name '{step.name}' as its {back}; a link is named at both ends"
        yield Finding(here, message, f"set pipeline.{other.name}.queues.{back} to '{step.name}'")


def ends(pipeline: Pipeline) -> Iterator[Finding]:
    """Every step of a stream pipeline reads and writes something."""
    if pipeline.package_mode != "stream":
        return
    for step in pipeline.steps:
        sides: tuple[tuple[Side, tuple[str, ...], str], ...] = (
            ("input", step.inputs, "before"),
            ("output", step.outputs, "after"),
        )
        for side, given, where in sides:
            if not given:
                message = f"missing 'queues.{side}': a step of a stream pipeline reads and writes"
                yield Finding(("pipeline", step.name), message, f"the id of a queue, or the step {where} it", on="key")


def api(pipeline: Pipeline) -> Iterator[Finding]:
    """An API pipeline has no queues, and its steps are one line."""
    if pipeline.package_mode != "api":
        return
    queues = {queue.id for queue in pipeline.queues}
    for step, side, name in _references(pipeline):
        if name in queues:
            message = f"'{name}' is a queue, and an api pipeline is called over REST"
            yield Finding(place(step, side, name), message, 'name a step, or set "package-mode": "stream"')
    if len(pipeline.steps) > 1:
        yield from _line(pipeline)


def _line(pipeline: Pipeline) -> Iterator[Finding]:
    if not any(step.inputs or step.outputs for step in pipeline.steps):
        message = "an api pipeline of several steps needs links: their order is never guessed from the file"
        hint = "give each step queues.input and queues.output with its neighbours"
        yield Finding(("pipeline",), message, hint, on="key")
        return
    yield from _forks(pipeline)
    firsts = [step for step in pipeline.steps if not step.inputs]
    for step in firsts[1:]:
        message = f"nothing leads here: the pipeline begins with '{firsts[0].name}'"
        yield Finding(("pipeline", step.name), message, "set queues.input to the step before it", on="key")


def _forks(pipeline: Pipeline) -> Iterator[Finding]:
    for step in pipeline.steps:
        sides: tuple[tuple[Side, tuple[str, ...]], ...] = (("input", step.inputs), ("output", step.outputs))
        for side, given in sides:
            if len(given) > 1:
                message = f"an api pipeline is one line of steps, so that a call has one answer; here are {len(given)}"
                yield Finding(("pipeline", step.name, "queues", side), message, "name one step")


def circles(pipeline: Pipeline) -> Iterator[Finding]:
    """Nothing leads back to itself, neither by links and queues nor inside one unit."""
    steps = {step.name: step for step in pipeline.steps}
    told: set[str] = set()
    for way in graph.loops(_flow(pipeline)):
        first = next(index for index, name in enumerate(way) if name in steps)
        turned = [*way[first:-1], *way[:first]]
        told.update(turned)
        message = f"a loop: {_shown([*turned, turned[0]])}"
        yield Finding(("pipeline", turned[0], "queues", "output"), message, "messages would go round for ever")
    for group in graph.groups(pipeline):
        yield from _own_queue(pipeline, group, told)


def _shown(way: list[str]) -> str:
    """The way with arrows, its middle left out when it is long."""
    return " → ".join(way if len(way) <= _LONG else [*way[: _LONG - 2], "…", way[-2], way[-1]])


def _flow(pipeline: Pipeline) -> dict[str, list[str]]:
    """Steps and queues, each with what comes after it. Queues of one topic are one."""
    one = _topics(pipeline)
    flow: dict[str, list[str]] = {name: [] for name in (*(step.name for step in pipeline.steps), *one.values())}
    for name, following in graph.links(pipeline).items():
        flow[name].extend(other for other in following if other != name)
    for step in pipeline.steps:
        for name in step.inputs:
            if name in one:
                flow[one[name]].append(step.name)
        flow[step.name].extend(one[name] for name in (*step.outputs, step.dead_letter or "") if name in one)
    return flow


def _topics(pipeline: Pipeline) -> dict[str, str]:
    """Each queue's id → the id of the first queue of the same topic. A queue that is called like a step is left out."""
    first: dict[object, str] = {}
    steps = {step.name for step in pipeline.steps}
    return {queue.id: first.setdefault(identity(queue), queue.id) for queue in pipeline.queues if queue.id not in steps}


def _own_queue(pipeline: Pipeline, group: tuple[Step, ...], told: set[str]) -> Iterator[Finding]:
    one = _topics(pipeline)
    read = {one[name] for step in group for name in step.inputs if name in one}
    for step in group:
        for name in step.outputs:
            if one.get(name) in read and step.name not in told:
                message = f"the unit '{group[0].name}' reads '{name}' and writes it"
                yield Finding(place(step, "output", name), message, "steps of one unit are linked by their names")


def unused(pipeline: Pipeline) -> Iterator[Finding]:
    """A queue or machine that no step names is a warning: often a slip. After an unknown name it says nothing new."""
    if any(references(pipeline)):
        return
    named = {name for _, _, name in _references(pipeline)} | {step.dead_letter for step in pipeline.steps}
    for queue in pipeline.queues:
        if queue.id not in named:
            yield Finding(("queues", queue.id), f"no step uses the queue '{queue.id}'", level="warning", on="key")
    used = {step.machine for step in pipeline.steps}
    for machine in pipeline.machines:
        if machine.id not in used:
            yield Finding(("infra", machine.id), f"no step uses the machine '{machine.id}'", level="warning", on="key")
