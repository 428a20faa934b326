"""SavedModel folders: whether the graph reads or writes files of the machine, or calls Python.

TensorFlow's models are programs (its SECURITY.md): these of their operations no model
needs to answer.
"""

from __future__ import annotations

import re
from pathlib import Path

# `op` of a NodeDef is its field 2: a tag, a length, the name
OPERATION = re.compile(
    rb"\x12[\x05-\x14](ReadFile|WriteFile|MatchingFiles|PyFunc|PyFuncStateless|EagerPyFunc|DebugIdentityV\d|DebugNanCount)"
    rb"(?![A-Za-z0-9])"
)
LARGEST = 1 << 29


def fault(folder: Path) -> str:
    """Why the model in `folder` is not to be loaded, or ""."""
    with (folder / "saved_model.pb").open("rb") as stream:
        data = stream.read(LARGEST + 1)
    if len(data) > LARGEST:
        return f"has a graph of more than {LARGEST >> 20} MiB"
    found = {match[1].decode() for match in OPERATION.finditer(data)}
    return f"has the operation {', '.join(sorted(found))}, which is no part of a model" if found else ""
