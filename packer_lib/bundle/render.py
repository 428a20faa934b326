"""The text files of a bundle: entry point and Dockerfile from templates, `unit.json` from values. Pure.

Nothing of a PADL file goes into a template: these texts are the same for every unit of the same package mode with the
same kinds of steps. All that a PADL says is data in `unit.json`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from packer_lib.artefacts import Artefact
from packer_lib.bundle.select import queues
from packer_lib.errors import BuildFailed
from packer_lib.padl.model import PackageMode, Queue, Step
from packer_lib.plan import Plan, Unit
from packer_lib.runtime.manifest import Manifest, QueueSpec, StepSpec

# what the schema lets through, looked at once more: a plan may have travelled
FOLDER_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
ENTRY: dict[PackageMode, str] = {"stream": "main.py", "api": "service.py"}
TEMPLATES = Environment(  # noqa: S701 - the templates make Python and Dockerfiles, no HTML
    loader=FileSystemLoader(Path(__file__).parent.parent / "templates"),
    undefined=StrictUndefined,
    keep_trailing_newline=True,
    trim_blocks=True,
)


def texts(mode: PackageMode, kinds: frozenset[str]) -> dict[str, str]:
    """Path and text of the generated files of a bundle; the `kinds` of its steps are "code", "model" or both."""
    entry = ENTRY[mode]
    dockerfile = TEMPLATES.get_template("Dockerfile.j2")
    return {
        entry: TEMPLATES.get_template(f"{entry}.j2").render(),
        "Dockerfile": dockerfile.render(entry=entry, code="code" in kinds, models="model" in kinds),
    }


def manifest(plan: Plan, unit: Unit, artefacts: Sequence[Artefact]) -> Manifest:
    """What `unit` is told. Ports, addresses, secrets and `env` are not in it: they come with the environment."""
    by_step = {artefact.step: artefact for artefact in artefacts}
    return Manifest(
        pipeline=plan.pipeline,
        unit=unit.name,
        mode=plan.package_mode,
        steps=tuple(_step(step, by_step[step.name]) for step in unit.steps),
        queues={name: _queue(plan.queue(name)) for name in queues(unit)},
        links=unit.links,
    )


def place(step: Step, artefact: Artefact) -> str:
    """Where the artefact of `step` is in the bundle. A model's file name is ours: what it was called says nothing."""
    if not FOLDER_NAME.fullmatch(step.name):
        raise BuildFailed(
            f"step {step.name!r} cannot be a folder in a bundle", "the PADL schema says what a name may be"
        )
    if artefact.kind == "code":
        return f"code/{step.name}"
    return f"models/{step.name}/model.{step.serializer}" if artefact.path.is_file() else f"models/{step.name}/model"


def _step(step: Step, artefact: Artefact) -> StepSpec:
    return StepSpec(
        name=step.name,
        kind=step.kind,
        path=place(step, artefact),
        inputs=step.inputs,
        outputs=step.outputs,
        framework=step.framework or "",
        serializer=step.serializer or "",
        sha256=artefact.digest if artefact.kind == "model" else "",
        input_format=step.input_format,
        output_format=step.output_format,
        entrypoint=step.entrypoint,
        function=step.function,
        max_batch=step.batch.max_size,
        max_wait_ms=step.batch.max_wait_ms,
        on_error=step.on_error,
        dead_letter=step.dead_letter or "",
        test=asdict(step.test) if step.test else None,
    )


def _queue(queue: Queue) -> QueueSpec:
    return QueueSpec(queue.id, queue.connector, queue.server, queue.port, queue.topic, dict(queue.options))
