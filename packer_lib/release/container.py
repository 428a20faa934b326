"""A unit as containers of its machine's own engine: one for each process of its releases, and one for its door.

    mlpacker.<pipeline>.<unit>.<release id>[.<replica>]     mlpacker.<pipeline>.<unit>.door

The door's container publishes the unit's port and shares the volume `mlpacker.<pipeline>.<unit>` with the releases, who
get the listening socket through it. A unit without a door publishes its probe port itself, the first replica's. What a
release keeps is a folder of the machine. The engine is asked, not remembered: labels say what a container is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from packer_lib import commands, images
from packer_lib.errors import DeployFailed
from packer_lib.hosts import Host, Result
from packer_lib.hosts.home import must
from packer_lib.hosts.layout import Layout
from packer_lib.images import failures, names, words
from packer_lib.images.client import docker, env_lines, inspected
from packer_lib.images.remove import sweep
from packer_lib.release import inside
from packer_lib.release.forms import Launch, door_answer, parse_launch
from packer_lib.release.model import Release, number_of
from packer_lib.release.state import State

WORDS = {"created": "STOPPED", "running": "RUNNING", "paused": "STOPPED", "restarting": "BACKOFF"}
WORDS |= {"removing": "STOPPING", "exited": "EXITED", "dead": "FATAL"}
SETTLED_AFTER = 10.0  # seconds that a container has to live after a restart to count as running
RETIRE_WITHIN = 120.0  # seconds that a replica has to finish what its broker gave to it alone, before TERM
CREATE_WITHIN = 120.0
OPEN_WITHIN, SWITCH_WITHIN = 10.0, 20.0
PYTHON = "/app/.venv/bin/python"
DOOR_PROGRAM = ("-I", "-S", "/app/mlpacker_runtime/door")


class Container:
    """`forms.Form`, by the docker client of the machine."""

    def create(self, host: Host, release: Release, launch: Launch) -> None:
        """Its first process, and not yet the others."""
        self._make(host, release, release.processes[0], launch)

    def _make(self, host: Host, release: Release, process: str, launch: Launch) -> None:
        name = names.container(release.pipeline, release.unit, process)
        if _inspect(host, name) is not None:
            return
        _make_network(host)
        what = words.Container(
            name,
            release.image,
            {**inside.labels(release, "unit"), **inside.own_labels(release, process)},
            env=True,
            volume=_make_volume(host, release) if release.has_door else "",
            state=_make_state(host, release),
            publish=tuple(inside.published(release, process, launch)),
            hosts=_hosts(host, launch.names),
            memory=launch.memory,
            cpus=launch.cpus,
        )
        _create(host, what, {**launch.env, **inside.own_env(release, process)})

    def start(self, host: Host, release: Release, process: str = "") -> None:
        """Created again from what is kept of it when somebody removed it."""
        process = process or release.processes[0]
        name = names.container(release.pipeline, release.unit, process)
        found = _inspect(host, name)
        if found is None:
            kept = f"{Layout(host.home).history(release.pipeline, release.unit, release.id)}/launch.json"
            launch = parse_launch(_must(host, commands.read(kept), f"{name} cannot be made").out)
            self._make(host, release, process, launch)
        _make_network(host)
        if release.has_door and "error" in self.door(host, release, "status"):
            self._open(host, release)
        if found is None or not found["State"]["Running"]:
            _start(host, name, release)

    def stop(self, host: Host, pipeline: str, unit: str, *processes: str) -> None:
        found = _there(host, pipeline, unit, processes)
        if not found:
            return
        docker(host, words.stop(host.docker, *found), timeout=words.STOP_WITHIN + CREATE_WITHIN)
        for name in found:
            _remove(host, name)
        docker(host, words.remove_volume(host.docker, names.volume(pipeline, unit)))

    def retire(self, host: Host, pipeline: str, unit: str, *processes: str) -> None:
        if found := _there(host, pipeline, unit, processes):
            docker(host, words.stay_down(host.docker, *found))
            docker(host, words.signal(host.docker, "USR1", *found))
            docker(host, words.wait(host.docker, *found), timeout=RETIRE_WITHIN)
        self.stop(host, pipeline, unit, *processes)

    def state(self, host: Host, pipeline: str, unit: str, process: str) -> State:
        found = _inspect(host, names.container(pipeline, unit, process))
        return State("UNKNOWN") if found is None else _state(host, found)

    def started(self, host: Host, pipeline: str, unit: str) -> tuple[str, ...]:
        return tuple(_processes(host, pipeline, unit))

    def units(self, host: Host, pipeline: str) -> tuple[str, ...]:
        found = _listed(host, {names.PIPELINE: pipeline})
        return tuple(dict.fromkeys(unit for kind, unit, _ in found if kind in ("unit", "door")))

    def private(self, host: Host, release: Release, process: str = "") -> str:
        """A container's own address on the machine's network, which only that machine reaches."""
        if not release.has_door and not number_of(process):
            return release.local
        found = _inspect(host, names.container(release.pipeline, release.unit, process or release.id)) or {}
        networks = found.get("NetworkSettings", {}).get("Networks", {})
        address = networks.get(names.NETWORK, {}).get("IPAddress", "")
        return f"http://{address}:{names.PORT}" if address else ""

    def door(self, host: Host, release: Release, *asked: str) -> dict[str, Any]:
        if asked[0] == "switch":
            self._open(host, release)
            asked = (*asked, f"{SWITCH_WITHIN:g}")
        name = names.door(release.pipeline, release.unit)
        argv = (PYTHON, *DOOR_PROGRAM, "ask", names.DOOR_FOLDER, *asked)
        return door_answer(docker(host, words.execute(host.docker, name, argv), timeout=SWITCH_WITHIN + CREATE_WITHIN))

    def close_door(self, host: Host, pipeline: str, unit: str) -> None:
        _remove(host, names.door(pipeline, unit))
        docker(host, words.remove_volume(host.docker, names.volume(pipeline, unit)))
        sweep(host, pipeline, unit)

    def log(self, host: Host, pipeline: str, unit: str, lines: int, replica: int = 0) -> str:
        newest = _newest(host, pipeline, unit, replica)
        if not newest:
            return ""
        said = docker(host, words.logs(host.docker, names.container(pipeline, unit, newest), lines))
        timed = sorted([*said.out.splitlines(), *said.err.splitlines()])
        return "".join(f"{line.partition(' ')[2]}\n" for line in timed[-lines:])

    def follow(self, host: Host, pipeline: str, unit: str, lines: int, replica: int = 0) -> Sequence[str]:
        newest = _newest(host, pipeline, unit, replica)
        return words.follow(host.docker, names.container(pipeline, unit, newest), lines)

    def discard(self, host: Host, release: Release, kept: Sequence[Release] = ()) -> None:
        images.remove(host, release.image, sorted({one.image for one in kept if one.image}))
        sweep(host, release.pipeline, release.unit)

    def tidy(self, host: Host) -> None:
        if not docker(host, words.containers(host.docker, {names.KIND: ""}, "{{.Names}}")).out.strip():
            docker(host, words.remove_network(host.docker, names.NETWORK))

    def _open(self, host: Host, release: Release) -> None:
        """A door on the release's own port; one that is there on another, or ended, is made again on this."""
        name = names.door(release.pipeline, release.unit)
        found = _inspect(host, name)
        if found is not None and found["State"]["Running"] and _has_port(found, release):
            return
        _remove(host, name)
        _make_network(host)
        what = words.Container(
            name,
            release.image,
            inside.labels(release, "door"),
            volume=_make_volume(host, release),
            publish=inside.doors(release),
            entrypoint=PYTHON,
            command=(*DOOR_PROGRAM, "hold", names.DOOR_FOLDER, inside.ALL, str(names.PORT), *inside.passage(release)),
            healthcheck=False,
        )
        _create(host, what, {})
        _start(host, name, release)
        answer = self.door(host, release, "status", f"{OPEN_WITHIN:g}")
        if "error" in answer:
            said = docker(host, words.logs(host.docker, name, 5)).tail(5)
            raise DeployFailed(f"{name} on {host.name}: {answer['error']}\n{said}".rstrip())


