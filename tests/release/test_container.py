"""Units as containers on the lab's engines: the run profile, the door, two releases side by side, what is left."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

from packer_lib import commands, images
from packer_lib.bundle import Bundle
from packer_lib.errors import DeployFailed
from packer_lib.hosts.home import must, prepare, put_text
from packer_lib.hosts.layout import Layout
from packer_lib.hosts.local import LocalHost
from packer_lib.images import names
from packer_lib.padl.model import PackageMode
from packer_lib.release import prune
from packer_lib.release.container import Container
from packer_lib.release.forms import Launch
from packer_lib.release.inside import hosts_in
from packer_lib.release.model import Release
from tests.images import cases
from tests.support import free_port, wait_for

FORM = Container()
PIPELINE = "c-form"
HOSTS_FILE = """127.0.0.1 localhost self   # this machine
::1 six
10.1.2.3  broker broker.example
# 10.9.9.9 commented
10.4.4.4 broker
"""


def test_names_of_the_machines_own_hosts_file() -> None:
    wanted = ("broker", "self", "six", "localhost", "commented", "elsewhere", "broker")
    expected = (("broker", "10.1.2.3"), ("self", "host-gateway"), ("six", "host-gateway"))
    assert hosts_in(HOSTS_FILE, wanted) == expected
    assert hosts_in("", wanted) == ()


@dataclass
class Place:
    """One pipeline on this machine's engine; `release` stages what a deploy would."""

    folder: Path
    host: LocalHost
    settings: Any
    made: dict[str, tuple[Bundle, images.Image]]

    def image(self, mode: PackageMode = "api", answer: str = "return value") -> tuple[Bundle, images.Image]:
        key = f"{mode}: {answer}"
        if key not in self.made:
            plan = cases.plan(self.folder, PIPELINE, mode, code=True)
            bundle = cases.bundle(self.folder, plan, self.settings, answer=answer)
            self.made[key] = bundle, images.build(bundle, plan, plan.units[0], self.settings)
        return self.made[key]

    def release(
        self, identity: str, port: int, answer: str = "return value", mode: PackageMode = "api", **launch: Any
    ) -> Release:
        bundle, image = self.image(mode, answer)
        release = Release(PIPELINE, "model", identity * 12, bundle.digest, bundle.lock_digest, mode, "127.0.0.1", port)
        release = replace(release, form="container", image=image.reference, run="run 1")
        folder = Layout(self.host.home).history(PIPELINE, "model", release.id)
        must(self.host, commands.make_folders(folder))
        put_text(self.host, Launch(**launch).to_json(), f"{folder}/launch.json")
        FORM.create(self.host, release, Launch(**launch))
        return release

    def live(self, release: Release) -> None:
        FORM.start(self.host, release)
        wait_for(lambda: status(f"{FORM.private(self.host, release)}/readyz") == 200, 60, "ready")
        answer = FORM.door(self.host, release, "switch", release.id)
        assert answer.get("holding") == release.id, answer

    def inspect(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(cases.docker("container", "inspect", name))[0]
        return found

    def end(self) -> None:
        for release in FORM.started(self.host, PIPELINE, "model"):
            FORM.stop(self.host, PIPELINE, "model", release)
        FORM.close_door(self.host, PIPELINE, "model")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("containers")
    settings = cases.settings(folder, registry=False)
    host = LocalHost(settings)
    prepare(host, Layout(host.home))
    yield Place(folder, host, settings, {})
    cases.clear(PIPELINE)


@pytest.fixture
def here(shared: Place) -> Iterator[Place]:
    yield shared
    shared.end()


def status(url: str) -> int:
    try:
        with urlopen(url, timeout=5) as answer:
            return int(answer.status)
    except (OSError, ValueError):  # ValueError: it has no address yet
        return 0


def ask(release: Release, value: object) -> Any:
    body = json.dumps({"data": [value]}).encode()
    with urlopen(
        Request(f"{release.endpoint}/predict", body, {"Content-Type": "application/json"}), timeout=10
    ) as said:
        return json.load(said)["predictions"][0]


@pytest.mark.lab
def test_a_unit_answers_at_its_public_port_through_its_door(here: Place) -> None:
    release = here.release("a", free_port())
    assert FORM.state(here.host, PIPELINE, "model", release.id).word == "STOPPED"
    here.live(release)
    assert ask(release, 4) == 4
    state = FORM.state(here.host, PIPELINE, "model", release.id)
    assert (state.word, state.pid > 0, len(state.id)) == ("RUNNING", True, 64)
    assert FORM.started(here.host, PIPELINE, "model") == (release.id,)
    assert FORM.units(here.host, PIPELINE) == ("model",)
    assert "listening" in FORM.log(here.host, PIPELINE, "model", 50)
    assert FORM.follow(here.host, PIPELINE, "model", 5)[-1] == f"mlpacker.{PIPELINE}.model.{release.id}"


@pytest.mark.lab
def test_said_again_nothing_changes(here: Place) -> None:
    release = here.release("a", free_port())
    here.live(release)
    name, door = names.container(PIPELINE, "model", release.id), names.door(PIPELINE, "model")
    before = [(found["Id"], found["State"]["StartedAt"]) for found in map(here.inspect, (name, door))]
    FORM.create(here.host, release, Launch())
    here.live(release)
    assert [(found["Id"], found["State"]["StartedAt"]) for found in map(here.inspect, (name, door))] == before


@pytest.mark.lab
@pytest.mark.parametrize("mode", ["api", "stream"])
def test_every_container_has_the_fixed_profile_and_no_more(here: Place, mode: PackageMode) -> None:
    release = here.release("b", free_port(), mode=mode, env={"SECRET": "x"}, memory="512m", cpus=0.5)
    FORM.start(here.host, release)
    unit = here.inspect(names.container(PIPELINE, "model", release.id))
    assert profile(unit) == {**PROFILE, "Memory": 512 << 20, "NanoCpus": 500_000_000}
    if mode == "api":
        door = here.inspect(names.door(PIPELINE, "model"))
        assert profile(door) == PROFILE
        assert not [line for line in door["Config"]["Env"] if line.startswith("SECRET")]
        assert unit["HostConfig"]["PortBindings"] in ({}, None)
    bound = (door if mode == "api" else unit)["HostConfig"]["PortBindings"]
    assert bound == {"8080/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(release.port)}]}
    mounts = {(mount["Type"], mount.get("Name", mount["Source"]), mount["Destination"]) for mount in unit["Mounts"]}
    state = ("bind", Layout(here.host.home).state(PIPELINE, "model", release.id), "/var/lib/mlpacker")
    assert mounts == {state, *([("volume", f"mlpacker.{PIPELINE}.model", "/run/mlpacker")] if mode == "api" else [])}
    assert unit["Config"]["User"] == "10001:10001"
    labels = {key: value for key, value in unit["Config"]["Labels"].items() if key.startswith("io.mlpacker.")}
    assert {labels[key] for key in (names.PIPELINE, names.UNIT, names.RELEASE, names.RUN, names.KIND)} == {
        *(PIPELINE, "model", release.id, "run 1", "unit")
    }


PROFILE = {
    "ReadonlyRootfs": True,
    "Privileged": False,
    "CapAdd": None,
    "CapDrop": ["ALL"],
    "SecurityOpt": ["no-new-privileges"],
    "PidsLimit": 512,
    "Init": True,
    "Tmpfs": {"/tmp": ""},
    "NetworkMode": "mlpacker",
    "PidMode": "",
    "IpcMode": "private",
    "UsernsMode": "",
    "Devices": [],
    "Binds": None,
    "RestartPolicy": {"Name": "unless-stopped", "MaximumRetryCount": 0},
    "LogConfig": {"Type": "json-file", "Config": {"max-file": "3", "max-size": "10m"}},
    "Memory": 0,
    "NanoCpus": 0,
}


def profile(found: dict[str, Any]) -> dict[str, Any]:
    return {key: found["HostConfig"][key] for key in PROFILE}


@pytest.mark.lab
def test_values_are_taken_as_they_are_and_steer_no_program_of_ours(here: Place) -> None:
    env = {
        "DOCKER_HOST": "tcp://127.0.0.1:1",
        "LD_PRELOAD": "/x.so",
        "PATH": "/nowhere",
        "NASTY": " a=b # 'q' \"d\" $(x) `y` \\ ü ",
        "EMPTY": "",
    }
    release = here.release("c", free_port(), env=env)
    here.live(release)
    told = here.inspect(names.container(PIPELINE, "model", release.id))["Config"]["Env"]
    assert {f"{name}={value}" for name, value in env.items()} <= set(told)


@pytest.mark.lab
def test_a_value_with_a_line_break_is_refused_by_name(here: Place) -> None:
    with pytest.raises(DeployFailed, match="BROKEN has a line break") as refused:
        here.release("d", free_port(), env={"BROKEN": "first\nSECOND=1"})
    assert "first" not in str(refused.value)
    assert FORM.started(here.host, PIPELINE, "model") == ()


@pytest.mark.lab
def test_a_switch_between_two_releases_loses_no_request(here: Place) -> None:
    port = free_port()
    old = here.release("1", port, "return 'old'")
    new = here.release("2", port, "return 'new'")
    here.live(old)
    answers: list[Any] = []
    done = threading.Event()

    def steady() -> None:
        while not done.is_set():
            answers.append(ask(old, 0))

    callers = [threading.Thread(target=steady) for _ in range(4)]
    for caller in callers:
        caller.start()
    try:
        for release in (new, old, new):
            here.live(release)
            seen = len(answers)
            wait_for(lambda seen=seen: len(answers) > seen + 20, 30, "answers go on")
        FORM.stop(here.host, PIPELINE, "model", old.id)
        seen = len(answers)
        wait_for(lambda: len(answers) > seen + 20, 30, "answers go on")
    finally:
        done.set()
        for caller in callers:
            caller.join()
    assert set(answers) == {"old", "new"}
    assert set(answers[-10:]) == {"new"}
    assert FORM.started(here.host, PIPELINE, "model") == (new.id,)


@pytest.mark.lab
def test_a_door_that_dies_comes_back_with_the_same_release(here: Place) -> None:
    release = here.release("e", free_port())
    here.live(release)
    before = here.inspect(names.door(PIPELINE, "model"))["State"]["Pid"]
    os.kill(before, signal.SIGKILL)
    wait_for(lambda: here.inspect(names.door(PIPELINE, "model"))["State"]["Pid"] not in (0, before), 30, "a new door")
    wait_for(lambda: status(f"{release.endpoint}/readyz") == 200, 30, "the port is back")
    assert FORM.door(here.host, release, "status")["holding"] == release.id


@pytest.mark.lab
def test_a_door_that_somebody_stopped_is_made_again(here: Place) -> None:
    release = here.release("e", free_port())
    here.live(release)
    cases.docker("stop", "--time", "1", names.door(PIPELINE, "model"))
    FORM.start(here.host, release)
    wait_for(lambda: status(f"{release.endpoint}/readyz") == 200, 30, "the port is back")
    assert FORM.door(here.host, release, "status")["holding"] == release.id


@pytest.mark.lab
def test_another_port_is_a_new_door(here: Place) -> None:
    first, second = free_port(), free_port()
    old = here.release("1", first)
    here.live(old)
    new = here.release("2", second)
    here.live(new)
    assert ask(new, 5) == 5
    assert status(f"{old.endpoint}/readyz") == 0


@pytest.mark.lab
def test_a_port_that_is_taken_is_named_and_nothing_of_ours_stays(here: Place) -> None:
    taken = here.release("1", free_port())
    here.live(taken)
    stream = here.release("3", taken.port, mode="stream")
    with pytest.raises(DeployFailed, match=f"port {taken.port} on this machine is taken"):
        FORM.start(here.host, stream)
    assert FORM.started(here.host, PIPELINE, "model") == (taken.id,)


@pytest.mark.lab
def test_a_unit_that_crashes_is_told_apart_from_one_that_runs(here: Place) -> None:
    release = here.release("f", free_port(), "return value\nimport os\nos._exit(3)")
    FORM.start(here.host, release)
    state = wait_for(
        lambda: (found := FORM.state(here.host, PIPELINE, "model", release.id)).word == "BACKOFF" and found, 60
    )
    assert "restarted" in state.text
    FORM.stop(here.host, PIPELINE, "model", release.id)
    assert FORM.state(here.host, PIPELINE, "model", release.id).word == "UNKNOWN"


@pytest.mark.lab
def test_a_container_that_somebody_removed_is_made_again_from_its_record(here: Place) -> None:
    release = here.release("a", free_port(), env={"KEPT": "1"})
    here.live(release)
    name = names.container(PIPELINE, "model", release.id)
    cases.docker("rm", "--force", name)
    here.live(release)
    assert "KEPT=1" in here.inspect(name)["Config"]["Env"]


@pytest.mark.lab
def test_a_closed_door_and_a_discarded_release_leave_nothing(here: Place) -> None:
    release = here.release("a", free_port(), "return 'gone'")
    here.live(release)
    FORM.discard(here.host, release)  # what runs goes on running
    assert ask(release, 1) == "gone"
    FORM.stop(here.host, PIPELINE, "model", release.id)
    FORM.close_door(here.host, PIPELINE, "model")
    label = f"label=io.mlpacker.pipeline={PIPELINE}"
    assert cases.docker("container", "ls", "--all", "--quiet", "--filter", label) == ""
    assert cases.docker("volume", "ls", "--quiet", "--filter", label) == ""
    left = cases.docker("image", "ls", "--all", "--quiet", "--no-trunc", "--filter", label)
    assert release.image not in left
    here.made.pop("api: return 'gone'")


@pytest.mark.lab
def test_a_release_that_was_staged_and_never_answered_leaves_no_container(here: Place) -> None:
    live, staged = here.release("a", free_port()), here.release("b", free_port())
    here.live(live)
    layout = Layout(here.host.home)
    for release, since in ((live, "2026-01-01T00:00:00Z"), (staged, "")):
        record = replace(release, since=since).to_json()
        put_text(here.host, record, f"{layout.history(PIPELINE, 'model', release.id)}/release.json")
    prune.prune(here.host, PIPELINE, 3)
    assert FORM.started(here.host, PIPELINE, "model") == (live.id,)
    assert ask(live, 4) == 4
