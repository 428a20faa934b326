"""What `validate` finds, and how plans and times look to a person."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from packer_lib.errors import PadlInvalid, Problem, printable
from packer_lib.padl.model import Pipeline
from packer_lib.plan import Plan, Unit


def validate(files: Sequence[Path], artefacts: bool) -> dict[str, list[Problem]]:
    """Every problem by PADL file, in the order of the files; warnings too. With `artefacts`, of models and code."""
    from packer_lib import padl

    found: dict[str, list[Problem]] = {str(file): [] for file in files}
    files = [Path(file) for file in found]  # one that is named twice is read once
    pipelines: list[Pipeline] = []
    for file in files:
        try:
            pipelines.append(padl.read(file))
        except PadlInvalid as invalid:
            found[str(file)] += invalid.problems
    for pipeline in pipelines:
        found[pipeline.file] += pipeline.warnings
        found[pipeline.file] += _artefacts(pipeline) if artefacts else []
    for problem in padl.check_set(pipelines):
        found[problem.file].append(problem)
    return found


def _artefacts(pipeline: Pipeline) -> list[Problem]:
    from packer_lib import settings
    from packer_lib.artefacts import check
    from packer_lib.plan import plan

    return check(plan(pipeline), settings.read())


def picture(plan: Plan) -> str:
    """The plan as a small tree: machine, unit, what goes in, the steps in their order, what goes out."""
    form = "containers" if plan.containerized else "native processes"
    lines = [f"{plan.pipeline}  ({plan.package_mode}, {plan.deploy_mode}, {form})"]
    units_in_flow = plan.units[::-1]
    machines = dict.fromkeys(unit.machine for unit in units_in_flow)
    for index, machine in enumerate(machines):
        units = [unit for unit in units_in_flow if unit.machine == machine]
        lines += _branch(_machine(plan, machine), _units(plan, units), index == len(machines) - 1)
    return printable("\n".join(lines))


def _machine(plan: Plan, name: str | None) -> str:
    if name is None:
        return "this machine"
    found = next((machine for machine in plan.machines if machine.id == name), None)
    return f"{name} ({found.hostname})" if found else name


def _units(plan: Plan, units: Sequence[Unit]) -> list[str]:
    lines: list[str] = []
    for index, unit in enumerate(units):
        details = [*_queues(plan, "in ", unit.sources), _steps(unit), *_queues(plan, "out", unit.sinks)]
        details += [f"calls {name}" for name in unit.links]
        lines += _branch(_title(unit), details, index == len(units) - 1)
    return lines


def _title(unit: Unit) -> str:
    port = f" on port {unit.port}" if unit.port else ""
    return f"{unit.name}{port}{f' × {unit.replicas}' if unit.replicas > 1 else ''}"


def _steps(unit: Unit) -> str:
    return " → ".join(f"{step.name} [{step.framework or step.kind}]" for step in unit.steps)


def _queues(plan: Plan, word: str, ids: Sequence[str]) -> list[str]:
    queues = [plan.queue(name) for name in ids]
    return [f"{word} {queue.id}: {queue.connector}://{queue.server}:{queue.port}/{queue.topic}" for queue in queues]


def _branch(title: str, below: Sequence[str], last: bool) -> list[str]:
    head, rest = ("└── ", "    ") if last else ("├── ", "│   ")
    return [head + title, *(rest + line for line in below)]


def ago(moment: str, now: datetime) -> str:
    """How long before `now` an ISO time was, in its largest unit: `3 min`; "" when there is none."""
    if not moment:
        return ""
    seconds = max(0, int((now - datetime.fromisoformat(moment)).total_seconds()))
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
