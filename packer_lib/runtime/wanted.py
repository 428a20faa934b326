"""Which models a unit is to answer with, as files in its state folder; standard library only.

    wanted.json                     what is to be (`Wanted`), put there by rename:
                                    {"id", "models": {step: MODEL}, "others": {step: [MODEL, …]},
                                     "shadow": {step: share}, "unloaded": [step, …], "numbers": {step: last}}
                                    MODEL is {"path", "sha256", "serializer", "number", "label"}
    models/<step>/<sha256>/<name>   a model that is named there, a file or a folder (SavedModel)
    swapped.<replica>.json          what came of it: {"id", "state", "reason", "models"}: "ready" when all is loaded and
                                    the other processes are waited for, then "live", or "refused"; the models are what
                                    is live now: step → sha256
    trying.<replica>.json           how many processes began to load it and did not come to an end of that

`models` are live: what whoever names no version is answered by. `others` are loaded beside them: former ones as long
as the step's policy keeps them, and one that is staged, the candidate. A step that `models` does not name has the model
of the bundle, which is number 1; each that comes after has the next number. It says what is to be, not what is to be
done, so that a process that starts again reads the same. The functions make one `Wanted` of another and touch nothing.
"""

from __future__ import annotations

import hashlib
import json
import stat
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

WANTED = "wanted.json"
LONGEST = 1 << 20
STABLE, CANDIDATE = "stable", "candidate"
FIRST = 1  # the number of the bundle's own model
SHORT = 12  # digits of a sha256 that name a version
LATEST: Mapping[str, Any] = {"latest": 1}  # the policy of a step that has none


class NoVersion(LookupError):
    """There is no such version; says which there are."""


@dataclass(frozen=True, slots=True)
class Staged:
    """A model; `path` is relative to the state folder, "" for the bundle's own. `label` is "candidate" or ""."""

    path: str
    sha256: str
    serializer: str
    number: int = 0
    label: str = ""

    @property
    def version(self) -> str:
        """What answers name it by."""
        return self.sha256[:SHORT]

    def is_called(self, name: str) -> bool:
        """Whether `name` means it: its number, its label, or its sha256 from the 12th digit on."""
        if len(name) >= SHORT:
            return self.sha256.startswith(name)
        return bool(name) and name in (str(self.number), self.label)


@dataclass(frozen=True, slots=True)
class Wanted:
    """`shadow` is which share of its instances (0 to 1) the candidate of a step gets copies of."""

    id: str = ""
    models: Mapping[str, Staged] = field(default_factory=dict)
    others: Mapping[str, tuple[Staged, ...]] = field(default_factory=dict)
    shadow: Mapping[str, float] = field(default_factory=dict)
    unloaded: frozenset[str] = frozenset()
    numbers: Mapping[str, int] = field(default_factory=dict)

    def to_json(self) -> str:
        return json.dumps({**asdict(self), "unloaded": sorted(self.unloaded)})


