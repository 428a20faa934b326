"""The text files of a bundle: entry point and Dockerfile from templates, `unit.json` from values. Pure.

Nothing of a PADL file goes into a template: these texts are the same for every unit of the same package mode with the
same kinds of steps. All that a PADL says is data in `unit.json`.
"""

from __future__ import annotations

import json
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
# what installs the requirements inside images: uv's wheels for x86_64 and aarch64 (glibc, musl), as in our own uv.lock
UV = {
    "version": "0.13.8",
    "hashes": (
        "sha256:0b3e8b1a4f5e405e31e2ff33de8af4744831e9f7338539671efbd8c3c94e791d",
        "sha256:5337c30bb893b4f9ce0ceb921ba2da0d13f649da644f40ad3bef84083bef0203",
        "sha256:e18a57b8b352eb7c8feb317b9f6f533c8f0ad9673fd6cf34bbe3cf1a9f6a8984",
        "sha256:29451c60f5e8b07403e0a175d5229efc36b0289b34143ff4aaa499a5dd52553a",
    ),
}
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
        "Dockerfile": dockerfile.render(entry=entry, code="code" in kinds, models="model" in kinds, uv=UV),
    }


def manifest(plan: Plan, unit: Unit, artefacts: Sequence[Artefact]) -> Manifest:
    """What `unit` is told. Ports, addresses, secrets and `env` are not in it: they come with the environment."""
    by_step = {artefact.step: artefact for artefact in artefacts}
    return Manifest(
        pipeline=plan.pipeline,
        unit=unit.name,
        mode=plan.package_mode,
        steps=tuple(_step(step, by_step[step.name]) for step in unit.steps),
        queues={name: _queue(plan.queue(name), by_step.get(name), name in unit.sources) for name in queues(unit)},
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
        delivery=step.delivery,
        test=asdict(step.test) if step.test else None,
        versions=step.versions,
    )


def _queue(queue: Queue, schema: Artefact | None, read: bool) -> QueueSpec:
    """With the schema that messages are held to, itself, where the unit reads the queue."""
    found = queue.schema if read else None
    if isinstance(found, str):
        if schema is None:
            raise BuildFailed(f"the schema of queue {queue.id!r} was not fetched", f"it is in {found!r}")
        found = json.loads(schema.path.read_bytes())
    return QueueSpec(queue.id, queue.connector, queue.server, queue.port, queue.topic, dict(queue.options), found)
