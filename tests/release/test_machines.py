"""Several machines, all or nothing: each is a home of its own on this one, and can be out of reach."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from packer_lib import kept, release, status
from packer_lib.errors import Busy, DeployFailed
from packer_lib.hosts import Host, Result, Unreachable
from packer_lib.hosts.layout import Layout
from packer_lib.hosts.local import LocalHost
from packer_lib.hosts.lock import hold
from packer_lib.padl.model import Machine
from packer_lib.plan import Plan
from packer_lib.release.rollback import NoWayBack
from packer_lib.settings import Settings
from tests.tiny import Tiny, tiny

pytestmark = pytest.mark.native


class Another(LocalHost):
    """Another machine, as far as a release can tell; `silent` once it cannot be reached any more."""

    def __init__(self, settings: Settings, machine: str) -> None:
        super().__init__(replace(settings, home=settings.home.with_name(machine)))
        self.machine = machine
        self.name = machine
        self.silent = False
        self.ends_after = -1

    def _reach(self) -> None:
        self.ends_after -= 1
        if self.silent or self.ends_after == 0:
            self.silent = True
            raise Unreachable(f"{self.name} cannot be reached")

    def run(self, *args: Any, **kwargs: Any) -> Result:
        self._reach()
        return super().run(*args, **kwargs)

    def put(self, *args: Any, **kwargs: Any) -> None:
        self._reach()
        super().put(*args, **kwargs)


class Fleet:
    """This machine and three others."""

    def __init__(self, here: Tiny) -> None:
        self.here = here
        self.others = {name: Another(here.settings, name) for name in ("m1", "m2", "m3")}
        self.hosts: dict[str | None, Host] = {None: LocalHost(here.settings)}
        self.hosts.update(self.others)

    def __getitem__(self, machine: str | None, /) -> Host:
        host = self.hosts[machine]
        if isinstance(host, Another):
            host._reach()
        return host

    def plan(self, **where: str) -> Plan:
        """Units on machines."""
        made = self.here.plan(*where)
        units = tuple(replace(unit, machine=where[unit.name]) for unit in made.units)
        machines = tuple(Machine(name, "127.0.0.1") for name in sorted(set(where.values())))
        return replace(made, units=units, machines=machines, deploy_mode="remote")

    def deploy(self, plan: Plan) -> dict[str, tuple[str, str | None]]:
        return {unit: (action, machine) for unit, action, machine in self.done(plan)}

    def done(self, plan: Plan) -> set[tuple[str, str, str | None]]:
        """By a deploy: units, actions and machines."""
        done = release.deploy(plan, self.here.settings, progress=self.here.said.append, fleet=self)
        return {(unit.unit, unit.action, unit.machine) for unit in done}

    def units(self) -> dict[str, dict[str, Any]]:
        return {unit["name"]: unit for unit in status.status(self.here.settings, "tiny", self)[0]["units"]}

    def answers(self) -> dict[str, tuple[str, Any]]:
        """Unit → (release, what it makes of 2)."""
        return {name: (unit["release"], _ask(unit["endpoint"], 2)) for name, unit in self.units().items()}

    def left(self) -> list[str]:
        """All that is on these machines, but what is shared by all pipelines."""
        kinds = ("bundles", "conf.d", "doors", "envs", "releases", "state", "locks", "pipelines")
        homes = [Path(host.home) for host in self.hosts.values()]
        return sorted(str(path) for home in homes for kind in kinds for path in (home / kind).glob("*"))

    def heal(self) -> None:
        for other in self.others.values():
            other.silent, other.ends_after = False, -1


def _ask(endpoint: str, value: float) -> Any:
    with urlopen(f"{endpoint}/predict", json.dumps({"data": [value]}).encode(), timeout=10) as response:
        return json.load(response)["predictions"][0]


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fleet]:
    here = tiny(tmp_path, monkeypatch)
    here.settings = replace(here.settings, remote_bind="127.0.0.1", ready_timeout=15.0)
    monkeypatch.setattr(sys.modules["packer_lib.release.deploy"], "preflight", lambda *_: None)
    monkeypatch.setattr("packer_lib.build.equip", lambda *_: None)
    monkeypatch.setattr("packer_lib.hosts.boot.enable", lambda *_: "")
    monkeypatch.setattr("packer_lib.hosts.boot.disable", lambda *_: None)
    monkeypatch.setattr("packer_lib.release.ports._free", _any_port)
    made = Fleet(here)
    yield made
    made.heal()
    release.undeploy("tiny", here.settings, progress=here.said.append, fleet=made)
    assert made.left() == []


def _any_port(*_: Any) -> int:
    """The machines of these tests share their ports, which machines do not."""
    from tests.support import free_port

    return free_port()


def test_units_go_live_on_their_machines_and_a_second_deploy_changes_nothing(fleet: Fleet) -> None:
    plan = fleet.plan(one="m1", two="m2")
    assert fleet.deploy(plan) == {"one": ("create", "m1"), "two": ("create", "m2")}
    before = fleet.units()
    assert {name: unit["machine"] for name, unit in before.items()} == {"one": "m1", "two": "m2"}
    assert fleet.deploy(plan) == {"one": ("nothing", "m1"), "two": ("nothing", "m2")}
    assert fleet.units() == before


def test_one_that_fails_takes_all_machines_back(fleet: Fleet) -> None:
    plan = fleet.plan(one="m1", two="m2", three="m3")
    fleet.deploy(plan)
    before = fleet.answers()
    fleet.here.told = {"one": {"factor": 2, "new": 1}, "two": {"factor": 3}, "three": {"factor": 2, "new": 1}}
    with pytest.raises(DeployFailed) as failed:
        fleet.deploy(plan)
    assert fleet.answers() == before
    for machine, unit in (("m1", "one"), ("m2", "two"), ("m3", "three")):
        assert f"\n  {machine}  {unit}: back on {before[unit][0]}" in failed.value.message


def test_a_machine_that_is_lost_on_the_way_leaves_all_others_as_they_were(fleet: Fleet) -> None:
    plan = fleet.plan(one="m1", two="m2", three="m3")
    fleet.deploy(plan)
    for operations in (1, 5, 12, 20, 26, 32):
        before = fleet.answers()
        fleet.here.told = {name: {"factor": 2, "new": operations} for name in ("one", "two", "three")}
        fleet.others["m2"].ends_after = operations
        with pytest.raises(DeployFailed, match="m2"):
            fleet.deploy(plan)
        fleet.others["m2"].silent = True
        states = {name: (unit["machine"], unit["state"]) for name, unit in fleet.units().items()}
        assert states == {"one": ("m1", "running"), "two": ("m2", "unreachable"), "three": ("m3", "running")}
        fleet.heal()
        assert fleet.answers() == before, operations
        actions = fleet.deploy(plan)
        assert {action for action, _ in actions.values()} == {"replace"}, operations
        assert all(now != before[unit][0] for unit, (now, _) in fleet.answers().items())


def test_a_unit_that_moves_is_gone_where_it_was(fleet: Fleet) -> None:
    fleet.deploy(fleet.plan(one="m1", two="m2"))
    moved = fleet.done(fleet.plan(one="m2", two="m2"))
    assert moved == {("one", "create", "m2"), ("two", "nothing", "m2"), ("one", "remove", "m1")}
    assert fleet.units()["one"]["machine"] == "m2"
    assert not [path for path in fleet.left() if "/m1/" in path]
    assert {place.machine.id for place in kept.read("tiny", fleet.here.settings).machines} == {"m2"}


def test_going_back_is_a_generation_over_all_machines(fleet: Fleet) -> None:
    plan = fleet.plan(one="m1", two="m2")
    fleet.deploy(plan)
    first = fleet.answers()
    with pytest.raises(NoWayBack, match="nothing was live before"):
        release.rollback("tiny", fleet.here.settings, fleet=fleet)
    fleet.here.told = {"two": {"factor": 2, "new": 1}}
    fleet.deploy(plan)
    second = fleet.answers()
    assert first["one"] == second["one"]
    assert first["two"] != second["two"]
    done = release.rollback("tiny", fleet.here.settings, progress=fleet.here.said.append, fleet=fleet)
    assert {unit.unit: unit.action for unit in done} == {"one": "nothing", "two": "replace"}
    assert fleet.answers() == first
    release.rollback("tiny", fleet.here.settings, second["two"][0], progress=fleet.here.said.append, fleet=fleet)
    assert fleet.answers() == second
    with pytest.raises(NoWayBack, match="no release 'nonsense' was live") as none:
        release.rollback("tiny", fleet.here.settings, "nonsense", fleet=fleet)
    assert second["two"][0] in none.value.hint


def test_going_back_to_what_a_machine_no_longer_has_says_what_there_is(fleet: Fleet) -> None:
    plan = fleet.plan(one="m1")
    fleet.here.settings = replace(fleet.here.settings, keep_releases=1)
    fleet.deploy(plan)
    before = fleet.answers()["one"][0]
    fleet.here.told = {"one": {"factor": 2, "new": 1}}
    fleet.deploy(plan)
    with pytest.raises(NoWayBack, match=f"one {before} is no longer on m1"):
        release.rollback("tiny", fleet.here.settings, fleet=fleet)


def test_a_lock_on_any_machine_keeps_a_deploy_out_and_leaves_no_other(fleet: Fleet) -> None:
    plan = fleet.plan(one="m1", two="m2")
    fleet.deploy(plan)
    host = fleet["m2"]
    with hold(host, Layout(host.home), "tiny", "deploy manual__1"), pytest.raises(Busy, match="deploy manual__1"):
        fleet.deploy(plan)
    assert not [path for path in fleet.left() if "/locks/" in path]


def test_undeploy_says_which_machine_it_could_not_reach_and_finishes_later(fleet: Fleet) -> None:
    fleet.deploy(fleet.plan(one="m1", two="m2"))
    fleet.others["m2"].silent = True
    with pytest.raises(DeployFailed, match="m2 cannot be reached"):
        release.undeploy("tiny", fleet.here.settings, progress=fleet.here.said.append, fleet=fleet)
    fleet.heal()
    assert not [path for path in fleet.left() if "/m1/" in path]
    assert [path for path in fleet.left() if "/m2/" in path]
    assert release.undeploy("tiny", fleet.here.settings, progress=fleet.here.said.append, fleet=fleet) == ["two"]
    assert fleet.left() == []


def test_a_machine_that_left_the_plan_for_good_does_not_stand_in_the_way(fleet: Fleet) -> None:
    fleet.deploy(fleet.plan(one="m1", two="m2"))
    fleet.others["m2"].silent = True
    assert fleet.deploy(fleet.plan(one="m1")) == {"one": ("nothing", "m1")}
    assert any("m2 is no longer in the plan and cannot be reached" in line for line in fleet.here.said)
    fleet.heal()
    assert fleet.deploy(fleet.plan(one="m1")) == {"one": ("nothing", "m1"), "two": ("remove", "m2")}


def test_every_machine_has_a_line_of_what_was_done_to_it(fleet: Fleet) -> None:
    fleet.deploy(fleet.plan(one="m1", two="m2"))
    for machine, unit in (("m1", "one"), ("m2", "two")):
        (line,) = Path(fleet[machine].home, "audit.log").read_text().splitlines()
        note = json.loads(line)
        assert (note["pipeline"], note["what"], list(note["units"])) == ("tiny", "live", [unit])
