"""Model files that were looked through: what must not be loaded is refused, what could be safer warned of."""

from __future__ import annotations

from pathlib import Path

from packer_lib.artefacts.model import WARNING, Unfit
from packer_lib.artefacts.url import is_url
from packer_lib.padl.model import Step
from packer_lib.runtime.model_files import apart
from packer_lib.runtime.model_files.kinds import UNSAFE

SAFER = {"scikit-learn": "skops", "tensorflow": "keras"}
MOST_NAMED = 5


def scan(path: Path, step: Step, strict: bool, digest: str) -> Unfit | None:
    """`Unfit` is raised when the model of `step` at `path` has in it what no model needs, pinned or not: a digest says
    that it is the same file, not that it is a good one. The other kind is what to warn of."""
    report = apart.look(path, step.serializer or "")
    if report.refused:
        hint = f"it was not loaded; save the model again{_as_safer(step)}, without code of its own"
        raise Unfit(f"{_shown(step)}: the model {report.refused}", hint, refused=True)
    return warning(step, strict, digest, report.unknown)


def warning(step: Step, strict: bool, digest: str = "", unknown: tuple[str, ...] = ()) -> Unfit | None:
    """What to say of a model that can run code while it loads, and is not pinned; in strict mode that is refused."""
    if step.serializer not in UNSAFE or step.sha256 or strict:
        return None
    names = f"; it names {', '.join(unknown[:MOST_NAMED])}, which we do not know" if unknown else ""
    pin = f'"sha256": "{digest}"' if digest else "sha256"
    hint = f"pin the file that you trust by {pin} in props (PADL 1.1), or save it{_as_safer(step)}"
    found = Unfit(f"{step.serializer} can run code of its author when it is loaded{names}", hint, key="serializer")
    found.level = WARNING
    return found


def _as_safer(step: Step) -> str:
    safer = SAFER.get(step.framework or "")
    return f" as {safer}" if safer and safer != step.serializer else ""


def _shown(step: Step) -> str:
    """By what its author called it; the store knows digests only."""
    return step.path if is_url(step.path) else Path(step.path).name
