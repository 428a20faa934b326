"""Another model for a step that is deployed, named by a person: held to all that a deploy holds a model to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from packer_lib.artefacts import fetch, sniff, url
from packer_lib.artefacts.files import resolve
from packer_lib.artefacts.model import Artefact, Unfit
from packer_lib.errors import printable
from packer_lib.padl.model import Step
from packer_lib.plan import Plan
from packer_lib.runtime.catalogue import FRAMEWORKS
from packer_lib.settings import Settings, in_task


def fetch_another(
    plan: Plan, step: Step, model: str, sha256: str, settings: Settings, warn: Callable[[str], object] = str
) -> tuple[Artefact, str]:
    """The model `model` (a URL, or a path from the current folder) in the store, and what serializer it is of.

    That is the step's own, or another one of its framework if the file is of that. `PolicyRefused` and `BuildFailed` as
    for a model in a PADL file; `warn` gets what could be safer.
    """
    try:
        path, serializer = (model, step.serializer or "") if url.is_url(model) else _here(plan, step, model, settings)
        wanted = replace(step, path=path, sha256=sha256.removeprefix("sha256:") or None, serializer=serializer)
        allowed = replace(settings, model_roots=(*settings.model_roots, *_folders(plan)))
        return fetch.fetch_model(plan, wanted, allowed, lambda said: warn(_warning(said, step))), serializer
    except Unfit as unfit:
        raise unfit.error(step.name) from None
    except OSError as error:
        raise Unfit(f"{error.filename or model}: {error}", "is the disk full?").error(step.name) from None


def _warning(said: Unfit, step: Step) -> str:
    return printable(f"warning: step {step.name!r}: {said.message} ({said.hint})")


def _here(plan: Plan, step: Step, model: str, settings: Settings) -> tuple[str, str]:
    written = str(Path.cwd() / model)
    found = sniff.kinds(resolve(written, Path.cwd(), (*settings.model_roots, *_folders(plan))))
    known = FRAMEWORKS[step.framework or ""].serializers
    others = [kind for kind in found if kind in known]
    own = step.serializer or ""
    return written, own if own in found or not others else others[0]


def _folders(plan: Plan) -> tuple[Path, ...]:
    """Beside the PADL file, and for a person at a shell the folder that they are in."""
    return (fetch.folder_of(plan),) if in_task() else (fetch.folder_of(plan), Path.cwd())
