"""Golden requests: an input of a step and the output it must give; standard library only."""

from __future__ import annotations

import json
import math
from typing import Any

TOLERANCE = 1e-4
SHOWN = 200


class CheckFailed(Exception):
    """A golden request was answered otherwise; the text has what was expected and what came, per step."""


def difference(expected: Any, got: Any, place: str = "") -> str:
    """Where `got` is not `expected`, or "".

    Numbers may differ by 1e-4 (absolute or relative), and objects may have more keys than expected."""
    if isinstance(expected, dict) and isinstance(got, dict):
        missing = [key for key in expected if key not in got]
        if missing:
            return f"{_at(place)}expected the keys {', '.join(expected)}, {', '.join(missing)} not there"
        return next(filter(None, (difference(item, got[key], f"{place}.{key}") for key, item in expected.items())), "")
    if isinstance(expected, list) and isinstance(got, list | tuple):
        if len(expected) != len(got):
            return f"{_at(place)}expected {len(expected)} items, got {len(got)}"
        pairs = enumerate(zip(expected, got, strict=True))
        return next(filter(None, (difference(one, other, f"{place}[{index}]") for index, (one, other) in pairs)), "")
    return "" if _same(expected, got) else f"{_at(place)}expected {_show(expected)}, got {_show(got)}"


def _same(expected: Any, got: Any) -> bool:
    if _is_number(expected) and _is_number(got):
        return math.isclose(expected, got, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    return type(expected) is type(got) and bool(expected == got)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _at(place: str) -> str:
    return f"at {place.removeprefix('.')}: " if place else ""


def _show(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=repr)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
