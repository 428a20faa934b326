"""Whether a text is a schedule: five cron fields, or one of Airflow's presets. Standard library only."""

from __future__ import annotations

import re

PRESETS = ("@hourly", "@daily", "@weekly", "@monthly", "@quarterly", "@yearly")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_FIELDS = (
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day of the month", 1, 31, ()),
    ("month", 1, 12, _MONTHS),
    ("day of the week", 0, 7, _DAYS),
)
_PART = re.compile(r"(?:\*|([0-9a-z]{1,3})(?:-([0-9a-z]{1,3}))?)(?:/([0-9]{1,3}))?")


def fault(schedule: str) -> str:
    """What is wrong with `schedule`; empty when nothing is."""
    if schedule.startswith("@"):
        return "" if schedule in PRESETS else f"unknown preset {schedule}"
    fields = schedule.split()
    if len(fields) != len(_FIELDS):
        return f"expected 5 fields, got {len(fields)}"
    for text, (name, low, high, words) in zip(fields, _FIELDS, strict=True):
        if not all(_fits(part, low, high, words) for part in text.lower().split(",")):
            return f"the {name} is {low}-{high}, got {text}"
    return ""


def _fits(part: str, low: int, high: int, words: tuple[str, ...]) -> bool:
    match = _PART.fullmatch(part)
    if match is None:
        return False
    first, last, every = match.groups()
    if every is not None and not 1 <= int(every) <= high:
        return False
    numbers = [_number(text, low, words) for text in (first, last) if text is not None]
    return all(low <= number <= high for number in numbers) and numbers == sorted(numbers)


def _number(text: str, low: int, words: tuple[str, ...]) -> int:
    """The field's number; -1, which fits nowhere, for what is none."""
    if text in words:
        return words.index(text) + low
    return int(text) if text.isdigit() else -1
