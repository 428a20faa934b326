"""Pipeline → Plan: the paper's listings, what holds for every pipeline, and that a plan is data."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from packer_lib import padl
from packer_lib.errors import PadlInvalid
from packer_lib.padl.model import NO_LIMITS, Resources
from packer_lib.plan import Plan, from_dict, plan, summary, to_dict
from tests.padl import golden
from tests.support import SHARED

LISTINGS = SHARED / "padl"


def listing(name: str) -> Path:
    if not LISTINGS.is_dir():
        pytest.skip(f"the paper's listings are not beside the checkout, in {LISTINGS.parent.name}/{LISTINGS.name}")
    return LISTINGS / name


def test_listing_1_gives_three_units_on_three_machines() -> None:
    units = summary(plan(padl.read(listing("listing1.json"))))["units"]
    assert [(unit["name"], unit["machine"], unit["sources"], unit["sinks"]) for unit in units] == [
        ("preparation", "m1", ["q1"], ["q2"]),
        ("lstm", "m2", ["q2"], ["q3"]),
        ("outliers_filter", "m3", ["q3"], ["q4"]),
    ]


def test_listing_2_gives_one_rest_unit() -> None:
    made = summary(plan(padl.read(listing("listing2_full.json"))))
    assert made["mode"] == "api-remote-container"
    assert [(unit["steps"], unit["machine"]) for unit in made["units"]] == [(["lstm"], "m1")]


def test_listing_3_gives_one_unit_of_three_steps() -> None:
    (unit,) = summary(plan(padl.read(listing("listing3_full.json"))))["units"]
    assert unit["steps"] == ["preparation", "lstm", "outliers_filter"]
    assert (unit["machine"], unit["sources"], unit["sinks"], unit["links"]) == ("m2", ["q3"], ["q4"], [])


@pytest.mark.parametrize(
    ("name", "missed"),
    [
        ("listing2_excerpt.json", ["no machine is called 'm1' (the file has no \"infra\" section)"]),
        (
            "listing3_excerpt.json",
            [
                "missing 'version'",
                "missing 'id'",
                "missing 'type'",
                "missing 'props'",
                'the file has no "queues" section',
            ],
        ),
    ],
)
def test_an_excerpt_is_answered_with_what_is_missing(name: str, missed: list[str]) -> None:
    with pytest.raises(PadlInvalid) as caught:
        padl.read(listing(name))
    assert [text for text in missed if text not in str(caught.value)] == []


@pytest.mark.parametrize("path", golden.VALID, ids=lambda path: path.parent.name)
def test_a_plan_survives_its_way_through_json(path: Path) -> None:
    made = plan(padl.read(path))
    assert from_dict(json.loads(json.dumps(to_dict(made)))) == made


def test_what_is_no_plan_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError):
        from_dict({"pipeline": 7})


def test_a_unit_has_the_port_and_the_replicas_that_its_step_asks_for() -> None:
    made = plan(golden.read(golden.GOLDEN / "valid" / "everything-of-1.1" / "pipeline.yaml"))
    unit = made.unit("clean")
    assert (unit.port, unit.replicas) == (8081, 2)
    assert made.queue("failed").topic == "/failed"
    with pytest.raises(KeyError):
        made.unit("model")


def test_a_unit_has_the_limits_of_its_step_and_may_be_called_again_only_if_all_its_steps_may() -> None:
    made = plan(golden.read(golden.GOLDEN / "valid" / "api-links-between-containers" / "pipeline.yaml"))
    assert (made.registry, made.link_timeout, made.link_retries) == ("none", 2.5, 4)
    clean, model = made.unit("clean"), made.unit("model")
    assert (clean.links, clean.idempotent, clean.resources) == (("model",), True, Resources("256m"))
    assert [step.name for step in model.steps] == ["model", "limit"]
    assert (model.idempotent, model.resources) == (False, Resources("512m", 0.5)), "code is not, unless it says so"
    assert made.machines[0].install == ("docker",)


def test_what_a_file_does_not_say_is_as_the_installation_says_or_safe() -> None:
    made = plan(golden.read(golden.GOLDEN / "valid" / "api-chain-on-two-machines" / "pipeline.yaml"))
    assert (made.registry, made.link_timeout, made.link_retries) == (None, 10.0, 2)
    assert [(unit.name, unit.idempotent, unit.resources) for unit in made.units] == [
        ("model", True, NO_LIMITS),
        ("clean", False, NO_LIMITS),
    ]


def test_local_units_have_no_machine_and_remote_ones_have() -> None:
    local = golden.GOLDEN / "valid" / "local-with-machines" / "pipeline.yaml"
    remote = golden.GOLDEN / "valid" / "stream-chain-in-one-process" / "pipeline.yaml"
    assert [unit.machine for path in (local, remote) for unit in plan(golden.read(path)).units] == [None, "edge"]


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """Valid lines of steps in any order of the file, joined by queues or links, on machines or not."""
    count = draw(st.integers(1, 5))
    names = draw(st.permutations([f"s{number}" for number in range(count)]))
    api, remote = draw(st.booleans()), draw(st.booleans())
    linked = [api or draw(st.booleans()) for _ in range(count - 1)]
    machines = [draw(st.sampled_from(["m1", "m2"]))]
    for link in linked:
        machines.append(machines[-1] if link and not api else draw(st.sampled_from(["m1", "m2"])))
    steps = {}
    for place in draw(st.permutations(range(count))):
        before = (names[place - 1] if linked[place - 1] else f"q{place}") if place else None if api else "q0"
        last = place == count - 1
        after = (None if api else f"q{count}") if last else names[place + 1] if linked[place] else f"q{place + 1}"
        queues = {side: name for side, name in (("input", before), ("output", after)) if name}
        step = {"type": "code", "language": "python", "props": {"path": "./x"}, "queues": queues}
        steps[names[place]] = {**step, "infra": machines[place]} if remote else step
    used = {name for step in steps.values() for name in step["queues"].values() if name.startswith("q")}
    return {
        "version": draw(st.sampled_from(["1.0", "1.1"])),
        "id": "p",
        "containerized": draw(st.booleans()),
        "package-mode": "api" if api else "stream",
        "deploy-mode": "remote" if remote else "local",
        "pipeline": steps,
        "queues": {name: {"connector": "mqtt", "props": {"server": "b", "topic": name}} for name in sorted(used)},
        "infra": {name: {"hostname": name} for name in ("m1", "m2")},
    }


def planned(document: dict[str, Any]) -> Plan:
    return plan(padl.read_text(json.dumps(document), "p.json"))


@given(documents())
def test_every_step_is_in_one_unit_on_its_machine(document: dict[str, Any]) -> None:
    made = planned(document)
    assert sorted(step.name for unit in made.units for step in unit.steps) == sorted(document["pipeline"])
    for unit in made.units:
        assert unit.name == unit.steps[0].name
        assert {document["pipeline"][step.name].get("infra") for step in unit.steps} == {unit.machine}


@given(documents())
def test_steps_run_after_those_they_read_from_and_consumers_are_deployed_first(document: dict[str, Any]) -> None:
    made = planned(document)
    place = {
        step.name: (number, index) for number, unit in enumerate(made.units) for index, step in enumerate(unit.steps)
    }
    writers = {name: step for step, node in document["pipeline"].items() for name in [node["queues"].get("output")]}
    for name, node in document["pipeline"].items():
        source = node["queues"].get("input", "")
        former = source if source in place else writers.get(source)
        if former:
            unit, index = place[name]
            other, before = place[former]
            assert other > unit or (other == unit and before < index)


@given(documents())
def test_a_plan_is_the_same_whatever_way_it_is_read(document: dict[str, Any]) -> None:
    made = planned(document)
    assert planned(document) == made
    assert from_dict(json.loads(json.dumps(to_dict(made)))) == made
    flow = [unit["name"] for unit in summary(made)["units"]]
    assert flow == summary(made)["deploy_order"][::-1]


def test_reading_and_planning_import_nothing_heavy() -> None:
    path = golden.GOLDEN / "valid" / "stream-distributed-1.0" / "pipeline.json"
    code = (
        "import sys; from pathlib import Path; from packer_lib import padl; from packer_lib.plan import plan, summary\n"
        f"summary(plan(padl.read(Path({str(path)!r}))))\n"
        "heavy = {'airflow', 'numpy', 'pydantic', 'requests', 'yaml', 'jinja2', 'msgspec'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
