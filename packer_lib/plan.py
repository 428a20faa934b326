"""Pipeline → Plan: which steps run together as one process, where, and what joins them. Pure; imports `padl` only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from packer_lib.padl import control, graph
from packer_lib.padl.model import (
    NO_LIMITS,
    Admin,
    DeployMode,
    Machine,
    PackageMode,
    Pipeline,
    Queue,
    Resources,
    SecretRef,
    Step,
)


@dataclass(frozen=True, slots=True)
class Unit:
    """Steps that run as one process on one machine, in the order in which they run (`machine` None = this one).

    `name` is the name of its first step. `sources` and `sinks` are queue ids, `links` names of units called over HTTP.
    `idempotent`: all its steps may be called twice with one request, so that a call without an answer may be repeated.
    `replicas` are the processes of a stream, `workers` those of an API unit, `admin_port` where that is changed.
    """

    name: str
    steps: tuple[Step, ...]
    machine: str | None = None
    sources: tuple[str, ...] = ()
    sinks: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    port: int | None = None
    replicas: int = 1
    resources: Resources = NO_LIMITS
    idempotent: bool = False
    workers: int = 1
    admin_port: int | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything the later stages need from a PADL file; no secret in it.

    `units` are in deploy order: consumers before producers. A queue for dead letters is in `queues` and named by its
    step, not in a unit's `sinks`. `registry` is "none", the id of an Airflow connection, or None: as the installation
    says. `link_timeout` (seconds) and `link_retries` are for each call of a unit by another.
    """

    pipeline: str
    package_mode: PackageMode
    deploy_mode: DeployMode
    containerized: bool
    units: tuple[Unit, ...]
    queues: tuple[Queue, ...] = ()
    machines: tuple[Machine, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    file: str = ""
    registry: str | None = None
    link_timeout: float = 10.0
    link_retries: int = 2
    admin: Admin | None = None
    key: SecretRef | None = None

    def unit(self, name: str) -> Unit:
        """The unit of that name; `KeyError` when there is none."""
        return next((unit for unit in self.units if unit.name == name), None) or _missing(name)

    def queue(self, name: str) -> Queue:
        return next((queue for queue in self.queues if queue.id == name), None) or _missing(name)


def _missing(name: str) -> Any:
    raise KeyError(name)


def plan(pipeline: Pipeline) -> Plan:
    """The plan of a pipeline that has been checked (`padl.read`). The same pipeline gives the same plan."""
    groups = graph.groups(pipeline)
    ports = control.admin_ports(pipeline)
    units = [_unit(pipeline, group, groups, ports.get(group[0].name)) for group in groups]
    return Plan(
        pipeline=pipeline.id,
        package_mode=pipeline.package_mode,
        deploy_mode=pipeline.deploy_mode,
        containerized=pipeline.containerized,
        units=tuple(reversed(_in_flow_order(units))),
        queues=pipeline.queues,
        machines=pipeline.machines,
        env=tuple(pipeline.env.items()),
        file=pipeline.file,
        registry=pipeline.registry,
        link_timeout=pipeline.link.timeout,
        link_retries=pipeline.link.retries,
        admin=pipeline.admin,
        key=pipeline.key,
    )


def summary(plan: Plan) -> dict[str, Any]:
    """What `mlpacker plan --json` prints. `units` follow the data, `deploy_order` is the order of `plan.units`.

    `mode` is `<package-mode>-<deploy-mode>-<container or native>`, `shape` is `atomic` (one unit) or `distributed`.
    """
    return {
        "pipeline": plan.pipeline,
        "mode": f"{plan.package_mode}-{plan.deploy_mode}-{'container' if plan.containerized else 'native'}",
        "shape": "atomic" if len(plan.units) == 1 else "distributed",
        "units": [_summary(unit) for unit in reversed(plan.units)],
        "deploy_order": [unit.name for unit in plan.units],
    }


def to_dict(plan: Plan) -> dict[str, Any]:
    """`plan` as plain JSON values, for XCom and files."""
    import msgspec

    data: dict[str, Any] = msgspec.to_builtins(plan)
    return data


def from_dict(data: dict[str, Any]) -> Plan:
    """The plan that `to_dict` wrote; `msgspec.ValidationError` for anything else."""
    import msgspec

    return msgspec.convert(data, Plan)


def _unit(
    pipeline: Pipeline, group: tuple[Step, ...], groups: Sequence[tuple[Step, ...]], admin_port: int | None
) -> Unit:
    queues = {queue.id for queue in pipeline.queues}
    processes, api = max(step.replicas for step in group), pipeline.package_mode == "api"
    return Unit(
        name=group[0].name,
        steps=group,
        machine=group[0].machine if pipeline.deploy_mode == "remote" else None,
        sources=_unique(name for step in group for name in step.inputs if name in queues),
        sinks=_unique(name for step in group for name in step.outputs if name in queues),
        links=_unique(_called(group, groups)),
        port=next((step.port for step in group if step.port), None),
        replicas=1 if api else processes,
        resources=next((step.resources for step in group if step.resources != NO_LIMITS), NO_LIMITS),
        idempotent=all(step.idempotent for step in group),
        workers=processes if api else 1,
        admin_port=admin_port,
    )


def _called(group: tuple[Step, ...], groups: Sequence[tuple[Step, ...]]) -> Iterator[str]:
    """The units that hold the steps after this group's."""
    home = {step.name: other[0].name for other in groups for step in other}
    for step in group:
        yield from (home[name] for name in step.outputs if name in home and home[name] != group[0].name)


def _in_flow_order(units: Sequence[Unit]) -> list[Unit]:
    """Producers before consumers; the order of the file breaks ties."""
    after = {unit.name: [*unit.links, *_readers(unit, units)] for unit in units}
    named = {unit.name: unit for unit in units}
    return [named[name] for name in graph.ordered(named, after)]


def _readers(unit: Unit, units: Sequence[Unit]) -> list[str]:
    return [other.name for other in units if other is not unit and set(unit.sinks) & set(other.sources)]


def _summary(unit: Unit) -> dict[str, Any]:
    return {
        "name": unit.name,
        "steps": [step.name for step in unit.steps],
        "machine": unit.machine,
        "sources": list(unit.sources),
        "sinks": list(unit.sinks),
        "links": list(unit.links),
    }


def _unique(names: Iterator[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))
