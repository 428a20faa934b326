"""Whether what a plan names is there, allowed and what it says it is. Reads files only: no network, git or loading."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from packer_lib.artefacts import fetch, git, requirements, scan, schema, sniff, url
from packer_lib.artefacts.files import CODE, read_tree, resolve
from packer_lib.artefacts.model import REFUSED, WARNING, Unfit
from packer_lib.errors import PadlInvalid, PolicyRefused, Problem
from packer_lib.padl.load import locate
from packer_lib.padl.model import Queue, Step
from packer_lib.plan import Plan
from packer_lib.settings import Settings


def check(plan: Plan, settings: Settings) -> list[Problem]:
    """Everything about the artefacts that is wrong, sorted by place.

    `level` is "refused" for what this installation forbids, "warning" for what could be safer and "error" for the rest;
    `require` raises accordingly. A fault inside a file of the code (requirements.txt) has that file's name and line.
    """
    steps = [step for unit in plan.units for step in unit.steps]
    found = [_problem(plan, step, unfit) for step in steps for unfit in _check(plan, step, settings)]
    return sorted([*found, *(problem for queue in plan.queues for problem in _check_schema(plan, queue, settings))])


def require(plan: Plan, settings: Settings) -> list[Problem]:
    """The warnings, when every artefact can be used. `PadlInvalid` (exit code 3) with every problem at once, or
    `PolicyRefused` (4) when all are refusals: then the file is right, and the settings are what stands in the way."""
    found = check(plan, settings)
    problems = [problem for problem in found if problem.level != WARNING]
    if any(problem.level != REFUSED for problem in problems):
        raise PadlInvalid(problems)
    if problems:
        raise PolicyRefused("\n".join(str(problem) for problem in problems))
    return found


def _check(plan: Plan, step: Step, settings: Settings) -> list[Unfit]:
    found: list[Unfit] = []
    (_check_model if step.kind == "model" else _check_code)(plan, step, settings, found)
    return found


@contextmanager
def _into(found: list[Unfit]) -> Iterator[None]:
    """What is unfit in the block goes to `found`, and the block ends there."""
    try:
        yield
    except Unfit as unfit:
        found.append(unfit)


def _check_model(plan: Plan, step: Step, settings: Settings, found: list[Unfit]) -> None:
    with _into(found):
        fetch.require_pin(step, settings)
    with _into(found):
        if url.is_url(step.path):
            url.parse(step.path, settings.url_schemes)
            found += [said] if (said := scan.warning(step, settings.strict)) else []
            return
        path = resolve(step.path, fetch.folder_of(plan), settings.model_roots)
        with _into(found):
            sniff.check(path, step.serializer or "")
            said = scan.scan(path, step, settings.strict, fetch.digest_of(path))
            found += [said] if said else []
        if step.sha256:
            fetch.require_digest(step, fetch.digest_of(path))


def _check_code(plan: Plan, step: Step, settings: Settings, found: list[Unfit]) -> None:
    with _into(found):
        if git.is_url(step.path):
            git.source(step.path, step.ref, settings.git_protocols)
            return
        folder = fetch.require_folder(resolve(step.path, fetch.folder_of(plan), settings.model_roots))
        read_tree(folder, CODE)
        with _into(found):
            fetch.require_entrypoint(folder, step)
        found += requirements.scan(folder, step.path)[1]


def _check_schema(plan: Plan, queue: Queue, settings: Settings) -> Iterator[Problem]:
    if not isinstance(queue.schema, str):
        return
    try:
        schema.read(queue.schema, fetch.folder_of(plan), settings.model_roots)
    except Unfit as unfit:
        pointer = ("queues", queue.id, "schema")
        if unfit.file:
            yield Problem(
                unfit.file, unfit.line, 1, "", f"queue {queue.id!r}: {unfit.message}", unfit.hint, unfit.level
            )
        else:
            place = locate(Path(plan.file), pointer)
            yield Problem(plan.file, *place, ".".join(pointer), unfit.message, unfit.hint, unfit.level)


def _problem(plan: Plan, step: Step, unfit: Unfit) -> Problem:
    if unfit.file:
        return Problem(unfit.file, unfit.line, 1, "", f"step {step.name!r}: {unfit.message}", unfit.hint, unfit.level)
    pointer = ("pipeline", step.name, "props", unfit.key)
    return Problem(
        plan.file, *locate(Path(plan.file), pointer), ".".join(pointer), unfit.message, unfit.hint, unfit.level
    )
