"""The schema of a queue in a file of its own: where it may be, what is wrong with it and in which line."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from packer_lib import artefacts
from packer_lib.errors import BuildFailed, MLPackerError, PolicyRefused, Problem
from packer_lib.plan import Plan
from tests.artefacts import cases


def planned(folder: Path, schema: str) -> Plan:
    cases.write_code(folder)
    plan = cases.plan(folder, cases.code())
    file = Path(plan.file)
    file.write_text(json.dumps({**json.loads(file.read_text()), "queues": {"q1": {"schema": schema}}}, indent=2))
    queues = tuple(replace(queue, schema=schema) if queue.id == "q1" else queue for queue in plan.queues)
    return replace(plan, queues=queues)


def only(plan: Plan, folder: Path) -> Problem:
    (problem,) = artefacts.check(plan, cases.settings(folder))
    return problem


def fetched(plan: Plan, folder: Path) -> artefacts.Artefact:
    return artefacts.fetch(plan, plan.units[0], cases.settings(folder))[-1]


def test_it_is_in_the_store_under_what_it_says_however_it_is_written(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("type: array\nitems: {type: number}\n")
    (tmp_path / "b.json").write_text('{"items": {"type": "number"}, "type": "array"}')
    one, other = (fetched(planned(tmp_path, name), tmp_path) for name in ("a.yaml", "b.json"))
    assert artefacts.check(planned(tmp_path, "a.yaml"), cases.settings(tmp_path)) == []
    assert (one.step, one.kind, one.path, one.digest) == ("q1", "schema", other.path, other.digest)
    assert json.loads(one.path.read_text()) == {"type": "array", "items": {"type": "number"}}


def test_a_root_of_the_installation_may_hold_it(tmp_path: Path) -> None:
    root, home = tmp_path / "shared", tmp_path / "pipelines"
    root.mkdir()
    home.mkdir()
    (root / "a.json").write_text("{}")
    plan = planned(home, str(root / "a.json"))
    assert only(plan, tmp_path).level == "refused"
    assert artefacts.check(plan, cases.settings(tmp_path, model_roots=(root,))) == []


@pytest.mark.parametrize("written", ["../secret.json", "/etc/passwd", "link.json", "folder/secret.json"])
def test_outside_of_the_roots_nothing_is_read(tmp_path: Path, written: str) -> None:
    home = tmp_path / "pipelines"
    home.mkdir()
    (tmp_path / "secret.json").write_text("{}")
    (home / "link.json").symlink_to(tmp_path / "secret.json")
    (home / "folder").symlink_to(tmp_path)
    plan = planned(home, written)
    problem = only(plan, tmp_path)
    assert (problem.level, problem.path) == ("refused", "queues.q1.schema")
    assert json.loads(Path(plan.file).read_text().splitlines()[problem.line - 1].split(": ")[1]) == written
    with pytest.raises(PolicyRefused, match="queue 'q1'"):
        fetched(plan, tmp_path)


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("type: array\nitems:\n  type: nunber\n", 3, "items.type: not what 'type' of a JSON Schema may be"),
        ("items:\n  $ref: https://example.org/a.json\n", 2, "items.$ref: a reference that leads out of this schema"),
        ("a: 1\na: 2\n", 2, "this key is here twice"),
        ("- 1\n", 1, "expected an object"),
        ("a: &x 1\nb: *x\n", 1, "anchors"),
        ("a: !!python/object:os.system 1\n", 1, "tag"),
        ("", 1, "the file is empty"),
    ],
)
def test_what_is_wrong_in_it_is_told_at_its_line(tmp_path: Path, text: str, line: int, message: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    plan = planned(tmp_path, "a.yaml")
    problem = only(plan, tmp_path)
    assert (problem.file, problem.line) == ("a.yaml", line)
    assert message in problem.message
    with pytest.raises(BuildFailed, match=rf"a\.yaml:{line}: queue 'q1': "):
        fetched(plan, tmp_path)


@pytest.mark.parametrize("kind", ["missing", "folder", "pipe", "large", "latin-1"])
def test_only_a_plain_file_of_text_is_one(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "a.json"
    if kind == "folder":
        place.mkdir()
    elif kind == "pipe":
        os.mkfifo(place)
    elif kind == "large":
        place.write_text('"' + "x" * (1 << 20) + '"')
    elif kind == "latin-1":
        place.write_bytes('{"title": "ä"}'.encode("latin-1"))
    plan = planned(tmp_path, "a.json")
    assert only(plan, tmp_path).path in ("queues.q1.schema", "")
    with pytest.raises(MLPackerError):
        fetched(plan, tmp_path)


def test_a_queue_that_the_unit_only_writes_is_not_fetched(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{}")
    plan = planned(tmp_path, "a.json")
    unit = replace(plan.units[0], sources=("q2",), sinks=("q1",))
    assert [one.kind for one in artefacts.fetch(plan, unit, cases.settings(tmp_path))] == ["code"]
