"""Every golden file says what is written beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.padl import golden


@pytest.mark.parametrize("path", golden.INVALID, ids=lambda path: path.name)
def test_an_invalid_file_gets_exactly_its_message(path: Path) -> None:
    told = golden.message(path)
    assert told, f"{path.name} is not invalid"
    assert told == golden.expected(path).read_text(encoding="utf-8")


@pytest.mark.parametrize("path", golden.VALID, ids=lambda path: path.parent.name)
def test_a_valid_file_gives_its_plan_and_its_warnings(path: Path) -> None:
    pipeline = golden.read(path)
    assert golden.plan_text(pipeline) == path.with_name("plan.json").read_text(encoding="utf-8")
    warnings = path.with_name("warnings.txt")
    assert golden.warnings_text(pipeline) == (warnings.read_text(encoding="utf-8") if warnings.exists() else "")


def test_there_are_enough_cases_and_none_expects_what_is_gone() -> None:
    assert len(golden.INVALID) >= 60
    assert len(golden.VALID) >= 10
    assert {golden.expected(path) for path in golden.INVALID} == set((golden.GOLDEN / "invalid").glob("*.expected"))


@pytest.mark.parametrize("path", golden.INVALID, ids=lambda path: path.name)
def test_no_message_is_the_validators_own_or_shows_a_secret(path: Path) -> None:
    told = golden.message(path)
    assert "is not valid under any of the given schemas" not in told
    assert "hunter2" not in told
    assert all(char.isprintable() or char == "\n" for char in told)
