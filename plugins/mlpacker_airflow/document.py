"""The DAG's documentation: what its PADL file says of itself, the plan as a graph, the digest. Imports no Airflow."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence

from packer_lib.errors import printable
from packer_lib.padl.model import Pipeline
from packer_lib.plan import Plan, Unit


def markdown(pipeline: Pipeline, plan: Plan, text: str, warnings: Sequence[str] = ()) -> str:
    """Markdown in which nothing that comes from the file is markup."""
    where = "in containers" if plan.containerized else "as native processes"
    digest = hashlib.sha256(text.encode()).hexdigest()
    parts = [
        escape(pipeline.description),
        f"package-mode **{plan.package_mode}**, deploy-mode **{plan.deploy_mode}**, {where}:",
        points(_line(plan, unit) for unit in reversed(plan.units)),
        points(f"⚠ {warning}" for warning in warnings),
        points([f"PADL {pipeline.file}", f"sha256 {digest}"]),
    ]
    return "\n\n".join(part for part in parts if part)


def points(lines: Iterable[str]) -> str:
    """A list; Airflow's page draws no line breaks in a block of code."""
    return "\n".join(f"- {escape(line)}" for line in lines)


def _line(plan: Plan, unit: Unit) -> str:
    """Where the unit's values come from, its steps, where they go."""
    steps = f"[ {' → '.join(step.name for step in unit.steps)} ]"
    machine = [f"on {unit.machine}"] if unit.machine else []
    sources = [_queue(plan, name) for name in unit.sources] or ["POST /predict"]
    sinks = [_queue(plan, name) for name in unit.sinks] + [f"{link} (HTTP)" for link in unit.links]
    arrow = [f"─▶ {', '.join(sinks)}"] if sinks else []
    return " ".join([", ".join(sources), "─▶", steps, *machine, *arrow])


def _queue(plan: Plan, name: str) -> str:
    queue = plan.queue(name)
    return f"{name} ({queue.connector} {queue.topic})"


def escape(text: str) -> str:
    """`text` as one paragraph of plain words: every character that could be markup is escaped (CommonMark 2.4)."""
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", " ".join(printable(text).split()))
