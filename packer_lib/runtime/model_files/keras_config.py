"""What a Keras model's configuration would have Keras do beside building layers.

Keras' safe mode refuses most of it while it loads. Here it is refused before the model goes anywhere.
Sources: CVE-2025-1550 and -8747 (classes and functions of any module), -9905 and -9906 (lambda layers in spite of safe
mode), -12058 (a vocabulary by its path or URL).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from .names import CLOSED, Standing, standing

CODE = {
    "Lambda": "is Python code of its author",
    "__lambda__": "is Python code of its author",
    "TFSMLayer": "loads a SavedModel from a path on the machine",
    "TorchModuleWrapper": "unpickles a PyTorch module",
    "FlaxLayer": "is Python code of its author",
    "JaxLayer": "is Python code of its author",
}
PATHS = ("StringLookup", "IntegerLookup", "TextVectorization")
OURS = re.compile(r"(tf_)?keras(\.\w+)*|tensorflow\.keras(\.\w+)*|tensorflow\.python\.keras(\.\w+)*|builtins")
NOT_OF_LAYERS = re.compile(
    r"(keras|tensorflow\.keras)(\.src)?\.(utils|saving|models|export|backend|datasets|config)\b.*"
)
BUILT_IN = {
    "function",
    "tuple",
    "list",
    "dict",
    "float32",
    "float64",
    "int32",
    "int64",
    "slice",
    "ellipsis",
    "NoneType",
}
BEGIN = re.compile(rb'\{\s{0,8}"[^"]{1,64}"\s{0,8}:')
LONGEST = 32 << 20
DEPTH = 200


def faults(value: Any, depth: int = 0) -> Iterator[tuple[Standing, str]]:
    """What is wrong with a configuration that was read from JSON."""
    if depth > DEPTH:
        yield Standing.FORBIDDEN, "its configuration is nested too deeply"
    elif isinstance(value, dict):
        yield from _object(value)
        for inner in value.values():
            yield from faults(inner, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            yield from faults(inner, depth + 1)


def _object(value: dict[str, Any]) -> Iterator[tuple[Standing, str]]:
    kind, module, config = str(value.get("class_name", "")), value.get("module"), value.get("config")
    if why := CODE.get(kind):
        yield Standing.FORBIDDEN, f"has a {kind} layer, which {why}"
    if kind in PATHS and isinstance(config, dict) and isinstance(config.get("vocabulary"), str):
        yield Standing.FORBIDDEN, f"has a {kind} layer that reads {config['vocabulary'][:100]!r}"
    if kind and isinstance(module, str):
        yield from _module(module, config if kind == "function" and isinstance(config, str) else kind)


def _module(module: str, name: str) -> Iterator[tuple[Standing, str]]:
    if (NOT_OF_LAYERS.fullmatch(module) and name != "Sequential" and not name.endswith(("Model", "Functional"))) or (
        module == "builtins" and name not in BUILT_IN
    ):
        yield Standing.FORBIDDEN, f"names {module}.{name}, which is no part of a model"
    elif not OURS.fullmatch(module):
        top = module.partition(".")[0]
        known = top not in CLOSED and standing(module, name) is not Standing.FORBIDDEN
        yield Standing.UNKNOWN if known else Standing.FORBIDDEN, f"names {module}.{name}"


def in_bytes(data: Any) -> Iterator[Any]:
    """Every JSON object in `data`, bytes or a map of a file: where HDF5 has its attributes, they are in one piece."""
    at = 0
    while begin := BEGIN.search(data, at):
        at = begin.start()
        text = data[at : at + LONGEST].decode("latin-1")
        try:
            value, length = json.JSONDecoder(strict=False).raw_decode(text)
        except ValueError:
            at += 1
            continue
        yield value
        at += length
