"""The JSON Schema of a queue, compiled once and asked for every message; the one module that imports jsonschema-rs.

Why that one: a message of 30 numbers takes it 1.4 µs, fastjsonschema 10 µs and jsonschema 320 µs. It knows drafts 4 to
2020-12, its patterns end after so many steps whatever a message holds, and nothing of it runs text from a schema as
Python, as fastjsonschema does. Left to itself it fetches what a `$ref` names, files and URLs alike: not here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jsonschema_rs

STEPS_MOST = 100_000  # of a pattern with look-around or back-references on one text; all others take linear time
REASON_MOST = 300


class JsonSchema:
    """`schema` is its own document: `ValueError` when it is no JSON Schema, or when a `$ref` leads out of it."""

    def __init__(self, schema: dict[str, Any]) -> None:
        patterns = jsonschema_rs.FancyRegexOptions(backtrack_limit=STEPS_MOST)
        try:
            self._compiled = jsonschema_rs.validator_for(schema, offline=True, pattern_options=patterns)
        except jsonschema_rs.ValidationError as error:
            raise ValueError(f"not a JSON Schema that stands alone: {error.message}") from None

    def fault(self, value: Any) -> str:
        """Why `value` does not fit, on one line that begins with the place in it, or ""."""
        try:
            if self._compiled.is_valid(value):
                return ""
            first = next(iter(self._compiled.iter_errors(value)))
        except ValueError as error:  # bytes, or keys that are no text: msgpack has them
            return f"holds what JSON Schema does not know: {error}"
        place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first.instance_path)
        return _short(f"{place.removeprefix('.') or 'the message'}: {first.message}")

    def faults(self, values: Sequence[Any]) -> list[str]:
        """`fault` of each."""
        return [self.fault(value) for value in values]


def _short(text: str) -> str:
    """On one line; what is quoted of a message can be as long as the message, and what is asked of it comes last."""
    line = " ".join(text[:100_000].split())
    half = REASON_MOST // 2
    return line if len(line) <= REASON_MOST else f"{line[:half]} … {line[-half:]}"