def parse(text: str | bytes) -> Wanted:
    """`ValueError` for what is not as above; an object without `others` and all that follows is fine."""
    try:
        data = json.loads(text)
        return Wanted(
            str(data["id"]),
            {str(step): _staged(told) for step, told in data["models"].items()},
            {str(step): tuple(map(_staged, told)) for step, told in data.get("others", {}).items()},
            {str(step): float(share) for step, share in data.get("shadow", {}).items()},
            frozenset(map(str, data.get("unloaded", ()))),
            {str(step): int(number) for step, number in data.get("numbers", {}).items()},
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{WANTED} is not what is written there: {type(error).__name__}: {error}") from None


def read(folder: Path) -> Wanted:
    """`ValueError` as `parse`, and when a path leads out of `folder`; nothing is wanted where there is no file."""
    try:
        with (folder / WANTED).open("rb") as file:
            want = parse(file.read(LONGEST))
    except FileNotFoundError:
        return Wanted()
    except OSError as error:
        raise ValueError(f"{WANTED} cannot be read: {error.strerror}") from None
    for model in (*want.models.values(), *(one for some in want.others.values() for one in some)):
        if not (folder / model.path).resolve().is_relative_to(folder.resolve()):
            raise ValueError(f"{model.path!r} leads out of the folder")
    return want


def _staged(told: Mapping[str, Any]) -> Staged:
    label = str(told.get("label") or "")
    if label not in ("", CANDIDATE):
        raise ValueError(f"the label is {label!r}")
    number = int(told.get("number") or 0)
    return Staged(str(told["path"]), str(told["sha256"]), str(told.get("serializer") or ""), number, label)


# ── what is to be after a change ─────────────────────────────────────────────────────────────────────────────────────


def live(want: Wanted, step: str, own: Staged) -> Staged:
    """What `step` answers with; `own` is the bundle's."""
    return want.models.get(step, own)


def versions(want: Wanted, step: str, own: Staged) -> tuple[Staged, ...]:
    """All of `step` that are loaded; the live one, labelled stable, comes first."""
    return (replace(live(want, step, own), label=STABLE), *want.others.get(step, ()))


def find(want: Wanted, step: str, own: Staged, name: str) -> Staged:
    """The version of `step` that `name` means, see `Staged.is_called`; `NoVersion`."""
    there = versions(want, step, own)
    found = next((one for one in there if one.is_called(name)), None)
    if found is None:
        said = ", ".join(f"{one.version} ({one.label or one.number})" for one in there)
        raise NoVersion(f"step {step!r} has no version {name!r}, only {said}")
    return found


def stage(want: Wanted, step: str, model: Staged) -> Wanted:
    """`model` is loaded beside the live one, as the candidate: the former candidate goes."""
    numbered, fresh = _numbered(want, step, replace(model, label=CANDIDATE))
    return _with_others(numbered, step, [*_unlabelled(want, step), fresh])


def promote(want: Wanted, step: str, own: Staged, policy: Mapping[str, Any] = LATEST, name: str = CANDIDATE) -> Wanted:
    """The version `name` is the live one; `NoVersion`. What was live stays as long as `policy` says."""
    found = find(want, step, own, name)
    return want if found.label == STABLE else _made_live(want, found, step, own, policy)


def swap(want: Wanted, step: str, own: Staged, model: Staged, policy: Mapping[str, Any] = LATEST) -> Wanted:
    """`model` is the live one; one that is loaded already, by its sha256, keeps its number. A candidate stays one."""
    known = next((one for one in versions(want, step, own) if one.sha256 == model.sha256), None)
    if known is not None:
        return promote(want, step, own, policy, str(known.number))
    return _made_live(*_numbered(want, step, model), step, own, policy)


def _numbered(want: Wanted, step: str, model: Staged) -> tuple[Wanted, Staged]:
    number = want.numbers.get(step, FIRST) + 1
    return replace(want, numbers={**want.numbers, step: number}), replace(model, number=number)


def _made_live(want: Wanted, fresh: Staged, step: str, own: Staged, policy: Mapping[str, Any]) -> Wanted:
    left = [one for one in want.others.get(step, ()) if one.number != fresh.number]
    stay = [one for one in left if one.label]
    models = {**_without(want.models, step), **({step: replace(fresh, label="")} if fresh.path else {})}
    shadow = want.shadow if stay else _without(want.shadow, step)
    former = [live(want, step, own), *(one for one in left if not one.label)]
    changed = replace(want, models=models, shadow=shadow, unloaded=want.unloaded - {step})
    return _with_others(changed, step, [*kept(former, policy), *stay])


def discard(want: Wanted, step: str) -> Wanted:
    """Without the candidate; `NoVersion` when there is none."""
    left = _unlabelled(want, step)
    if len(left) == len(want.others.get(step, ())):
        raise NoVersion(f"step {step!r} has no candidate")
    return replace(_with_others(want, step, left), shadow=_without(want.shadow, step))


def shadow(want: Wanted, step: str, share: float) -> Wanted:
    """The candidate gets copies of `share` of what `step` is asked, 0: none; `NoVersion` when there is no candidate."""
    if len(_unlabelled(want, step)) == len(want.others.get(step, ())):
        raise NoVersion(f"step {step!r} has no candidate")
    return replace(want, shadow={**want.shadow, step: share} if share else _without(want.shadow, step))


def unload(want: Wanted, step: str) -> Wanted:
    """`step` answers nobody, and its models are in no memory."""
    return replace(want, unloaded=want.unloaded | {step})


def load(want: Wanted, step: str) -> Wanted:
    """`step` answers again, with what was live."""
    return replace(want, unloaded=want.unloaded - {step})


def kept(others: Sequence[Staged], policy: Mapping[str, Any]) -> list[Staged]:
    """Those of `others` that stay loaded beside the live one; `policy` is {"latest": n}, {"all": true} or {"specific":
    [n]}."""
    if policy.get("all"):
        return list(others)
    if "specific" in policy:
        return [one for one in others if one.number in policy["specific"]]
    newest = sorted(others, key=lambda one: one.number, reverse=True)[: int(policy.get("latest", 1)) - 1]
    return [one for one in others if one in newest]


def _unlabelled(want: Wanted, step: str) -> list[Staged]:
    return [one for one in want.others.get(step, ()) if not one.label]


def _with_others(want: Wanted, step: str, others: Sequence[Staged]) -> Wanted:
    return replace(want, others={**_without(want.others, step), **({step: tuple(others)} if others else {})})


def _without(values: Mapping[str, Any], step: str) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name != step}


# ── files ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def stamp(folder: Path) -> tuple[int, ...]:
    """Another one whenever `wanted.json` is another file."""
    try:
        found = (folder / WANTED).stat()
    except OSError:
        return ()
    return found.st_ino, found.st_mtime_ns, found.st_size


def write(path: Path, text: str) -> None:
    """All or nothing; `OSError` when it cannot be."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.new")
    new.write_text(text, encoding="utf-8")
    new.replace(path)


def told(folder: Path, replica: int) -> dict[str, Any]:
    """What process `replica` says came of it (`swapped.<replica>.json`); {} where it has said nothing readable."""
    try:
        said = json.loads((folder / f"swapped.{replica}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}


def digest(path: Path) -> str:
    """The sha256 of the file, or of the folder as it is made where models are fetched: over each file's path,
    executable bit and sha256, in the order of the paths."""
    if not path.is_dir():
        return _file_digest(path)
    files = sorted((file.relative_to(path).as_posix(), file) for file in path.rglob("*") if file.is_file())
    lines = (f"{name}\0{_executable(file)}\0{_file_digest(file)}\n" for name, file in files)
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def _executable(file: Path) -> str:
    return "x" if file.stat().st_mode & stat.S_IXUSR else "-"


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
