"""What requests are answered by: a schema and a configuration, the bundle's or others that were put, see kept.py.

A frozen value: a request sees the one or the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .schema import FILE, ProtoInvalid, Schema, default
from .unfit import Unfit

KEYS = ("modelClassName", "modelMethod", "modelInputType", "modelOutputType")
TYPES = ("CSV", "JSON")


@dataclass(frozen=True, slots=True)
class State:
    """What requests are answered by. `fault` says why there is no `schema`: that of the bundle cannot be used."""

    schema: Schema | None
    fault: str = ""
    configuration: Mapping[str, str] = field(default_factory=dict)

    def usable(self) -> Schema:
        if self.schema is None:
            raise Unfit(self.fault)
        return self.schema


def first(folder: Path) -> State:
    """Of the bundle in `folder`."""
    try:
        return State(default(folder))
    except (ProtoInvalid, OSError, UnicodeDecodeError) as error:
        return State(None, f"the unit's own schema, {FILE}, cannot be used: {error}")


def properties(text: str) -> dict[str, str]:
    """A file of Java's properties, `name=value` a line; `ValueError` for what is none, or none of Acumos' four."""
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip()[0] in "#!":
            continue
        name, equals, value = (word.strip() for word in line.replace(":", "=", "=" not in line).partition("="))
        if not equals or name not in KEYS:
            raise ValueError(f"{number}: expected one of {', '.join(KEYS)} and = and a value, got {line[:60]!r}")
        if name.endswith("Type") and value.upper() not in TYPES:
            raise ValueError(f"{number}: {name} is {' or '.join(TYPES)}, got {value[:60]!r}")
        found[name] = value
    if not found:
        raise ValueError(f"there is none of {', '.join(KEYS)}")
    return found
