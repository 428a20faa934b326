"""Pipeline → Plan: which steps run together as one process, where, and what joins them. Pure; imports `padl` only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from packer_lib.padl.model import DeployMode, Machine, PackageMode, Queue, Step


@dataclass(frozen=True, slots=True)
class Unit:
    """Steps that run as one process on one machine, in the order in which they run (`machine` None = this one).

    `name` is the name of its first step. `sources` and `sinks` are queue ids, `links` names of units called over HTTP.
    """

    name: str
    steps: tuple[Step, ...]
    machine: str | None = None
    sources: tuple[str, ...] = ()
    sinks: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    port: int | None = None
    replicas: int = 1


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything the later stages need from a PADL file; no secret in it. `units` are in deploy order: consumers first."""

    pipeline: str
    package_mode: PackageMode
    deploy_mode: DeployMode
    containerized: bool
    units: tuple[Unit, ...]
    queues: tuple[Queue, ...] = ()
    machines: tuple[Machine, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    file: str = ""

    def unit(self, name: str) -> Unit:
        """The unit of that name; `KeyError` when there is none."""
        return next((unit for unit in self.units if unit.name == name), None) or _missing(name)

    def queue(self, name: str) -> Queue:
        return next((queue for queue in self.queues if queue.id == name), None) or _missing(name)


def _missing(name: str) -> Any:
    raise KeyError(name)
