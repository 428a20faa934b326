"""The JSON Schema of a queue that is in a file of its own: read under the rules of a PADL file, kept in the store."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from packer_lib.artefacts import store
from packer_lib.artefacts.files import open_file, resolve
from packer_lib.artefacts.model import Artefact, Unfit
from packer_lib.errors import PadlInvalid
from packer_lib.padl import messages
from packer_lib.padl.document import MAX_BYTES, problem
from packer_lib.padl.load import load_text
from packer_lib.padl.model import Queue


def fetch(queue: Queue, folder: Path, roots: Sequence[Path], kept: Path) -> Artefact:
    """The schema of `queue`, whose path begins in `folder`, in the store `kept`; `Unfit` names the line."""
    value = read(str(queue.schema), folder, roots)
    text = json.dumps(value, sort_keys=True, ensure_ascii=False).encode()
    path = store.put_file(kept, io.BytesIO(text), len(text))
    return Artefact(queue.id, "schema", path, path.name, source=str(queue.schema))


def read(written: str, folder: Path, roots: Sequence[Path]) -> dict[str, Any]:
    """The schema in the file called `written`; `Unfit` for one outside, too large, not plain JSON or YAML, or none."""
    path = resolve(written, folder, roots)
    with open_file(path) as stream:
        data = stream.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise Unfit(f"{written} is larger than {MAX_BYTES >> 20} MiB", "a schema says what a message may be")
    try:
        document = load_text(data.decode(), written)
    except UnicodeDecodeError:
        raise Unfit(f"{written} is not UTF-8", "save the file as UTF-8") from None
    except PadlInvalid as invalid:
        first = invalid.problems[0]
        raise Unfit(first.message, first.hint).at(written, first.line) from None
    for finding in [*document.findings, *messages.faults(document.value)]:
        first = problem(written, document.place(finding.pointer, finding.on), finding)
        raise Unfit(f"{first.path}: {first.message}", first.hint).at(written, first.line)
    value: dict[str, Any] = document.value
    return value
