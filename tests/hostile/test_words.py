"""What reaches a command line: no value of a PADL file is an option or a word too many, and all containers run alike.

Docker is not asked here; `tests/images` and `tests/release/test_container.py` hold that the real one makes of these
words what they say.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from packer_lib.hosts import Result, wire
from packer_lib.hosts.layout import Layout
from packer_lib.hosts.recording import RecordingHost
from packer_lib.images import names, words
from packer_lib.plan import Plan, Unit, plan
from packer_lib.release.container import Container
from packer_lib.release.forms import Launch
from packer_lib.release.model import Release
from tests.hostile import padls

FEW = settings(max_examples=40, deadline=None)
ALONE = {"--read-only", "--init", "--no-healthcheck"}
WITH_A_VALUE = {
    *("--pull", "--name", "--restart", "--network", "--add-host", "--tmpfs", "--cap-drop", "--security-opt"),
    *("--pids-limit", "--stop-timeout", "--user", "--log-driver", "--log-opt", "--memory", "--memory-swap", "--cpus"),
    *("--label", "--env-file", "--mount", "--publish", "--entrypoint"),
}
OF_THE_UNIT = {"--name", "--memory", "--memory-swap", "--cpus", "--label", "--mount", "--publish", "--add-host"}
IMAGE = "sha256:" + "0" * 64
HOSTS = "127.0.0.1 localhost edge\n10.0.0.9 broker host\n"


def options(argv: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The options of `docker create` as Docker reads them, then the image and what follows it, each as ("", word)."""
    left = list(argv[2:])
    while left and left[0].startswith("-"):
        option = left.pop(0)
        assert option in ALONE | WITH_A_VALUE, option
        yield option, "" if option in ALONE else left.pop(0)
    yield from (("", word) for word in left)


def created(made: Plan, unit: Unit) -> list[tuple[str, ...]]:
    """The `docker create` of the unit's container and of its door, on a machine where nothing is yet."""

    def answer(argv: Sequence[str]) -> Result:
        if "inspect" in argv and "container" in argv:
            return Result(1, "", "Error: No such container")
        return Result(0, HOSTS if argv[0] == "cat" else '{"current": null}' if "exec" in argv else "")

    host = RecordingHost(answer, machine=unit.machine)
    mode = made.package_mode
    release = Release(made.pipeline, unit.name, "0" * 12, "b" * 64, "l" * 64, mode, "0.0.0.0", 8085, image=IMAGE)
    servers = tuple(queue.server for queue in made.queues)
    env = dict(made.env) | {name: value for step in unit.steps for name, value in step.env.items()}
    launch = Launch(env=env, memory=unit.resources.memory, cpus=unit.resources.cpus, names=servers)
    Container().create(host, release, launch)
    if release.has_door:
        Container().door(host, release, "switch", release.id)
    return [argv for argv in host.done if argv[:2] == ("docker", "create")]


def profile(argv: Sequence[str]) -> list[tuple[str, str]]:
    return [pair for pair in options(argv) if pair[0] not in OF_THE_UNIT]


HARMLESS = plan(padls.pipeline(padls.API))
UNIT, DOOR = (profile(argv) for argv in created(HARMLESS, HARMLESS.units[0]))


def test_the_profile_is_the_one_that_is_promised() -> None:
    """docs/containers.md; facts about each are in SECURITY.md."""
    promised = {
        *(("--read-only", ""), ("--tmpfs", "/tmp"), ("--cap-drop", "ALL"), ("--security-opt", "no-new-privileges")),
        *(("--pids-limit", "512"), ("--user", "10001:10001"), ("--init", ""), ("--stop-timeout", "30")),
        *(("--network", "mlpacker"), ("--restart", "unless-stopped"), ("--pull", "never")),
        *(("--log-driver", "json-file"), ("--log-opt", "max-size=10m"), ("--log-opt", "max-file=3")),
    }
    assert set(UNIT) == {*promised, ("--env-file", "/dev/stdin"), ("", IMAGE)}
    assert {option for option, _ in DOOR} <= {option for option, _ in UNIT} | {"--no-healthcheck", "--entrypoint"}


@given(padls.documents())
@FEW
def test_every_container_has_the_same_profile(document: dict[str, Any]) -> None:
    made = plan(padls.pipeline(document))
    for unit in made.units:
        unit_s, *door_s = created(made, unit)
        assert profile(unit_s) == UNIT
        assert [profile(argv) for argv in door_s] == [DOOR] * len(door_s)


@given(padls.documents())
@FEW
def test_what_a_container_has_of_its_own_is_made_of_names(document: dict[str, Any]) -> None:
    """Limits, labels, one volume and one folder of ours, one port, addresses: none of them is a path of theirs, a
    device or an option."""
    made = plan(padls.pipeline(document))
    for unit in made.units:
        volume = f"type=volume,source={names.volume(made.pipeline, unit.name)},target={names.DOOR_FOLDER}"
        folder = Layout("/home").state(made.pipeline, unit.name, "0" * 12)
        state = f"type=bind,source={folder},target={words.STATE_FOLDER}"
        for option, value in (pair for argv in created(made, unit) for pair in options(argv) if pair[0] in OF_THE_UNIT):
            assert not value.startswith("-")
            assert not any(char.isspace() for char in value)
            assert "," not in value or value in (volume, state)
            assert option != "--publish" or value == "0.0.0.0:8085:8080"


@given(padls.documents())
@FEW
def test_no_variable_of_a_file_is_on_a_command_line(document: dict[str, Any]) -> None:
    document["env"] = {"SECRETIVE": "hunter2-sentinel"}
    made = plan(padls.pipeline(document))
    for unit in made.units:
        for argv in created(made, unit):
            assert not any("hunter2" in word or "SECRETIVE" in word for word in argv)
            assert ("--env-file", "/dev/stdin") in options(argv) or "hold" in argv


@given(padls.documents())
@FEW
def test_an_image_is_built_from_names_of_ours_and_settings_alone(document: dict[str, Any]) -> None:
    made = plan(padls.pipeline(document))
    for unit in made.units:
        name = f"{names.image(made.pipeline, unit.name)}:tag"
        argv = words.build("docker", words.Build("/bundle", name, "base", {"a": "b"}, {"ca": "/a,b"}))
        assert argv[-1] == "/bundle"
        assert argv.count(name) == 1
        assert [word for word in argv if word.startswith("-")] == BUILD


class Ended:
    """The near end of a channel whose far end says nothing; it writes down what was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def exec_command(self, command: str) -> None:
        self.asked.append(command)

    def send(self, data: bytes) -> int:
        return len(data)

    def __getattr__(self, name: str) -> Any:
        answers = {"recv_stderr_ready": lambda: False, "recv": lambda _: b"", "get_transport": lambda: None}
        return answers.get(name, lambda *_: -1)


@given(st.sampled_from(padls.CORPUS), st.sampled_from(padls.CORPUS))
def test_over_ssh_the_command_line_is_the_same_whatever_is_run(word: str, value: str) -> None:
    """Program, argv, environment and input go in on standard input."""
    asked = []
    for request in ({"argv": ["true"], "env": None}, {"argv": ["tail", word], "env": {"A": value}}):
        channel: Any = Ended()
        wire.start(channel, "far_run")
        with pytest.raises(wire.Cut):
            wire.run(channel, request, [value.encode()], None)
        asked += channel.asked
    assert len(asked) == 2
    assert asked[0] == asked[1]


BUILD = ["--progress", "--tag", "--build-arg", "--label", "--secret"]
