"""A document against the schema of its version: findings in a person's words, all at once.

The published schemas are the only description of the language's shape. They discriminate by `if`/`then`, so that every
error of `jsonschema` is about the one branch that applies; this module gives each a pointer and a sentence.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from packer_lib.padl.document import Finding, Pointer, short

VERSIONS = ("1.0", "1.1")
LATEST = VERSIONS[-1]
_HERE = Path(__file__).resolve().parent
_FOLDERS = (_HERE / "schemas", _HERE.parents[1] / "padl_schemas")
_KINDS: dict[type, str] = {str: "a string", int: "an integer", float: "a number", bool: "a boolean"}
_CONTAINERS: dict[type, str] = {dict: "an object", list: "a list", type(None): "null"}
_HIDDEN = re.compile(r"pass(?!_env$)|secret|token(?!_env$)|^env$|^config$|key_file")


@cache
def text(version: str = LATEST) -> str:
    """The published JSON Schema of that version of PADL; `KeyError` when there is no such version."""
    if version not in VERSIONS:
        raise KeyError(version)
    name = f"padl-{version}.schema.json"
    return next(folder for folder in _FOLDERS if folder.is_dir()).joinpath(name).read_text(encoding="utf-8")


@cache
def schema(version: str) -> dict[str, Any]:
    """The same, read. Not to be changed by the caller."""
    loaded: dict[str, Any] = json.loads(text(version))
    return loaded


def check(value: dict[str, Any]) -> list[Finding]:
    """What is wrong with the shape of a document. Without a known version it is held to the latest."""
    version = value.get("version")
    if version in VERSIONS:
        return _findings(value, version)
    found = [finding for finding in _findings(value, LATEST) if finding.pointer != ("version",)]
    return [*found, _wrong_version(version)] if "version" in value else found


def _wrong_version(version: object) -> Finding:
    near = [known for known in VERSIONS if str(version) == known]
    hint = f'write it in quotes: "{near[0]}"' if near else ""
    return Finding(("version",), f"expected {_either(VERSIONS)}, got {shown(version)}", hint)


def _findings(value: dict[str, Any], version: str) -> list[Finding]:
    found: dict[Finding, None] = {}
    for error in _validator(version).iter_errors(value):
        found.update(dict.fromkeys(_explain(error, version)))
    return list(found)


@cache
def _validator(version: str) -> Any:
    """Imported here because it takes longer than all the rest of a plan together."""
    from jsonschema import Draft7Validator, validators

    extend: Any = validators.extend
    types = Draft7Validator.TYPE_CHECKER.redefine("integer", lambda _, value: type(value) is int)
    kind = extend(Draft7Validator, {"pattern": _pattern}, type_checker=types)
    return kind(schema(version))


def _pattern(_: Any, pattern: str, instance: Any, __: Any) -> Iterator[Any]:
    """Like JavaScript's: Python's `$` also matches before a last newline, which a second one takes away from it."""
    from jsonschema import ValidationError

    if isinstance(instance, str) and not re.search(pattern, instance + "\n" * instance.endswith("\n")):
        yield ValidationError("pattern")


def _explain(error: Any, version: str) -> Iterator[Finding]:
    pointer = tuple(str(part) for part in error.absolute_path)
    if error.validator == "additionalProperties":
        yield from _unknown_keys(error, pointer, version)
    elif error.validator == "required":
        yield from _missing_keys(error, pointer)
    elif error.validator == "not":
        yield Finding(pointer, error.schema["errorMessage"], on="key")
    elif "propertyNames" in error.absolute_schema_path:
        yield _bad_name(error, (*pointer, error.instance))
    else:
        message, hint = _SENTENCES[error.validator](error, version)
        yield Finding(pointer, _told(error, message, pointer), hint)


def _unknown_keys(error: Any, pointer: Pointer, version: str) -> Iterator[Finding]:
    known = error.schema["properties"]
    newer = _newer(error, version).get("properties", {})
    for key in error.instance:
        if key in newer and key not in known and "since" in newer[key]:
            yield Finding((*pointer, key), f'\'{key}\' needs "version": "{newer[key]["since"]}"', on="key")
        elif key not in known:
            yield Finding((*pointer, key), f"unknown key '{short(key)}'", _suggestion(key, known), on="key")


def _suggestion(key: str, known: dict[str, Any]) -> str:
    usable = [name for name, sub in known.items() if "not" not in sub and not name.startswith("$")]
    near = get_close_matches(key.lower(), usable, n=1)
    return f"did you mean '{near[0]}'?" if near else f"allowed here: {', '.join(usable)}"


def _missing_keys(error: Any, pointer: Pointer) -> Iterator[Finding]:
    meant = _meant(error.instance, error.schema["properties"])
    for key in error.validator_value:
        if key not in error.instance and key not in meant:
            yield Finding(pointer, f"missing '{key}'", _example(error, key), on="key")


def _meant(instance: dict[str, Any], known: dict[str, Any]) -> set[str]:
    """The keys that unknown ones were meant to be: what is told of those is enough."""
    return {near for key in instance if key not in known for near in get_close_matches(key.lower(), known, n=1)}


def _example(error: Any, key: str) -> str:
    example = error.schema["properties"][key]["examples"][0]
    return f'for example "{key}": {json.dumps(example, ensure_ascii=False)}'


def _bad_name(error: Any, pointer: Pointer) -> Finding:
    return Finding(pointer, f"expected {error.schema['patternErrorMessage']}, got {shown(error.instance)}", on="key")


def _newer(error: Any, version: str) -> dict[str, Any]:
    """The latest version's schema at the place where `error` was found; empty where it has none."""
    root = schema(LATEST)
    node: Any = root if version != LATEST else {}
    for part in list(error.absolute_schema_path)[:-1]:
        node = _entered(root, node)
        known = part in node if isinstance(node, dict) else isinstance(part, int) and part < len(node)
        if not known:
            return {}
        node = node[part]
    entered: dict[str, Any] = _entered(root, node)
    return entered


