"""The machines of a pipeline, each reached at its first use: what a plan names, and what it ran on before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Protocol

from packer_lib import kept
from packer_lib.errors import MLPackerError
from packer_lib.hosts import Host
from packer_lib.hosts.local import LocalHost
from packer_lib.padl.model import Machine
from packer_lib.plan import Plan
from packer_lib.settings import Settings


class Machines(Protocol):
    """`fleet["m1"]` is a machine by its id in the PADL file, `fleet[None]` this one. `KeyError` for one it lacks."""

    def __getitem__(self, machine: str | None, /) -> Host: ...


class Joined:
    """`first`, and what it lacks from where `former` pipelines were; these are connected when they are asked for."""

    def __init__(self, first: Machines, former: Mapping[str, kept.Place], settings: Settings, stack: ExitStack) -> None:
        self._first = first
        self._former = former
        self._settings = settings
        self._stack = stack
        self._others: dict[str | None, Machines] = {}

    def __getitem__(self, machine: str | None) -> Host:
        with suppress(KeyError):
            return self._first[machine]
        if machine not in self._others:
            place = self._former[machine or ""]
            self._others[machine] = self._stack.enter_context(opened([place.machine], self._settings, place.text))
        return self._others[machine][machine]


@contextmanager
def opened(machines: Sequence[Machine], settings: Settings, text: str | None) -> Iterator[Machines]:
    """Connections to `machines`, closed afterwards; `text` is the PADL file's, for secrets that stand in it."""
    if not machines:
        yield {None: LocalHost(settings)}
        return
    from packer_lib.hosts.fleet import Fleet

    with Fleet(machines, settings, text=text) as fleet:
        yield fleet


@contextmanager
def of_plan(plan: Plan, settings: Settings, text: str | None, fleet: Machines | None) -> Iterator[Machines]:
    """`fleet` or one of our own, which also has the machines that the pipeline ran on before."""
    with ExitStack() as stack:
        own = fleet or stack.enter_context(opened(plan.machines, settings, kept.source(plan, text, settings)))
        yield Joined(own, _former([plan.pipeline], settings), settings, stack)


@contextmanager
def of_pipelines(pipelines: Sequence[str], settings: Settings, fleet: Machines | None = None) -> Iterator[Machines]:
    """All machines that these were deployed to from here. Two that call different machines by one id share the last."""
    with ExitStack() as stack:
        yield Joined(fleet or {None: LocalHost(settings)}, _former(pipelines, settings), settings, stack)


def _former(pipelines: Sequence[str], settings: Settings) -> dict[str, kept.Place]:
    return {place.machine.id: place for name in pipelines for place in kept.read(name, settings).machines}


def reached(fleet: Machines, machine: str | None) -> Host | MLPackerError:
    """The machine, or why it cannot be reached."""
    try:
        host = fleet[machine]
        _ = host.home
    except MLPackerError as error:
        return error
    return host


def ordered(machines: Sequence[str | None] | set[str | None]) -> list[str | None]:
    """This machine first, then by name: everybody takes locks in the same order."""
    return sorted(set(machines), key=lambda machine: machine or "")
