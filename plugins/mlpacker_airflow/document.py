"""The DAG's page of documentation: what the PADL file says of itself, its plan as a graph, its digest. Imports no Airflow."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence

from packer_lib.errors import printable
from packer_lib.padl.model import Pipeline
from packer_lib.plan import Plan, Unit


def markdown(pipeline: Pipeline, plan: Plan, text: str, warnings: Sequence[str] = ()) -> str:
    """Markdown in which nothing that comes from the file is markup."""
    where = "containers" if plan.containerized else "native processes"
    parts = [
        escape(pipeline.description),
        f"**{plan.package_mode}**, **{plan.deploy_mode}**, {where}",
        code("\n".join(_graph(plan))),
        *(f"- ⚠ {escape(warning)}" for warning in warnings),
        f"PADL {escape(pipeline.version)}, `{escape(pipeline.file)}`, sha256 `{hashlib.sha256(text.encode()).hexdigest()}`",
    ]
    return "\n\n".join(part for part in parts if part)


def _graph(plan: Plan) -> Iterator[str]:
    """A line for each unit: where its values come from, its steps, where they go."""
    for unit in reversed(plan.units):
        steps = " → ".join(step.name for step in unit.steps)
        machine = f" on {unit.machine}" if unit.machine else ""
        yield f"{_ends(plan, unit.sources, unit)} ─▶ [ {steps} ]{machine} ─▶ {_ends(plan, unit.sinks, unit, unit.links)}"


def _ends(plan: Plan, queues: Sequence[str], unit: Unit, links: Sequence[str] = ()) -> str:
    known = {queue.id: queue for queue in plan.queues}
    names = [f"{name} ({known[name].connector} {known[name].topic})" for name in queues if name in known]
    return ", ".join([*names, *links]) or ("POST /predict" if not queues and not links else ", ".join(queues))


def code(text: str) -> str:
    """`text` as it is: an indented block: it has no end that a text could forge."""
    return "\n".join(f"    {printable(line)}" for line in text.splitlines())


def escape(text: str) -> str:
    """`text` as one paragraph of plain words: every character that could be markup is escaped (CommonMark 2.4)."""
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", " ".join(printable(text).split()))
