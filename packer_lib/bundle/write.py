"""A bundle on disk: the same input gives the same bytes and so the same digest, whatever the machine, umask or hour."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from packer_lib import settings as installation
from packer_lib.artefacts import Artefact, requirements
from packer_lib.artefacts.files import CODE, MODEL, File, Limits, file_digest, open_file, read_tree, tree_digest
from packer_lib.artefacts.model import Unfit
from packer_lib.bundle import lock, locks, render, select
from packer_lib.errors import BuildFailed
from packer_lib.plan import Plan, Unit
from packer_lib.runtime import manifest as manifests
from packer_lib.settings import Settings

RUNTIME = Path(__file__).parent.parent / "runtime"
WHOLE = Limits(size=64 << 30, files=50_000)


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle in the folder `path`. `digest` is the identity of all its files (`tree_digest`), `lock_digest` the
    sha256 of its requirements.lock, `models` the sha256 of every model by its step. Bundles with the same `frame`
    differ in nothing but what their models are, and are expected to answer."""

    path: Path
    digest: str
    lock_digest: str
    models: tuple[tuple[str, str], ...]
    frame: str = ""


def write(
    plan: Plan, unit: Unit, artefacts: Sequence[Artefact], output: Path, settings: Settings | None = None
) -> Bundle:
    """The bundle of `unit` in the folder `output`, all or nothing; a bundle that is there already is replaced.

    Offline, unless a code step has requirements that the committed locks do not answer. `env` of the pipeline and its
    steps is not in it: whoever identifies a release by its bundle adds that. `BuildFailed`: what and what to do.
    """
    settings = settings or installation.read()
    with _replacing(output) as folder:
        files = [*_copy(folder, unit, artefacts), *_write(folder, _texts(plan, unit, artefacts, settings))]
        _set_modes(folder, files)
    return _bundle(output, files)


def open_bundle(path: Path) -> Bundle:
    """The bundle in the folder `path`, its digests computed from what is there now; `BuildFailed` when it is none."""
    try:
        return _bundle(path, read_tree(path.resolve(), WHOLE))
    except (Unfit, OSError, ValueError, KeyError) as error:
        raise BuildFailed(f"{path} is not a bundle: {error}", "write it again: mlpacker bundle") from None


def _bundle(path: Path, files: Sequence[File]) -> Bundle:
    lock_digest = hashlib.sha256((path / "requirements.lock").read_bytes()).hexdigest()
    manifest = manifests.load(path)
    models = tuple((step.name, step.sha256) for step in manifest.steps if step.kind == "model")
    listed = sorted(files, key=lambda file: file.path)
    return Bundle(path, tree_digest(listed), lock_digest, models, _frame(manifest, listed))


def _frame(manifest: manifests.Manifest, files: Sequence[File]) -> str:
    """The identity of what is left without the models: their files, their digests, and the golden answers."""
    steps = tuple(_without_model(step) if step.kind == "model" else step for step in manifest.steps)
    text = replace(manifest, steps=steps).to_json()
    told = File("unit.json", False, len(text), hashlib.sha256(text.encode()).hexdigest())
    others = (file for file in files if file.path != "unit.json" and not file.path.startswith("models/"))
    return tree_digest([told, *others])


def _without_model(step: manifests.StepSpec) -> manifests.StepSpec:
    return replace(step, sha256="", test={**step.test, "output": None} if step.test else None)


def _texts(plan: Plan, unit: Unit, artefacts: Sequence[Artefact], settings: Settings) -> dict[str, str]:
    """Every file of the bundle that is text of ours, by path."""
    used = select.plugins(plan, unit)
    wanted = _wanted(artefacts)
    direct = select.requirements(used)
    merged = lock.merge(locks.read(need) for need in select.needs(used))
    runtime = {f"mlpacker_runtime/{file}": (RUNTIME / file).read_text("utf-8") for file in select.modules(used)}
    return {
        **render.texts(plan.package_mode, frozenset(step.kind for step in unit.steps)),
        **runtime,
        "unit.json": render.manifest(plan, unit, artefacts).to_json(),
        "requirements.txt": "".join(f"{line}\n" for line in lock.together(direct, wanted)),
        "requirements.lock": lock.resolve(direct, wanted, merged, settings.home / "locks-cache"),
    }


def _wanted(artefacts: Sequence[Artefact]) -> list[requirements.Wanted]:
    code = (artefact for artefact in artefacts if artefact.kind == "code")
    return [wish for artefact in code for wish in requirements.read(artefact.path.resolve(), artefact.source)]


def _write(folder: Path, texts: dict[str, str]) -> Iterator[File]:
    for path, text in texts.items():
        data = text.encode("utf-8")
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        yield File(path, False, len(data), hashlib.sha256(data).hexdigest())


def _copy(folder: Path, unit: Unit, artefacts: Sequence[Artefact]) -> Iterator[File]:
    """The artefacts, copied from the store. Each is hashed on the way: a damaged store is noticed, not deployed."""
    steps = {step.name: step for step in unit.steps}
    for artefact in (artefact for artefact in artefacts if artefact.kind != "schema"):  # that is in unit.json
        place = render.place(steps[artefact.step], artefact)
        files, digest = _copy_one(artefact, folder / place)
        if digest != artefact.digest:
            raise BuildFailed(f"{artefact.path} was changed in the store", "remove it there and deploy again")
        yield from (File(f"{place}/{file.path}".rstrip("/"), file.executable, file.size, file.sha256) for file in files)


def _copy_one(artefact: Artefact, target: Path) -> tuple[tuple[File, ...], str]:
    target.parent.mkdir(parents=True, exist_ok=True)
    if artefact.path.is_dir():
        files = read_tree(artefact.path.resolve(), CODE if artefact.kind == "code" else MODEL, target)
        return files, tree_digest(files)
    with open_file(artefact.path.resolve()) as stream:
        digest, size = file_digest(stream, target)
    return (File("", False, size, digest),), digest


def _set_modes(folder: Path, files: Sequence[File]) -> None:
    """Readable by all, writable by the owner, whatever the umask was."""
    for file in files:
        (folder / file.path).chmod(0o755 if file.executable else 0o644)
    for path in [folder, *folder.rglob("*")]:
        if path.is_dir():
            path.chmod(0o755)


@contextmanager
def _replacing(output: Path) -> Iterator[Path]:
    """An empty folder beside `output` that takes its place when the block ends well, and is gone when it does not."""
    if output.exists() and not _replaceable(output):
        raise BuildFailed(f"{output} is there and is not a bundle", "name another folder, or remove it")
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{output.name}-", dir=output.parent) as beside:
        new, old = Path(beside, "new"), Path(beside, "old")
        new.mkdir()
        yield new
        if output.exists():
            output.rename(old)
        new.rename(output)


def _replaceable(output: Path) -> bool:
    return output.is_dir() and ((output / "unit.json").is_file() or not any(output.iterdir()))
