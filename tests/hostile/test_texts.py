"""Whatever a PADL file says, the texts that are made of it are the same program, and messages stay one line of text.

That DAG files are one program, too, is held in tests/airflow/test_bundle.py.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Any

from hypothesis import given, settings

from packer_lib.bundle import render
from packer_lib.errors import printable
from packer_lib.plan import Plan, plan
from tests.hostile import padls

FEW = settings(max_examples=40, deadline=None)


def instructions(dockerfile: str) -> list[str]:
    """The instructions of a Dockerfile as its parser joins their lines."""
    lines = [line for line in dockerfile.split("\n") if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\[ \t]*\n", " ", "\n".join(lines))
    return [" ".join(line.split()) for line in joined.split("\n") if line.strip()]


def programs(made: Plan) -> dict[object, dict[str, object]]:
    """What each unit's generated files say, by what kind of unit it is."""
    found: dict[object, dict[str, object]] = {}
    for unit in made.units:
        kinds = frozenset(step.kind for step in unit.steps)
        found[made.package_mode, kinds] = {
            name: instructions(text) if name == "Dockerfile" else ast.dump(ast.parse(text))
            for name, text in render.texts(made.package_mode, kinds).items()
        }
    return found


HARMLESS = {kind: program for base in padls.BASES for kind, program in programs(plan(padls.pipeline(base))).items()}


@given(padls.documents())
@FEW
def test_no_file_changes_the_dockerfile_or_the_program_of_its_kind(document: dict[str, Any]) -> None:
    for kind, program in programs(plan(padls.pipeline(document))).items():
        assert program == HARMLESS[kind]


def every() -> Iterator[tuple[padls.Place, str, bool, tuple[str, ...]]]:
    """Every text of the corpus at every place: whether it is taken, and what is told."""
    for number, base in enumerate(padls.BASES):
        for place in padls.places(base):
            yield from ((place, text, *padls.answer(number, place, text)) for text in padls.CORPUS)


def taken() -> list[tuple[padls.Place, str]]:
    return [(place, text) for place, text, takes, _ in every() if takes]


def test_what_is_told_of_a_hostile_text_is_one_line_that_cannot_drive_a_terminal() -> None:
    for line in {line for *_, told in every() for line in told}:
        assert "\n" not in line
        assert line == printable(line)


def test_hostile_texts_do_get_into_files_that_validate() -> None:
    """Or the property above would be about nothing."""
    assert len({text for place, text in taken() if "env" in place}) > 20
    assert {"$(touch /canary)", "{{ 7*7 }}", "--privileged"} <= {text for _, text in taken()}


def test_only_what_is_never_a_word_may_hold_a_control_character() -> None:
    free = ("description", "test")  # shown as text, sent as JSON
    held = {place for place, text in taken() if re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", text)}
    assert {next((name for name in place if name in (*free, "pass")), place) for place in held} <= {*free, "pass"}


def test_what_becomes_a_word_of_a_command_is_a_name() -> None:
    """Ids, hosts and users: no dash first, no space, no separator; an address of IPv6 has its colons."""
    for place, text in taken():
        if place[-1] in ("id", "infra", "hostname", "server", "user", "registry", "conn_id") or "queues" in place[-2:]:
            assert re.fullmatch(r"[A-Za-z0-9_:][A-Za-z0-9_.:-]*", text), (place, text)
