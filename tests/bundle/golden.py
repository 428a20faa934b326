"""The bundles of the golden cases: what `mlpacker bundle` makes of every valid file, held unit by unit.

`python -m tests.padl.golden` writes them anew, with the plans.

golden/valid/<case>/bundles/<unit>/   unit.json, requirements.txt: as they are in the bundle
                                      tree.txt: every file of it; those that are texts of a template, code or models
                                      with the first digits of their sha256

The artefacts are made here: code that gives back what it gets, models that begin as such a file does. Nothing loads
them, and no case needs a network: a repository is one on disk, what comes from a URL is in the store already.
"""

from __future__ import annotations

import hashlib
import io
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from packer_lib import artefacts, bundle
from packer_lib.artefacts import git, url
from packer_lib.padl.model import Step
from packer_lib.plan import Plan, plan
from packer_lib.settings import Settings
from tests.artefacts.cases import Repository
from tests.padl import golden

HELD_AS_TEXT = ("unit.json", "requirements.txt")
# what the product is made of: that a file travels is held, its bytes are not
OF_THE_PRODUCT = ("mlpacker_runtime/", "requirements.lock")


def archive(*members: str) -> bytes:
    """A zip of empty files, the same bytes at any hour."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as made:
        for name in members:
            made.writestr(zipfile.ZipInfo(name), "")
    return data.getvalue()


MODELS = {
    "joblib": b"\x80\x04N.",
    "pickle": b"\x80\x04N.",
    "skops": archive("schema.json"),
    "h5": b"\x89HDF\r\n\x1a\n",
    "keras": archive("metadata.json", "config.json"),
    "onnx": b"\x08\x08\x12\x00",
    "savedmodel": b"",
}


def expected(case: Path) -> dict[str, str]:
    """Text by path below the folder of bundles of `case`, a golden `pipeline.*`."""
    folder = case.with_name("bundles")
    return {path.relative_to(folder).as_posix(): path.read_text("utf-8") for path in folder.rglob("*.*")}


def update() -> None:
    """Writes down what every bundle is now. Read the difference before you commit it."""
    for case in golden.VALID:
        shutil.rmtree(case.with_name("bundles"), ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix="mlpacker-golden-") as folder:
            for name, text in bundles(case, Path(folder)).items():
                place = case.with_name("bundles") / name
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_text(text, encoding="utf-8")


def bundles(case: Path, folder: Path) -> dict[str, str]:
    """What `expected` should say: the bundles of every unit of `case`, really written, below `folder`."""
    made, settings = with_artefacts(plan(golden.read(case)), folder)
    texts: dict[str, str] = {}
    for unit in made.units:
        fetched = artefacts.fetch(made, unit, settings)
        written = bundle.write(made, unit, fetched, folder / "bundles" / unit.name, settings)
        texts |= {f"{unit.name}/{name}": (written.path / name).read_text("utf-8") for name in HELD_AS_TEXT}
        texts[f"{unit.name}/tree.txt"] = "".join(f"{line}\n" for line in tree(written.path))
    return texts


def tree(folder: Path) -> Iterator[str]:
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        if name in HELD_AS_TEXT or name.startswith(OF_THE_PRODUCT):
            yield name
        else:
            yield f"{name}  {hashlib.sha256(path.read_bytes()).hexdigest()[:12]}"


def with_artefacts(plan: Plan, folder: Path) -> tuple[Plan, Settings]:
    """`plan` as if its file were in `folder`, where all that it names is made; repositories become ones on disk."""
    settings = Settings(home=folder / "home", git_protocols=("file",))
    for queue in plan.queues:
        if isinstance(queue.schema, str):
            (folder / queue.schema).parent.mkdir(parents=True, exist_ok=True)
            (folder / queue.schema).write_text('{"type": "array"}', encoding="utf-8")
    units = tuple(
        replace(unit, steps=tuple(_with_artefact(step, folder, settings) for step in unit.steps)) for unit in plan.units
    )
    return replace(plan, units=units, file=str(folder / "pipeline")), settings


def _with_artefact(step: Step, folder: Path, settings: Settings) -> Step:
    if step.kind == "model":
        place = folder / step.path
        if url.is_url(step.path):  # only what is in the store under its digest needs no network
            place = settings.home / "store" / (step.sha256 or "")
        _write_model(place, step.serializer or "")
        return step
    if git.is_url(step.path):
        repository = Repository(folder / "repositories" / step.name)
        _write_code(repository.folder, step)
        repository.commit()
        if step.ref:
            repository.run("tag", step.ref)
        return replace(step, path=repository.url)
    _write_code(folder / step.path, step)
    return step


def _write_model(place: Path, serializer: str) -> None:
    place = place / "saved_model.pb" if serializer == "savedmodel" else place
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(MODELS[serializer])


def _write_code(folder: Path, step: Step) -> None:
    entry = folder / step.entrypoint
    entry.parent.mkdir(parents=True, exist_ok=True)
    entry.write_text(f"def {step.function}(value):\n    return value\n", encoding="utf-8")
