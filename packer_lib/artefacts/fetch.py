"""Bring what a unit needs into the store: models from files or URLs, code from folders or git, schemas from files."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from packer_lib.artefacts import git, requirements, scan, schema, sniff, store, url
from packer_lib.artefacts.files import CODE, MODEL, file_digest, open_file, read_tree, resolve, tree_digest
from packer_lib.artefacts.model import Artefact, Unfit
from packer_lib.padl.model import Queue, Step
from packer_lib.plan import Plan, Unit
from packer_lib.runtime.model_files.kinds import UNSAFE
from packer_lib.settings import Settings


def fetch(plan: Plan, unit: Unit, settings: Settings) -> tuple[Artefact, ...]:
    """The artefact of every step of `unit`, in their order, then the schemas that are in files of their own, of the
    queues that it reads; each is in the store and matches what the PADL pins.

    `PolicyRefused` for what the settings forbid, `BuildFailed` for everything else; nothing half copied stays.
    """
    read = [plan.queue(name) for name in unit.sources]
    return (
        *(_fetch(plan, step, settings) for step in unit.steps),
        *(fetch_schema(plan, queue, settings) for queue in read if isinstance(queue.schema, str)),
    )


def _fetch(plan: Plan, step: Step, settings: Settings) -> Artefact:
    try:
        artefact = fetch_model(plan, step, settings) if step.kind == "model" else fetch_code(plan, step, settings)
    except Unfit as unfit:
        raise unfit.error(step.name) from None
    except OSError as error:
        raise Unfit(f"{error.filename or step.path}: {error}", "is the disk full?").error(step.name) from None
    return artefact


def fetch_schema(plan: Plan, queue: Queue, settings: Settings) -> Artefact:
    """The schema of `queue`, which names a file; errors as `fetch`."""
    try:
        return schema.fetch(queue, folder_of(plan), settings.model_roots, _store(settings))
    except Unfit as unfit:
        raise unfit.error(queue.id, "queue") from None


def fetch_model(plan: Plan, step: Step, settings: Settings, warn: Callable[[Unfit], object] = str) -> Artefact:
    """The model of `step`; `Unfit` when its digest or its first bytes are not what the PADL says, or when it has in it
    what must not be loaded. `warn` gets what could be safer."""
    path = _model_at_url(step, settings) if url.is_url(step.path) else _model_here(plan, step, settings)
    require_pin(step, settings)
    require_digest(step, path.name)
    sniff.check(path, step.serializer or "")
    if said := scan.scan(path, step, settings.strict, path.name):
        warn(said)
    return Artefact(step.name, "model", path, path.name, source=step.path)


def require_pin(step: Step, settings: Settings) -> None:
    """`Unfit` in strict mode when nothing pins a model that can run code while it loads, or change at its URL."""
    if not settings.strict or step.sha256:
        return
    if step.serializer in UNSAFE or url.is_url(step.path):
        why = "comes from a URL" if url.is_url(step.path) else f"can run code when it is loaded ({step.serializer})"
        hint = "add props.sha256, or use skops, keras or savedmodel"
        raise Unfit(f"strict mode: the model {why} and has no sha256", hint, key="serializer", refused=True)


def require_digest(step: Step, digest: str) -> None:
    if step.sha256 and step.sha256.lower() != digest:
        hint = "if you changed the model on purpose, put the new digest in the PADL"
        raise Unfit(f"the model's sha256 is {digest}, the PADL says {step.sha256}", hint, key="sha256")


def digest_of(path: Path) -> str:
    """sha256 of the model at `path`, a file or a folder."""
    if path.is_dir():
        return tree_digest(read_tree(path, MODEL))
    with open_file(path) as stream:
        return file_digest(stream)[0]


def _model_here(plan: Plan, step: Step, settings: Settings) -> Path:
    path = resolve(step.path, folder_of(plan), settings.model_roots)
    kept = _store(settings) / digest_of(path)
    if kept.exists():
        return kept
    if path.is_dir():
        return store.put_tree(_store(settings), path, MODEL)
    with open_file(path) as stream:
        return store.put_file(_store(settings), stream, MODEL.size)


def _model_at_url(step: Step, settings: Settings) -> Path:
    kept = _store(settings) / (step.sha256 or "-").lower()
    if kept.exists():
        return kept
    with url.opened(step.path, settings.url_schemes, settings.private_urls) as body:
        return store.put_file(_store(settings), body, MODEL.size)


def fetch_code(plan: Plan, step: Step, settings: Settings) -> Artefact:
    """The code of `step`; `Unfit` when its entry point is not there or its requirements.txt has a refused line."""
    if git.is_url(step.path):
        artefact = _clone(step, settings)
    else:
        folder = resolve(step.path, folder_of(plan), settings.model_roots)
        path = store.put_tree(_store(settings), require_folder(folder), CODE)
        artefact = Artefact(step.name, "code", path, path.name, source=step.path)
    require_entrypoint(artefact.path, step)
    requirements.read(artefact.path, step.path)
    return artefact


def require_folder(path: Path) -> Path:
    if not path.is_dir():
        raise Unfit(f"{path} is a file", "path of a code step is a folder or a git URL; the file in it is `entrypoint`")
    return path


def require_entrypoint(folder: Path, step: Step) -> None:
    """`Unfit` unless `folder` has the entry point of `step` inside it."""
    entrypoint = folder / step.entrypoint
    if not entrypoint.resolve().is_relative_to(folder.resolve()):
        raise Unfit(f"{step.entrypoint!r} leads out of the code folder", key="entrypoint", refused=True)
    if not entrypoint.is_file():
        there = ", ".join(sorted(path.name for path in folder.glob("*.py"))[:5]) or "no .py file"
        hint = "set props.entrypoint to the file that has the function"
        raise Unfit(f"{step.path} has no {step.entrypoint!r} (there is {there})", hint, key="entrypoint")


def _clone(step: Step, settings: Settings) -> Artefact:
    """The code at the commit that the ref is now. A commit that was fetched before is not fetched again."""
    wanted = git.source(step.path, step.ref, settings.git_protocols)
    commit = git.resolve(wanted, settings.git_protocols)
    known = settings.home / "commits" / hashlib.sha256(f"{commit} {wanted.url}".encode()).hexdigest()
    digest = known.read_text() if known.exists() else ""
    if not digest or not (_store(settings) / digest).is_dir():
        with store.scratch(_store(settings)) as folder:
            git.checkout(wanted.url, commit, settings.git_protocols, folder)
            digest = store.put_tree(_store(settings), folder, CODE).name
        store.write_text(known, digest)
    return Artefact(step.name, "code", _store(settings) / digest, digest, commit, wanted.url)


def _store(settings: Settings) -> Path:
    return settings.home.resolve() / "store"


def folder_of(plan: Plan) -> Path:
    """Where relative paths of the PADL begin."""
    return Path(plan.file).absolute().parent
