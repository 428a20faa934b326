"""Rules about the JSON Schema of a queue, inline or in a file of its own. Pure; a schema is looked at, nothing fetched.

A schema stands alone: whatever a `$ref` names is in it, so that a unit that starts asks nobody, and reads no file that
its PADL does not name.
"""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any

from packer_lib.padl import paths
from packer_lib.padl.document import Finding, Pointer, short
from packer_lib.padl.model import Pipeline, Queue

DRAFTS = (
    "https://json-schema.org/draft/2020-12/schema",
    "https://json-schema.org/draft/2019-09/schema",
    "http://json-schema.org/draft-07/schema",
    "http://json-schema.org/draft-06/schema",
    "http://json-schema.org/draft-04/schema",
)
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
_VALUES = ("const", "enum", "default", "examples")  # hold values, no schemas
_NAMES = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")  # hold schemas by names


def schemas(pipeline: Pipeline) -> Iterator[Finding]:
    """A schema is one, stands alone, and is of a queue whose messages a step reads as values."""
    for queue in pipeline.queues:
        here = ("queues", queue.id, "schema")
        if isinstance(queue.schema, str):
            if fault := paths.schema_fault(queue.schema):
                yield Finding(here, fault.message, fault.hint)
        elif queue.schema is not None:
            for one in faults(queue.schema):
                yield Finding((*here, *one.pointer), one.message, one.hint)
        if queue.schema is not None:
            yield from _of_no_use(pipeline, queue, here)


def _of_no_use(pipeline: Pipeline, queue: Queue, here: Pointer) -> Iterator[Finding]:
    readers = [step for step in pipeline.steps if queue.id in step.inputs]
    if not readers:
        message = "messages are held to a schema where they are read, and no step reads this queue"
        yield Finding(here, message, "take it out", level="warning", on="key")
    for step in readers:
        if step.input_format == "raw":
            message = f"'{step.name}' reads this queue as raw bytes, of which no schema can say anything"
            yield Finding(here, message, "another input_format, or no schema", on="key")


def faults(schema: dict[str, Any]) -> list[Finding]:
    """What is wrong with a JSON Schema; pointers begin at the schema itself."""
    draft = schema.get("$schema", DRAFTS[0])
    if not isinstance(draft, str) or draft.rstrip("#") not in DRAFTS:
        near = get_close_matches(str(draft), DRAFTS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"such as {DRAFTS[0]}"
        return [Finding(("$schema",), "this is no draft of JSON Schema from 4 to 2020-12", hint)]
    return [*_shape(schema, draft.rstrip("#")), *_references(schema, (), schema)]


def _shape(schema: dict[str, Any], draft: str) -> Iterator[Finding]:
    """Against the schema of schemas; each place once. Imported here because it takes longer than all the rest."""
    from jsonschema import validators

    kind: Any = validators.validator_for({"$schema": draft})
    told: set[Pointer] = set()
    for error in kind(kind.META_SCHEMA).iter_errors(schema):
        pointer = tuple(str(part) for part in error.absolute_path)
        if pointer not in told:
            told.add(pointer)
            name = next((part for part in reversed(pointer) if not part.isdigit()), "this")
            yield Finding(pointer, f"not what '{short(name)}' of a JSON Schema may be", _allowed(error))


def _allowed(error: Any) -> str:
    for one in (error, *(error.context or ())):
        if one.validator == "enum":
            near = get_close_matches(str(one.instance), one.validator_value, n=1)
            return f'did you mean "{near[0]}"?' if near else f"one of {', '.join(map(str, one.validator_value))}"
    if error.validator == "type":
        kinds = error.validator_value
        return "expected " + (" or ".join(kinds) if isinstance(kinds, list) else str(kinds))
    return ""


def _references(node: Any, pointer: Pointer, root: dict[str, Any]) -> Iterator[Finding]:
    if isinstance(node, list):
        for index, item in enumerate(node):
            yield from _references(item, (*pointer, str(index)), root)
    elif isinstance(node, dict):
        root = node if isinstance(node.get("$id"), str) else root  # where '#' begins from here on
        for key, value in node.items():
            here = (*pointer, key)
            if key in _REFERENCES and isinstance(value, str):
                yield from _reference(value, here, root)
            elif key in _NAMES and isinstance(value, dict):
                for name, schema in value.items():
                    yield from _references(schema, (*here, name), root)
            elif key not in _VALUES:
                yield from _references(value, here, root)


def _reference(target: str, here: Pointer, root: dict[str, Any]) -> Iterator[Finding]:
    if not target.startswith("#"):
        message = "a reference that leads out of this schema; nothing is fetched for a schema"
        yield Finding(here, message, "put what it names under $defs and write #/$defs/NAME")
    elif target.startswith("#/") and not _leads_somewhere(target, root):
        yield Finding(here, f"nothing in this schema is at '{short(target)}'")


def _leads_somewhere(target: str, root: dict[str, Any]) -> bool:
    node: Any = root
    for part in target[2:].split("/"):
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(node, list) and name.isdigit() and int(name) < len(node):
            node = node[int(name)]
        elif isinstance(node, dict) and name in node:
            node = node[name]
        else:
            return "%" in target  # percent-encoded: left to the unit, which refuses what leads nowhere
    return True
