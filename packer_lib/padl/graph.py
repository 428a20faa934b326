"""How the steps of a pipeline hang together: links, groups that run as one process, and their order. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from packer_lib.padl.model import Pipeline, Step

Graph = Mapping[str, Sequence[str]]


def links(pipeline: Pipeline) -> dict[str, tuple[str, ...]]:
    """Each step's next steps: the links that both ends name, in the order in which they are written."""
    steps = {step.name: step for step in pipeline.steps}
    return {
        step.name: tuple(name for name in step.outputs if name in steps and step.name in steps[name].inputs)
        for step in pipeline.steps
    }


def groups(pipeline: Pipeline) -> tuple[tuple[Step, ...], ...]:
    """The steps of each unit: connected by links on one machine.

    Groups are in the order of the file, their steps in the order in which they run.
    """
    steps = {step.name: step for step in pipeline.steps}
    after = links(pipeline)
    group = {name: name for name in steps}
    for name, following in after.items():
        for other in following:
            if steps[name].machine == steps[other].machine:
                _merge(group, name, other)
    order = ordered(steps, after)
    heads = dict.fromkeys(group[name] for name in steps)
    return tuple(tuple(steps[name] for name in order if group[name] == head) for head in heads)


def _merge(group: dict[str, str], one: str, other: str) -> None:
    kept, gone = group[one], group[other]
    for name, head in group.items():
        if head == gone:
            group[name] = kept


def ordered(names: Iterable[str], after: Graph) -> list[str]:
    """`names` so that each comes before those after it; the order given breaks ties, and decides inside a loop."""
    waiting = list(names)
    result: list[str] = []
    while waiting:
        blocked = {following for name in waiting for following in after.get(name, ())}
        ready = next((name for name in waiting if name not in blocked), waiting[0])
        waiting.remove(ready)
        result.append(ready)
    return result


def loops(after: Graph) -> Iterator[list[str]]:
    """One way round for each set of nodes that lead back to themselves, beginning with the first of them."""
    reached = {name: _reached(name, after) for name in after}
    told: set[str] = set()
    for name in after:
        if name in reached[name] and name not in told:
            told |= {other for other in reached[name] if name in reached.get(other, ())}
            yield _way_back(name, after)


def _reached(start: str, after: Graph) -> set[str]:
    found: set[str] = set()
    waiting = list(after.get(start, ()))
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting.extend(after.get(name, ()))
    return found


def _way_back(start: str, after: Graph) -> list[str]:
    """The shortest way from `start` to itself, both ends included."""
    ways = [[start]]
    seen: set[str] = set()
    while ways:
        way = ways.pop(0)
        for name in after.get(way[-1], ()):
            if name == start:
                return [*way, name]
            if name not in seen:
                seen.add(name)
                ways.append([*way, name])
    raise ValueError(f"{start} is in no loop")
