"""Releases of tiny units that really run, under a supervisor and in a home of their own."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from packer_lib import build, commands, release
from packer_lib.errors import BuildFailed, Busy, DeployFailed, RollbackFailed
from packer_lib.hosts import Host
from packer_lib.hosts.local import LocalHost
from packer_lib.hosts.lock import hold
from packer_lib.padl.model import Queue
from packer_lib.plan import Plan, Unit
from packer_lib.release import records
from packer_lib.release.forms import form_of
from tests.support import free_port, wait_for
from tests.tiny import Tiny, is_gone, tiny

pytestmark = pytest.mark.native


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tiny]:
    made = tiny(tmp_path, monkeypatch)
    yield made
    made.undeploy()


def test_a_deployed_unit_answers_and_says_what_it_is(here: Tiny) -> None:
    assert here.deploy(here.plan()) == {"double": "create"}
    unit = here.unit()
    assert here.ask(4) == 8
    assert (unit["state"], unit["machine"], unit["reason"]) == ("running", None, "")
    assert unit["models"] == [{"step": "double", "version": "abababababab", "sha256": "ab" * 32}]


def test_deploying_twice_changes_nothing(here: Tiny) -> None:
    here.deploy(here.plan())
    before = here.unit()
    assert here.deploy(here.plan()) == {"double": "nothing"}
    assert here.unit() == before


def test_a_new_bundle_replaces_the_process_on_the_same_port(here: Tiny) -> None:
    here.deploy(here.plan())
    before = here.unit()
    here.told["double"] = {"factor": 2, "new": True}
    assert here.deploy(here.plan()) == {"double": "replace"}
    after = here.unit()
    assert after["endpoint"] == before["endpoint"]
    assert after["release"] != before["release"]
    assert after["pid"] != before["pid"]


def test_a_changed_environment_is_a_new_release(here: Tiny) -> None:
    here.deploy(here.plan(env={"LIMIT": "1"}))
    assert here.deploy(here.plan(env={"LIMIT": "2"})) == {"double": "replace"}
    with urlopen(f"{here.unit()['endpoint']}/env") as response:
        assert json.load(response)["LIMIT"] == "2"


def test_a_unit_has_its_own_environment_and_nothing_of_the_deployer(
    here: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    nasty = "%(here)s % 50% \"double\" 'single' both\"' ; # comment, a=b\nsecond line\ttab ü \\ end "
    monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", "not-yours")
    here.deploy(here.plan(env={"NASTY": nasty, "EMPTY": ""}))
    with urlopen(f"{here.unit()['endpoint']}/env") as response:
        env = json.load(response)
    assert env["NASTY"] == nasty
    assert env["EMPTY"] == ""
    assert "not-yours" not in json.dumps(env)
    assert env["MLPACKER_RELEASE"] == here.unit()["release"]


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ({"factor": 3}, "the golden request of double failed: at [0]: expected 42, got 63"),
        ({"crash": True}, "its process does not stay up"),
        (
            {"waits": "cannot reach mqtt broker localhost:1883"},
            "not ready after 4 s: cannot reach mqtt broker localhost:1883",
        ),
    ],
)
def test_a_release_that_does_not_answer_is_rolled_back(here: Tiny, told: dict[str, object], says: str) -> None:
    here.deploy(here.plan())
    before, kept = here.unit(), here.left()
    here.settings = _impatient(here)
    here.told["double"] = told
    with pytest.raises(DeployFailed, match="rolled back: double: back on") as failed:
        here.deploy(here.plan())
    assert says in failed.value.message
    assert type(failed.value).exit_code == 7
    assert here.ask(5) == 10
    assert here.unit()["release"] == before["release"]
    assert here.left() == kept


def test_the_last_lines_of_the_log_are_in_the_message(here: Tiny) -> None:
    here.told["double"] = {"crash": True}
    with pytest.raises(DeployFailed, match="no such topic: out of luck"):
        here.deploy(here.plan())


def test_a_first_release_that_fails_leaves_nothing(here: Tiny) -> None:
    here.told["double"] = {"crash": True}
    with pytest.raises(DeployFailed, match="removed, there was none before"):
        here.deploy(here.plan())
    assert here.left() == []


def test_all_units_go_back_when_one_fails(here: Tiny) -> None:
    here.deploy(here.plan("one", "two"))
    before = [here.unit("one")["release"], here.unit("two")["release"]]
    here.told = {"one": {"factor": 2, "new": True}, "two": {"factor": 3}}
    with pytest.raises(DeployFailed):
        here.deploy(here.plan("one", "two"))
    assert [here.unit("one")["release"], here.unit("two")["release"]] == before
    assert [here.ask(2, "one"), here.ask(2, "two")] == [4, 4]


def test_only_the_unit_that_changed_is_touched(here: Tiny) -> None:
    here.deploy(here.plan("one", "two"))
    pid = here.unit("one")["pid"]
    here.told = {"two": {"factor": 2, "new": True}}
    assert here.deploy(here.plan("one", "two")) == {"one": "nothing", "two": "replace"}
    assert here.unit("one")["pid"] == pid


def test_a_unit_that_left_the_plan_is_removed(here: Tiny) -> None:
    here.deploy(here.plan("one", "two"))
    assert here.deploy(here.plan("two")) == {"two": "nothing", "one": "remove"}
    assert not [path for path in here.left() if "one" in path]


def test_a_unit_may_take_the_port_of_one_that_leaves(here: Tiny) -> None:
    port = free_port()
    here.deploy(here.plan("one", port=port))
    assert here.deploy(here.plan("two", port=port)) == {"two": "create", "one": "remove"}
    assert here.ask(1, "two") == 2


def test_a_unit_that_leaves_comes_back_when_the_rest_fails(here: Tiny) -> None:
    here.deploy(here.plan("one"))
    here.told["two"] = {"crash": True}
    with pytest.raises(DeployFailed, match="one: back on"):
        here.deploy(here.plan("two"))
    assert here.ask(1, "one") == 2


def test_a_failing_check_switches_nothing(here: Tiny) -> None:
    here.deploy(here.plan())
    before, kept = here.unit(), here.left()
    here.told["double"] = {"check": 1}
    with pytest.raises(BuildFailed, match="looking at the model"):
        here.deploy(here.plan())
    assert here.unit() == before
    assert here.left() == kept


def test_a_taken_port_is_refused_with_its_holder(here: Tiny) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(DeployFailed, match=rf"port {port} .* is taken by process {os.getpid()} \(.*pytest"):
            here.deploy(here.plan(port=port))
    assert here.left() == []


def test_a_killed_process_is_started_again(here: Tiny) -> None:
    here.deploy(here.plan())
    pid = here.unit()["pid"]
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: here.unit()["pid"] not in (0, pid) and here.unit()["state"] == "running", 10, "restart")
    assert here.ask(1) == 2


def test_a_unit_that_was_given_up_starts_again_by_a_deploy(here: Tiny) -> None:
    here.deploy(here.plan())
    LocalHost(here.settings).run(_control(here, "stop", f"tiny~double~{here.unit()['release']}"))
    assert here.unit()["state"] == "stopped"
    assert here.deploy(here.plan()) == {"double": "replace"}
    assert here.ask(1) == 2


def test_units_come_back_after_supervisor_was_shut_down(here: Tiny) -> None:
    here.deploy(here.plan())
    LocalHost(here.settings).run(_control(here, "shutdown"))
    wait_for(lambda: here.unit()["state"] == "stopped", 15, "supervisor's end")
    assert here.deploy(here.plan()) == {"double": "replace"}
    assert here.ask(1) == 2


@pytest.mark.parametrize("then", ["deploy", "undeploy"])
def test_what_a_killed_supervisor_left_behind_is_taken_over(here: Tiny, then: str) -> None:
    here.deploy(here.plan())
    orphan, supervisord = here.unit()["pid"], int((here.settings.home / "supervisord.pid").read_text())
    os.kill(supervisord, signal.SIGKILL)
    wait_for(lambda: here.unit()["state"] == "stopped", 15, "supervisor's end")
    assert not is_gone(orphan)
    if then == "deploy":
        assert here.deploy(here.plan()) == {"double": "replace"}
        assert here.ask(1) == 2
    here.undeploy()
    assert is_gone(orphan)
    assert here.left() == []


def test_an_answer_of_somebody_else_is_no_answer(here: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here.deploy(here.plan())
    port = int(here.unit()["endpoint"].rpartition(":")[2])
    other = tiny(tmp_path / "other", monkeypatch)
    other.told["double"] = {"crash": True}
    plan = other.plan(port=port)
    staged = _staged(other, plan)
    with pytest.raises(DeployFailed):
        release.switch_all({None: LocalHost(other.settings)}, plan, [staged], other.settings, print)
    assert here.ask(1) == 2
    other.undeploy()


def test_a_release_that_dies_after_the_switch_is_taken_back(here: Tiny) -> None:
    plan, fleet = here.plan(port=free_port()), {None: LocalHost(here.settings)}
    here.deploy(plan)
    former = here.unit()["release"]
    here.told["double"] = {"factor": 2, "number": 2}
    staged = _staged(here, plan)
    release.switch_all(fleet, plan, [staged], here.settings, print)
    (here.settings.home / "bundles" / staged.bundle / "service.py").unlink()
    state = form_of(staged).state(fleet[None], staged.pipeline, staged.unit, staged.id)
    os.kill(state.pid, signal.SIGKILL)
    with pytest.raises(DeployFailed, match="its process does not stay up"):
        release.verify_all(fleet, plan, [staged], here.settings, print)
    assert here.unit()["release"] == former
    assert here.ask(1) == 2


def test_undeploy_leaves_nothing(here: Tiny) -> None:
    here.deploy(here.plan("one", "two"))
    ports = [int(here.unit(name)["endpoint"].rpartition(":")[2]) for name in ("one", "two")]
    here.undeploy()
    assert here.left() == []
    for port in ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
    wait_for(lambda: not (here.settings.home / "supervisord.pid").exists(), 10, "supervisor's end")


def test_undeploying_what_is_not_there_does_nothing(here: Tiny) -> None:
    assert release.undeploy("nobody", here.settings) == []


def test_only_some_releases_are_kept_and_no_bundle_without_one(here: Tiny) -> None:
    for number in range(5):
        here.told["double"] = {"factor": 2, "number": number}
        here.deploy(here.plan())
    kept = records.read(LocalHost(here.settings), "tiny").of("double")
    assert len(kept) == here.settings.keep_releases == 3
    bundles = {path.name for path in (here.settings.home / "bundles").iterdir() if path.is_dir()}
    assert bundles == {one.bundle for one in kept}


def test_a_dry_run_says_what_it_would_do_and_does_nothing(here: Tiny) -> None:
    assert here.deploy(here.plan(), dry_run=True) == {"double": "create"}
    assert here.left() == []
    here.deploy(here.plan("one", "two"))
    kept = here.left()
    here.told["two"] = {"factor": 4}
    assert here.deploy(here.plan("two", "new"), dry_run=True) == {"two": "replace", "new": "create", "one": "remove"}
    assert here.left() == kept


def test_files_that_hold_secrets_are_for_their_owner_only(here: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROKER_PASSWORD", "hunter2-sentinel")
    plan = _with_queue(here.plan(), {"pass_env": "BROKER_PASSWORD"})
    here.deploy(plan)
    holders = [path for path in here.settings.home.rglob("*") if path.is_file() and b"hunter2" in path.read_bytes()]
    assert [path.name for path in holders] == ["launch.json"]
    assert holders[0].stat().st_mode & 0o077 == 0
    assert "hunter2" not in "".join(here.said) + json.dumps(here.unit())
    commands = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert not any(b"hunter2" in command for command in commands)
    monkeypatch.setenv("BROKER_PASSWORD", "hunter3-sentinel")
    assert here.deploy(plan) == {"double": "replace"}


def test_a_secret_that_is_not_set_is_named(here: Tiny) -> None:
    with pytest.raises(DeployFailed, match=r"not set in the environment: NOT_SET_ANYWHERE \(queue q\)"):
        here.deploy(_with_queue(here.plan(), {"pass_env": "NOT_SET_ANYWHERE"}))
    assert here.left() == []


def test_two_deploys_at_once_are_kept_apart(here: Tiny) -> None:
    with (
        hold(LocalHost(here.settings), here.layout, "tiny", "deploy manual__1"),
        pytest.raises(Busy, match=rf"process {os.getpid()}\) since .*: deploy manual__1"),
    ):
        here.deploy(here.plan())


def test_a_way_back_that_fails_says_so(here: Tiny) -> None:
    here.deploy(_stream(here.plan()))
    launch = next(here.settings.home.glob("releases/tiny/double/history/*/launch.json"))
    here.told["double"] = {"factor": 2, "waits": "a broker that is not there"}
    here.settings = _impatient(here)
    launch.unlink()
    with pytest.raises(RollbackFailed, match="the way back failed") as failed:
        here.deploy(_stream(here.plan()))
    assert type(failed.value).exit_code == 8


def _staged(here: Tiny, plan: Plan) -> release.Release:
    """A release whose port was free when it was staged."""
    host = LocalHost(here.settings)
    fleet: dict[str | None, Host] = {None: host}
    with here.bundled(plan, plan.units[0], here.settings) as bundle:
        environment = build.environment(host, bundle, here.settings)
        free = replace(plan, units=(replace(plan.units[0], port=None),))
        staged = release.stage(fleet, free, free.units[0], bundle, environment, here.settings)
    launch = Path(here.layout.history("tiny", "double", staged.id), "launch.json")
    launch.write_text(launch.read_text().replace(str(staged.port), str(plan.units[0].port)))
    return replace(staged, port=plan.units[0].port or 0)


def _impatient(here: Tiny) -> Any:
    return replace(here.settings, ready_timeout=4.0)


def _stream(plan: Plan) -> Plan:
    """The same as a stream: without a door, one release after the other."""
    return replace(plan, package_mode="stream")


def _with_queue(plan: Plan, options: dict[str, Any]) -> Plan:
    unit: Unit = replace(plan.units[0], sources=("q",))
    return replace(plan, units=(unit,), queues=(Queue("q", "mqtt", "localhost", 1883, "t", options),))


def _control(here: Tiny, *words: str) -> tuple[str, ...]:
    return commands.supervisorctl(sys.executable, here.layout.supervisord, *words)
