"""A unit as a process under supervisor: a program for each of its releases that runs, and one for its door.

    <pipeline>~<unit>~<release id>     <pipeline>~<unit>~door

What supervisor runs is what is in `conf.d`; the door (packer_lib/runtime/door, put there file by file) lends the
public port to the release that is current.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from packer_lib import commands
from packer_lib.errors import DeployFailed
from packer_lib.hosts import Host, boot
from packer_lib.hosts.home import clean_environment, must, put_text
from packer_lib.hosts.layout import DOOR, Layout, program
from packer_lib.release import supervisor
from packer_lib.release.forms import Launch, door_answer
from packer_lib.release.model import Release
from packer_lib.release.state import State

DOOR_FILES = sorted((Path(__file__).parents[1] / "runtime" / "door").glob("*.py"))
OPEN_WITHIN = 10.0
SWITCH_WITHIN = 20.0


class Native:
    """`forms.Form`, by supervisor."""

    def create(self, host: Host, release: Release, launch: Launch) -> None:  # noqa: ARG002  it is in launch.json
        layout = Layout(host.home)
        put_text(host, supervisor.unit_conf(host, layout, release), _staged(layout, release))

    def start(self, host: Host, release: Release) -> None:
        layout = Layout(host.home)
        if release.has_door and "error" in self.door(host, release, "status"):
            self._open(host, release)
        name = program(release.pipeline, release.unit, release.id)
        must(host, commands.copy(_staged(layout, release), f"{layout.conf(name)}.next"))
        must(host, commands.rename(f"{layout.conf(name)}.next", layout.conf(name)))
        _run(host, layout, name)

    def stop(self, host: Host, pipeline: str, unit: str, release_id: str) -> None:
        _end(host, Layout(host.home), program(pipeline, unit, release_id))

    def state(self, host: Host, pipeline: str, unit: str, release_id: str) -> State:
        return supervisor.ask(host, Layout(host.home), program(pipeline, unit, release_id))

    def started(self, host: Host, pipeline: str, unit: str) -> tuple[str, ...]:
        """The empty id is that of a program from before there were doors."""
        found = [name for name in _programs(host) if name[:2] == (pipeline, unit)]
        return tuple(what for _, _, what in found if what != DOOR)

    def units(self, host: Host, pipeline: str) -> tuple[str, ...]:
        return tuple(dict.fromkeys(unit for name, unit, _ in _programs(host) if name == pipeline))

    def private(self, host: Host, release: Release) -> str:
        if not release.has_door:
            return release.local
        port = self.door(host, release, "status").get("ports", {}).get(release.id)
        return f"http://127.0.0.1:{port}" if port else ""

    def door(self, host: Host, release: Release, *words: str) -> dict[str, Any]:
        layout = Layout(host.home)
        if words[0] == "switch":
            self._open(host, release)
            words = (*words, str(SWITCH_WITHIN))
        folder = layout.door(release.pipeline, release.unit, host.uid)
        argv = commands.door(host.python, layout.door_program, "ask", folder, *words)
        return door_answer(host.run(argv, env=clean_environment(host), timeout=SWITCH_WITHIN + OPEN_WITHIN))

    def close_door(self, host: Host, pipeline: str, unit: str) -> None:
        layout = Layout(host.home)
        _end(host, layout, program(pipeline, unit, DOOR))
        must(host, commands.remove(layout.door(pipeline, unit, host.uid)))

    def log(self, host: Host, pipeline: str, unit: str, lines: int) -> str:
        return host.run(commands.tail(Layout(host.home).log(pipeline, unit), lines)).out

    def follow(self, host: Host, pipeline: str, unit: str, lines: int) -> Sequence[str]:
        return commands.follow(lines, Layout(host.home).log(pipeline, unit))

    def discard(self, host: Host, release: Release, kept: Sequence[Release] = ()) -> None:  # noqa: ARG002
        remove_bundles(host, [release.bundle])

    def tidy(self, host: Host) -> None:
        if supervisor.stop_if_idle(host, Layout(host.home)):
            boot.disable(host)

    def _open(self, host: Host, release: Release) -> None:
        """A door on the release's own port; one that is there on another is opened again on this."""
        layout = Layout(host.home)
        conf, wanted = (
            layout.conf(program(release.pipeline, release.unit, DOOR)),
            supervisor.door_conf(host, layout, release),
        )
        if host.run(commands.read(conf)).out != wanted:
            for file in DOOR_FILES:
                host.put(file, f"{layout.door_program}/{file.name}", 0o600)
            put_text(host, wanted, conf)
        elif "error" not in self.door(host, release, "status"):
            return
        _run(host, layout, program(release.pipeline, release.unit, DOOR))
        answer = self.door(host, release, "status", str(OPEN_WITHIN))
        if "error" in answer:
            raise DeployFailed(f"{program(release.pipeline, release.unit, DOOR)}: {answer['error']}")


def remove_bundles(host: Host, digests: Sequence[str]) -> None:
    """The bundles, the marks that they were checked, and their claims to an environment."""
    layout = Layout(host.home)
    paths = [layout.bundle(digest) for digest in sorted(digests)]
    if paths:
        host.run(commands.remove(*paths, *(f"{path}.checked" for path in paths)))
    for digest in sorted(digests):
        host.run(commands.remove_marks(f"{layout.home}/envs", digest))


def _staged(layout: Layout, release: Release) -> str:
    return f"{layout.history(release.pipeline, release.unit, release.id)}/unit.conf"


def _programs(host: Host) -> list[tuple[str, str, str]]:
    """(pipeline, unit, release or `DOOR`) of all that supervisor is to run."""
    names = host.run(commands.names(f"{host.home}/conf.d")).out.splitlines()
    parts = [name.removesuffix(".conf").split("~") for name in names if name.endswith(".conf")]
    return [(part[0], part[1], part[2] if len(part) > 2 else "") for part in parts if len(part) > 1]


def _run(host: Host, layout: Layout, name: str) -> None:
    """The program runs as its file says; one that supervisor has given up starts afresh."""
    if not supervisor.update(host, layout, name) and not supervisor.ask(host, layout, name).alive:
        supervisor.again(host, layout, name)


def _end(host: Host, layout: Layout, name: str) -> None:
    """No process and no program of that name; fine when there was none."""
    if not host.run(commands.exists(layout.conf(name))).ok and supervisor.ask(host, layout, name).word == "UNKNOWN":
        return
    answered = supervisor.forget(host, layout, name)  # first: what has no file any more is not looked for
    must(host, commands.remove(layout.conf(name)))
    if not answered:  # it may have left processes behind, which go when it is started again
        supervisor.update(host, layout, name)
    if (left := supervisor.ask(host, layout, name)).word != "UNKNOWN":
        raise DeployFailed(
            f"{name} does not stop on {host.name} ({left.word})", "look at its process, then undeploy again"
        )
