"""What changes the unit: who may, and the schema and configuration that are put in place of the former ones.

Everything is read and built before anything is replaced, and replacing is one assignment of a frozen value: a request
sees the one or the other, and what is refused leaves all as it was. It lasts as long as the process.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..predict import Refused
from .multipart import Part
from .schema import FILE, ProtoInvalid, Schema, default, schema
from .unfit import Unfit

NOT_YET = "models are swapped by `mlpacker swap` for now, which checks and tries them first; nothing has changed"
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


def authorise(headers: Mapping[bytes, bytes], token: str) -> None:
    """`Refused` unless the caller has the token; takes as long for a near miss as for a wild guess."""
    scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
    if scheme.lower() != b"bearer" or not hmac.compare_digest(given.strip(), token.encode()):
        raise Refused(401, "send Authorization: Bearer with this unit's token", ((b"www-authenticate", b"Bearer"),))


def changed(state: State, part: Part) -> State:
    """`state` with what `part` brings; `Refused` when that cannot be used."""
    if not part.data:
        raise Refused(400, f"the part {part.name!r} is empty, and nothing has changed")
    try:
        text = part.data.decode("utf-8-sig")
        if part.name == "proto":
            return replace(state, schema=schema(text), fault="")
        return replace(state, configuration=properties(text))
    except ValueError as error:
        raise Refused(400, f"{part.name}: {error}; nothing has changed") from None


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
