"""A unit as programs of supervisor: one for each process of its releases that runs, and one for its door.

    <pipeline>~<unit>~<release id>     <pipeline>~<unit>~<release id>.<replica>     <pipeline>~<unit>~door

What supervisor runs is what is in `conf.d`; the door (packer_lib/runtime/door, put there file by file) lends the
public port to the release that is current.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from packer_lib import commands
from packer_lib.errors import DeployFailed
from packer_lib.hosts import Host, boot
from packer_lib.hosts.home import clean_environment, must, put_text
from packer_lib.hosts.layout import DOOR, Layout, program
from packer_lib.release import supervisor
from packer_lib.release.forms import Launch, door_answer
from packer_lib.release.model import Release, number_of
from packer_lib.release.state import State

DOOR_FILES = sorted((Path(__file__).parents[1] / "runtime" / "door").glob("*.py"))
OPEN_WITHIN = 10.0
SWITCH_WITHIN = 20.0


class Native:
    """`forms.Form`, by supervisor."""

    def create(self, host: Host, release: Release, launch: Launch) -> None:  # noqa: ARG002  it is in launch.json
        layout = Layout(host.home)
        logs = (layout.replica_logs(release.pipeline, release.unit),) if release.replicas > 1 else ()
        state = layout.state(release.pipeline, release.unit, release.id)
        must(host, commands.make_folders(state, f"{state}/models", *logs))

    def start(self, host: Host, release: Release, process: str = "") -> None:
        layout = Layout(host.home)
        if release.has_door and "error" in self.door(host, release, "status"):
            self._open(host, release)
        process = process or release.processes[0]
        name = program(release.pipeline, release.unit, process)
        if number_of(process):  # nobody is to find the port of who had this number before
            must(host, commands.remove(_probes(layout, release, process)))
        put_text(host, supervisor.unit_conf(host, layout, release, process), layout.conf(name))
        _run(host, layout, name)

    def stop(self, host: Host, pipeline: str, unit: str, *processes: str) -> None:
        _end(host, Layout(host.home), *(program(pipeline, unit, process) for process in processes))

    def retire(self, host: Host, pipeline: str, unit: str, *processes: str) -> None:
        names = [program(pipeline, unit, process) for process in processes]
        supervisor.retire(host, Layout(host.home), *names)
        _end(host, Layout(host.home), *names)

    def state(self, host: Host, pipeline: str, unit: str, process: str) -> State:
        return supervisor.ask(host, Layout(host.home), program(pipeline, unit, process))

    def started(self, host: Host, pipeline: str, unit: str) -> tuple[str, ...]:
        """The empty id is that of a program from before there were doors."""
        found = [name for name in _programs(host) if name[:2] == (pipeline, unit)]
        return tuple(what for _, _, what in found if what != DOOR)

    def units(self, host: Host, pipeline: str) -> tuple[str, ...]:
        return tuple(dict.fromkeys(unit for name, unit, _ in _programs(host) if name == pipeline))

    def private(self, host: Host, release: Release, process: str = "") -> str:
        if release.has_door:
            port = self.door(host, release, "status").get("ports", {}).get(release.id)
            return f"http://127.0.0.1:{port}" if port else ""
        if not number_of(process):
            return release.local
        told = host.run(commands.read(_probes(Layout(host.home), release, process))).out.strip()
        return replace(release, port=int(told)).local if told.isdigit() else ""

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

    def log(self, host: Host, pipeline: str, unit: str, lines: int, replica: int = 0) -> str:
        return host.run(commands.tail(Layout(host.home).log(pipeline, unit, replica), lines)).out

    def follow(self, host: Host, pipeline: str, unit: str, lines: int, replica: int = 0) -> Sequence[str]:
        return commands.follow(lines, Layout(host.home).log(pipeline, unit, replica))

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


def _probes(layout: Layout, release: Release, process: str) -> str:
    """Where a replica says which port it found for its probes; see `engine.py`."""
    return f"{layout.state(release.pipeline, release.unit, release.id)}/probes-{number_of(process)}"


def _programs(host: Host) -> list[tuple[str, str, str]]:
    """(pipeline, unit, process or `DOOR`) of all that supervisor is to run."""
    names = host.run(commands.names(f"{host.home}/conf.d")).out.splitlines()
    parts = [name.removesuffix(".conf").split("~") for name in names if name.endswith(".conf")]
    return [(part[0], part[1], part[2] if len(part) > 2 else "") for part in parts if len(part) > 1]


def _run(host: Host, layout: Layout, name: str) -> None:
    """The program runs as its file says; one that supervisor has given up starts afresh."""
    if not supervisor.update(host, layout, name) and not supervisor.ask(host, layout, name).alive:
        supervisor.again(host, layout, name)


def _end(host: Host, layout: Layout, *names: str) -> None:
    """No process and no program of these names; fine when there was none."""
    known = supervisor.ask_all(host, layout)
    there = [name for name in names if name in known or host.run(commands.exists(layout.conf(name))).ok]
    if not there:
        return
    answered = supervisor.forget(host, layout, *there)  # first: what has no file any more is not looked for
    must(host, commands.remove(*map(layout.conf, there)))
    if not answered:  # it may have left processes behind, which go when it is started again
        supervisor.update(host, layout, there[0])
    known = supervisor.ask_all(host, layout)
    if left := [f"{name} ({known[name].word})" for name in there if name in known]:
        raise DeployFailed(
            f"{', '.join(left)} does not stop on {host.name}", "look at its process, then undeploy again"
        )