def _entered(root: dict[str, Any], node: Any) -> Any:
    if isinstance(node, dict) and "$ref" in node:
        return root["definitions"][node["$ref"].rpartition("/")[2]]
    return node


def _type(error: Any, version: str) -> tuple[str, str]:
    wanted = error.validator_value if isinstance(error.validator_value, list) else [error.validator_value]
    words = " or ".join("list" if word == "array" else word for word in wanted)
    return f"expected {words}", _type_hint(error, wanted, version)


def _type_hint(error: Any, wanted: list[str], version: str) -> str:
    value = error.instance
    newer = _newer(error, version).get("type", ())
    if isinstance(value, list) and "array" in newer:
        return f'a list needs "version": "{LATEST}"'
    if isinstance(value, int | float) and "string" in wanted:
        return "put it in quotes"
    return _unquoted(value, wanted[0]) if isinstance(value, str) else ""


def _unquoted(value: str, wanted: str) -> str:
    if wanted == "boolean" and value.lower() in ("true", "yes", "on", "1", "false", "no", "off", "0"):
        word = "true" if value.lower() in ("true", "yes", "on", "1") else "false"
        return f"write {word} without quotes"
    if wanted in ("integer", "number") and re.fullmatch(r"[0-9]{1,18}", value):
        return f"write {int(value)} without quotes"
    return ""


def _enum(error: Any, _: str) -> tuple[str, str]:
    texts = [item for item in error.validator_value if isinstance(item, str)]
    near = get_close_matches(str(error.instance).lower(), texts, n=1)
    return f"expected {_either(error.validator_value)}", f'did you mean "{near[0]}"?' if near else ""


def _bounds(error: Any, _: str) -> tuple[str, str]:
    low, high = error.schema.get("minimum"), error.schema.get("maximum")
    if low is not None and high is not None:
        return f"expected {low} to {high}", ""
    above = error.schema.get("exclusiveMinimum", low)
    return f"expected more than {above} and at most {high}", ""


def _length(error: Any, _: str) -> tuple[str, str]:
    if error.validator == "minLength":
        return "expected some text, got none", ""
    return f"expected at most {error.validator_value} characters, got {len(error.instance)}", ""


def _entries(error: Any, _: str) -> tuple[str, str]:
    few = error.validator in ("minItems", "minProperties")
    bound = f"at {'least' if few else 'most'} {error.validator_value} entr{'y' if few else 'ies'}"
    return f"expected {bound}, got {len(error.instance) or 'none'}", ""


_SENTENCES: dict[str, Callable[[Any, str], tuple[str, str]]] = {
    "type": _type,
    "enum": _enum,
    "pattern": lambda error, _: (f"expected {error.schema['patternErrorMessage']}", ""),
    "minimum": _bounds,
    "maximum": _bounds,
    "exclusiveMinimum": _bounds,
    "minLength": _length,
    "maxLength": _length,
    "minItems": _entries,
    "maxItems": _entries,
    "minProperties": _entries,
    "maxProperties": _entries,
    "uniqueItems": lambda *_: ("an entry is here twice", ""),
}
_COUNTED = {"minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties", "uniqueItems"}


def _told(error: Any, message: str, pointer: Pointer) -> str:
    """The message with what was found, unless it may be a secret, or is a matter of counting."""
    if error.validator in _COUNTED:
        return message
    if any(_HIDDEN.search(part) for part in pointer):
        return f"{message}, got {kind(error.instance)}"
    return f"{message}, got {shown(error.instance)}"


def _either(values: Any) -> str:
    *first, last = [json.dumps(value) for value in values]
    return f"{', '.join(first)} or {last}" if first else last


def kind(value: object) -> str:
    """What sort of thing `value` is, for values that must not be shown."""
    return _CONTAINERS.get(type(value)) or _KINDS[type(value)]


def shown(value: object) -> str:
    """`value` as JSON, cut to a length that fits into a message."""
    if isinstance(value, dict | list):
        return kind(value) if value else f"an empty {'object' if isinstance(value, dict) else 'list'}"
    text = json.dumps(value, ensure_ascii=False)
    return short(text)