def _make_state(host: Host, release: Release) -> str:
    """Open to the container's user, whatever number the engine makes of it; to nobody else, for the folder that all of
    them are in is ours alone. What is in it the deployer can remove, since folders in it are made here only."""
    folder = Layout(host.home).state(release.pipeline, release.unit, release.id)
    steps = [f"{folder}/models/{step}" for step, _ in release.models]
    must(host, commands.make_folders(folder, f"{folder}/models", *steps))
    for open_one in (folder, *steps):  # to steps' folders come models that are sent to the unit itself
        must(host, commands.open_folder(open_one))
    must(host, commands.readable_folder(f"{folder}/models"))
    return folder


def _hosts(host: Host, wanted: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """The addresses of `wanted` by the machine's own /etc/hosts, which containers do not see."""
    return inside.hosts_in(host.run(commands.read("/etc/hosts")).out, wanted) if wanted else ()


def _inspect(host: Host, name: str) -> dict[str, Any] | None:
    """None when there is none; `DeployFailed` when the engine does not say."""
    result = docker(host, words.inspect_container(host.docker, name))
    if not result.ok and "No such container" not in result.err:
        raise _failed(host, result, f"{name} cannot be asked for")
    return inspected(result)


def _there(host: Host, pipeline: str, unit: str, processes: Sequence[str]) -> list[str]:
    """The containers of these processes that exist."""
    called = [names.container(pipeline, unit, process) for process in processes]
    return [name for name in called if _inspect(host, name) is not None]


def _listed(host: Host, labels: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """(kind, unit, process) of our containers, the newest first."""
    keys = (names.KIND, names.UNIT, names.RELEASE, names.REPLICA)
    template = "\t".join(f'{{{{.Label "{key}"}}}}' for key in keys)
    result = docker(host, words.containers(host.docker, {names.KIND: "", **labels}, template))
    if not result.ok:
        raise _failed(host, result, "its containers cannot be listed")
    lines = (line.split("\t") for line in result.out.splitlines())
    return [(kind, unit, f"{release}.{number}" if number else release) for kind, unit, release, number in lines]


def _processes(host: Host, pipeline: str, unit: str) -> Iterator[str]:
    found = _listed(host, {names.PIPELINE: pipeline, names.UNIT: unit})
    return (process for kind, _, process in found if kind == "unit")


def _newest(host: Host, pipeline: str, unit: str, replica: int) -> str:
    return next((process for process in _processes(host, pipeline, unit) if number_of(process) == replica), "")


def _state(host: Host, found: Mapping[str, Any]) -> State:
    """A container that runs again after a crash is one that may crash again, for a while."""
    told, restarts = found["State"], found["RestartCount"]
    word = WORDS.get(told["Status"], "UNKNOWN")
    if word == "RUNNING" and restarts and _age(host, told["StartedAt"]) < SETTLED_AFTER:
        word = "BACKOFF"
    text = [f"exit code {told['ExitCode']}"] if word in ("EXITED", "FATAL", "BACKOFF") else []
    text += ["out of memory"] if told["OOMKilled"] else []
    text += [told["Error"]] if told["Error"] else []
    text += [f"restarted {restarts} times"] if restarts else []
    return State(word, told["Pid"], ", ".join(text), found["Id"])


def _age(host: Host, since: str) -> float:
    """Seconds, by that machine's clock; `since` as in `2026-01-31T12:34:56.123456789Z`."""
    from datetime import datetime

    return float(host.run(commands.now()).out or 0) - datetime.fromisoformat(f"{since[:19]}+00:00").timestamp()


def _has_port(door: Mapping[str, Any], release: Release) -> bool:
    return inside.bound(door["HostConfig"]["PortBindings"] or {}) == set(inside.doors(release))


def _make_network(host: Host) -> None:
    """One bridge for all our containers of a machine, on which they know each other by name."""
    if docker(host, words.network_mtu(host.docker, names.NETWORK)).ok:
        return
    mtu = docker(host, words.network_mtu(host.docker, "bridge")).out.strip()
    made = docker(host, words.make_network(host.docker, names.NETWORK, mtu))
    if not made.ok and "already exists" not in made.err:
        raise _failed(host, made, f"the network {names.NETWORK} cannot be made")


def _make_volume(host: Host, release: Release) -> str:
    name = names.volume(release.pipeline, release.unit)
    labels = {names.PIPELINE: release.pipeline, names.UNIT: release.unit}
    _must(host, words.make_volume(host.docker, name, labels), f"the volume {name} cannot be made")
    return name


def _create(host: Host, what: words.Container, env: Mapping[str, str]) -> None:
    argv = words.create(host.docker, what, names.NETWORK)
    made = docker(host, argv, input=env_lines(env), timeout=CREATE_WITHIN)
    if not made.ok and "is already in use by container" not in made.err:
        raise _failed(host, made, f"{what.name} cannot be made")


def _start(host: Host, name: str, release: Release) -> None:
    begun = docker(host, words.start(host.docker, name), timeout=CREATE_WITHIN)
    if begun.ok:
        return
    _remove(host, name)  # it would keep the image and its name, and start by itself some day
    if "already allocated" in begun.err or "already in use" in begun.err:
        raise DeployFailed(
            f"port {release.port} on {host.name} is taken: {failures.said(begun, 1)}",
            "stop what has it (`ss -ltnp` there), or give the step another `port`",
        )
    raise _failed(host, begun, f"{name} cannot be started")


def _remove(host: Host, name: str) -> None:
    """Gone; fine when there is none."""
    result = docker(host, words.remove_container(host.docker, name), timeout=CREATE_WITHIN)
    if not result.ok and "No such container" not in result.err and "already in progress" not in result.err:
        raise _failed(host, result, f"{name} cannot be removed")


def _must(host: Host, argv: commands.Argv, what: str) -> Result:
    result = docker(host, argv)
    if not result.ok:
        raise _failed(host, result, what)
    return result


def _failed(host: Host, result: Result, what: str) -> DeployFailed:
    advice = failures.hint(result.out + result.err, failures.HINTS, machine=host.name, registry="the registry")
    return DeployFailed(f"{host.name}: {what}: {failures.said(result)}", advice or "the lines above are its engine's")
