"""What `/predict` takes beside JSON: CSV without a header, a line an instance; NumPy's .npy, a row an instance.

The formats are those of messages, see formats/; they are loaded with the first request that needs them.
"""

from __future__ import annotations

import asyncio
from importlib import import_module
from typing import Any

from .predict import Refused, parse

JSON, CSV, NPY = b"application/json", b"text/csv", b"application/x-npy"
KINDS = frozenset({CSV, NPY})
_MODULES = {CSV: ".formats.csv_lines", NPY: ".formats.npy_array"}
_loaded: dict[bytes, Any] = {}


async def read(kind: bytes, body: bytes, plain: bool) -> list[Any]:
    """The instances in `body`, or `Refused`. `plain`: rows of an array as lists and numbers."""
    if kind not in _MODULES:
        return parse(body)
    module = await load(kind)
    try:
        instances: list[Any] = module.rows(body) if kind == CSV else module.rows(body, plain)
    except Exception as error:  # the library's own, as with every format
        raise Refused(400, f"the body is not {kind.decode()}: {' '.join(str(error).split())[:500]}") from None
    return instances


async def load(kind: bytes) -> Any:
    """The module of a format; in a thread, for the event loop is not to stand still while it is imported."""
    if kind not in _loaded:
        _loaded[kind] = await asyncio.to_thread(import_module, _MODULES[kind], __package__)
    return _loaded[kind]
