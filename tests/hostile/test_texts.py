"""Whatever a PADL file says, the texts that are made of it are the same program, and messages stay one line of text.

That DAG files are one program, too, is held in tests/airflow/test_bundle.py.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
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


NAMES = {"id", "infra", "hostname", "server", "user", "registry", "conn_id", "queues"}
UNPRINTABLE = tuple(text for text in padls.CORPUS if not text.isprintable())


def everywhere(texts: Sequence[str], below: set[str] | None = None) -> Iterator[tuple[padls.Place, str, bool, str]]:
    """Each text at each place (`below` any of these keys): whether it is taken, and each line that is told."""
    for number, base in enumerate(padls.BASES):
        for place in padls.places(base):
            if below is None or below & set(place[-2:]):
                for text in texts:
                    taken, told = padls.answer(number, place, text)
                    yield from ((place, text, taken, line) for line in told or ("",))


def test_what_is_told_of_a_hostile_text_is_one_line_that_cannot_drive_a_terminal() -> None:
    for line in {line for *_, line in everywhere(UNPRINTABLE)}:
        assert "\n" not in line
        assert line == printable(line)


def test_hostile_texts_do_get_into_files_that_validate() -> None:
    """Or the property above would be about nothing."""
    taken = {text for _, text, takes, _ in everywhere(padls.CORPUS, {"env", "description"}) if takes}
    assert len(taken) > 40
    assert {"$(touch /canary)", "{{ 7*7 }}", "--privileged"} <= taken


def test_only_what_is_never_a_word_may_hold_a_control_character() -> None:
    free = {"description", "test", "pass"}  # shown as text, sent as JSON, read where it is used
    held = {place for place, text, takes, _ in everywhere(UNPRINTABLE) if takes and text != padls.RIGHT_TO_LEFT}
    assert [place for place in held if not free & set(place)] == []


def test_what_becomes_a_word_of_a_command_is_a_name() -> None:
    """Ids, hosts and users: no dash first, no space, no separator; an address of IPv6 has its colons."""
    for place, text, takes, _ in everywhere(padls.CORPUS, NAMES):
        if takes:
            assert re.fullmatch(r"[A-Za-z0-9_:][A-Za-z0-9_.:-]*", text), (place, text)
