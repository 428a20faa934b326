"""PADL: the language, from text to a checked `Pipeline`. May import `errors` and nothing else of ours.

text ─load─▶ Document ─build─▶ Pipeline
                 └─schema─▶ findings └─check─▶ findings ─▶ the Pipeline with its warnings, or PadlInvalid
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from packer_lib.errors import PadlInvalid, Problem
from packer_lib.padl.document import Document, Finding, Pointer, problems
from packer_lib.padl.load import load, load_text, locate
from packer_lib.padl.model import Pipeline

__all__ = ["check_set", "locate", "read", "read_text", "schema_text"]


def read(path: Path) -> Pipeline:
    """The pipeline in the file at `path`; `PadlInvalid` with every problem of the file at once."""
    return _checked(load(path), str(path))


def read_text(text: str, file: str) -> Pipeline:
    """The pipeline in `text`, which stands or would stand in `file` (its suffix tells the syntax); errors as `read`."""
    return _checked(load_text(text, file), file)


def schema_text(version: str = "1.1") -> str:
    """The published JSON Schema of that version of PADL; `KeyError` when there is no such version."""
    from packer_lib.padl import schema

    return schema.text(version)


def check_set(pipelines: Sequence[Pipeline]) -> list[Problem]:
    """What is wrong between files that are each right: two with one id, two that listen on one address.

    Each of the two has a problem of its own that names the other.
    """
    ids: dict[object, list[tuple[Pipeline, Pointer]]] = defaultdict(list)
    servers: dict[object, list[tuple[Pipeline, Pointer]]] = defaultdict(list)
    for pipeline in pipelines:
        ids[pipeline.id].append((pipeline, ("id",)))
        for queue in pipeline.queues:
            if queue.options.get("role") == "server":
                servers[queue.server, queue.port].append((pipeline, ("queues", queue.id, "props", "port")))
    found = [*_shared(ids, "the id '{0}' is also in {1}", "one file per id; rename one, or remove it")]
    found += _shared(servers, "{1} listens on this address and port too", "give each its own port")
    return sorted(found)


def _checked(document: Document, file: str) -> Pipeline:
    from packer_lib.padl import build, check, schema

    shape = [*document.findings, *schema.check(document.value)]
    pipeline = build.build(document.value, file)
    rules = [finding for finding in check.check(pipeline, document.value) if not _explained(finding, shape)]
    found = problems(file, document, [*shape, *rules])
    if any(problem.level == "error" for problem in found):
        raise PadlInvalid(found)
    return replace(pipeline, warnings=tuple(found))


def _explained(finding: Finding, shape: Sequence[Finding]) -> bool:
    """Whether the shape is already wrong there, below or above it, so that the rule only saw the consequence."""
    for other in shape:
        length = min(len(finding.pointer), len(other.pointer))
        missing = other.message.startswith("missing") and len(other.pointer) <= len(finding.pointer)
        if length and finding.pointer[:length] == other.pointer[:length] and not missing:
            return True
    return False


def _shared(groups: dict[object, list[tuple[Pipeline, Pointer]]], message: str, hint: str) -> list[Problem]:
    found = []
    for members in groups.values():
        for pipeline, pointer in members:
            others = sorted({other.file for other, _ in members if other is not pipeline})
            if others:
                place = locate(Path(pipeline.file), pointer)
                text = message.format(pipeline.id, ", ".join(others))
                found.append(Problem(pipeline.file, *place, ".".join(pointer), text, hint))
    return found
