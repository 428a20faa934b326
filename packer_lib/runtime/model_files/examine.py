"""What is in a model file that must not be loaded, by its serializer."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import compressed, hdf5, keras_config, onnx_file, pickles, saved_model, zips
from .names import Standing, standing

LARGEST_TEXT = 64 << 20  # of a JSON member
MOST_NAMED = 5


@dataclass(frozen=True, slots=True)
class Report:
    """`refused` says why the file must not be loaded ("": nothing speaks against it), `unknown` what in it we do not
    know."""

    refused: str = ""
    unknown: tuple[str, ...] = ()


Fault = tuple[Standing, str]


def examine(path: Path, serializer: str) -> Report:
    """Of the model file at `path`. Reads it and runs nothing of it; may take long, see `apart`."""
    try:
        found = list(dict.fromkeys(FAULTS[serializer](path))) if serializer in FAULTS else []
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        found = [(Standing.FORBIDDEN, f"cannot be read: {error}")]
    refused = [text for standing, text in found if standing is Standing.FORBIDDEN]
    unknown = tuple(text for standing, text in found if standing is Standing.UNKNOWN)
    return Report(_some(refused), unknown)


def _some(texts: Iterable[str]) -> str:
    texts = list(texts)
    more = f" and {len(texts) - MOST_NAMED} more" if len(texts) > MOST_NAMED else ""
    return "; ".join(texts[:MOST_NAMED]) + more


def _pickle(path: Path, arrays: bool) -> Iterator[Fault]:
    with compressed.opened(path) if arrays else path.open("rb") as file:
        try:
            found, why = pickles.names(file, arrays), ""
        except pickles.Damaged as damaged:
            found, why = damaged.found, str(damaged)
    yield from _named(found)
    if why:
        yield (
            Standing.FORBIDDEN,
            why if why.startswith(("has", "is", "ends", "names", "gives")) else f"is damaged: {why}",
        )


def _named(names: Iterable[tuple[str, str]]) -> Iterator[Fault]:
    for module, name in sorted(names):
        match standing(module, name):
            case Standing.FORBIDDEN:
                yield Standing.FORBIDDEN, f"names {module}.{name}, which is no part of a model"
            case Standing.UNKNOWN:
                yield Standing.UNKNOWN, f"{module}.{name}"


def _h5(path: Path) -> Iterator[Fault]:
    hdf5.require_whole(path)
    for value in hdf5.configurations(path):
        yield from keras_config.faults(value)


def _keras(path: Path) -> Iterator[Fault]:
    yield from keras_config.faults(_member(path, "config.json"))


def _skops(path: Path) -> Iterator[Fault]:
    """skops itself refuses what it does not know; what can only be meant badly is refused here already."""
    for module, name in sorted(_types(_member(path, "schema.json"))):
        top = module.partition(".")[0]
        if top not in SKOPS and standing(module, name) is Standing.FORBIDDEN:
            yield Standing.FORBIDDEN, f"names {module}.{name}, which is no part of a model"


# skops looks at these itself, and takes of them what it trusts by name
SKOPS = frozenset({"numpy", "scipy", "sklearn", "builtins", "functools", "operator", "types", "collections"})


def _types(value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        if isinstance(module := value.get("__module__"), str) and isinstance(name := value.get("__class__"), str):
            yield module, name
        for inner in value.values():
            yield from _types(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _types(inner)


def _member(path: Path, name: str) -> Any:
    """The JSON in a member of the zip at `path`; `ValueError` when the zip is not to be unpacked."""
    with path.open("rb") as stream:
        members = zips.directory(stream)
        if why := zips.objection(members, path.stat().st_size):
            raise ValueError(why)
        with zipfile.ZipFile(stream) as archive, archive.open(name) as member:
            text = member.read(LARGEST_TEXT + 1)
        if len(text) > LARGEST_TEXT:
            raise ValueError(f"its {name} is larger than {LARGEST_TEXT >> 20} MiB")
        for other in members:  # every member is there, and whole
            with zipfile.ZipFile(stream) as archive, archive.open(other) as member:
                while member.read(1 << 20):
                    pass
    try:
        return json.loads(text)
    except ValueError:
        return None  # nothing that reads it could make anything of it


def _onnx(path: Path) -> Iterator[Fault]:
    if why := onnx_file.fault(path):
        yield Standing.FORBIDDEN, why


def _saved_model(path: Path) -> Iterator[Fault]:
    if why := saved_model.fault(path):
        yield Standing.FORBIDDEN, why


FAULTS: dict[str, Callable[[Path], Iterator[Fault]]] = {
    "joblib": lambda path: _pickle(path, arrays=True),
    "pickle": lambda path: _pickle(path, arrays=False),
    "h5": _h5,
    "keras": _keras,
    "skops": _skops,
    "onnx": _onnx,
    "savedmodel": _saved_model,
}
