"""What is live on every machine, asked of the machines: their records, what runs there, and the units themselves."""

from __future__ import annotations

import json
import queue
import subprocess
import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from packer_lib import kept
from packer_lib.errors import MLPackerError, printable
from packer_lib.hosts import Host
from packer_lib.release import fleets, records
from packer_lib.release.fleets import Machines
from packer_lib.release.forms import form_of
from packer_lib.release.model import Release
from packer_lib.release.state import State
from packer_lib.release.verify import toolbox
from packer_lib.settings import Settings

__all__ = ["NotDeployed", "State", "follow", "logs", "status"]

ANSWER_WITHIN = "2"
WORST_FIRST = ("failed", "stopped", "starting", "running")
STATES = {"FATAL": "failed", "BACKOFF": "starting", "RUNNING": "starting", "STARTING": "starting"}


class NotDeployed(MLPackerError):
    """No such pipeline or unit here; the text lists what there is."""

    exit_code = 2


@dataclass(frozen=True, slots=True)
class Found:
    """One unit of a pipeline where it is; `host` None, and `why`: its machine does not answer."""

    pipeline: str
    unit: str
    machine: str | None
    host: Host | None
    release: Release | None
    why: str = ""


def status(settings: Settings, pipeline_id: str | None = None, fleet: Machines | None = None) -> list[dict[str, Any]]:
    """One dict per pipeline: `{"pipeline", "units": [{"name", "machine", "state", "endpoint", "release", "models",
    "versions", "admin", "since", "reason", "pid", "run", "by", "form", "replicas"}]}`.

    `state` is running (all of it ready), starting, stopped, failed, or unreachable (its machine); `reason` says why it
    is not running; `models` are `{"step", "version", "sha256"}` of what is live, as the unit itself says, or as it was
    deployed when it is silent; `versions` all that it has loaded, these with "number", "label", "state" and "reason";
    `admin` is where it is changed, if anywhere; `replicas` are `{"wanted", "running"}`, and `pid` is the first one's.
    """
    with _found(settings, pipeline_id, fleet) as found:
        return [{"pipeline": name, "units": [_unit(one) for one in units]} for name, units in found.items()]


@contextmanager
def _found(settings: Settings, pipeline_id: str | None, fleet: Machines | None) -> Iterator[dict[str, list[Found]]]:
    """By pipeline; `NotDeployed` when there is none of that id."""
    with fleets.of_pipelines(
        kept.pipelines(settings) if pipeline_id is None else [pipeline_id], settings, fleet
    ) as machines:
        found: dict[str, list[Found]] = {}
        for machine, pipelines in _where(settings, pipeline_id).items():
            host = fleets.reached(machines, machine)
            there = (
                _silent(host, machine, pipelines, settings)
                if isinstance(host, MLPackerError)
                else _on(host, pipeline_id)
            )
            for one in there:
                found.setdefault(one.pipeline, []).append(one)
        if pipeline_id is not None and pipeline_id not in found:
            others = ", ".join(sorted({*records.pipelines(machines[None]), *kept.pipelines(settings)})) or "nothing"
            raise NotDeployed(f"no pipeline {pipeline_id!r} is deployed here", f"there is {others}")
        yield dict(sorted(found.items()))


def _where(settings: Settings, pipeline_id: str | None) -> dict[str | None, list[str]]:
    """Machine → pipelines that may be on it; this machine is always one."""
    names = [pipeline_id] if pipeline_id is not None else kept.pipelines(settings)
    there: dict[str | None, list[str]] = {None: []}
    for name in names:
        for place in kept.read(name, settings).machines:
            there.setdefault(place.machine.id, []).append(name)
    return there


def _on(host: Host, pipeline_id: str | None) -> list[Found]:
    there = records.read_all(host) if pipeline_id is None else {pipeline_id: records.read(host, pipeline_id)}
    return [
        Found(pipeline, unit, host.machine, host, found.newest(unit))
        for pipeline, found in there.items()
        for unit in found.units
    ]


def _silent(error: MLPackerError, machine: str | None, pipelines: Sequence[str], settings: Settings) -> list[Found]:
    """What was live there when we last knew."""
    return [
        Found(name, unit, machine, None, None, error.message)
        for name in pipelines
        for generation in kept.read(name, settings).generations[-1:]
        for unit, (_, where) in generation.units.items()
        if where == machine
    ]


def _unit(found: Found) -> dict[str, Any]:
    release, host = found.release, found.host
    if release is None or host is None:
        return {
            "name": found.unit,
            "machine": found.machine,
            "state": "unreachable",
            "endpoint": "",
            "release": "",
            "models": [],
            "versions": [],
            "admin": "",
            "since": "",
            "reason": found.why,
            "pid": 0,
            "run": "",
            "by": "",
            "form": "",
            "replicas": {"wanted": 0, "running": 0},
        }
    seen = [_process(host, release, process) for process in release.processes]
    state, reason = _together(seen)
    info = next((one.info for one in seen if one.info), {})
    return {
        "name": release.unit,
        "machine": release.machine,
        "state": state,
        "endpoint": release.endpoint,
        "release": info.get("release") or release.id,
        "models": info.get("models") or _deployed_models(release),
        "versions": info.get("versions") or [],
        "admin": release.admin,
        "since": release.since,
        "reason": reason,
        "pid": seen[0].pid,
        "run": release.run,
        "by": release.by,
        "form": release.form,
        "replicas": {"wanted": release.replicas, "running": sum(one.state == "running" for one in seen)},
    }


@dataclass(frozen=True, slots=True)
class Seen:
    """One process of a unit, as `status` says it."""

    state: str
    reason: str
    pid: int
    info: dict[str, Any]


def _process(host: Host, release: Release, process: str) -> Seen:
    form = form_of(release)
    found = form.state(host, release.pipeline, release.unit, process)
    if not found.alive:
        return Seen(STATES.get(found.word, "stopped"), found.text, found.pid, {})
    url = release.local if release.has_door else form.private(host, release, process)
    if not url:
        return Seen("starting", "it does not say yet where its probes are", found.pid, {})
    return Seen(*_readiness(host, url), found.pid, _body(toolbox(host, "http", "GET", f"{url}/info", ANSWER_WITHIN)))


def _together(seen: Sequence[Seen]) -> tuple[str, str]:
    """The worst of them, and why of each that does not run."""
    state = min((one.state for one in seen), key=WORST_FIRST.index)
    reasons = [
        f"replica {number}: {one.reason or one.state}" if len(seen) > 1 else one.reason
        for number, one in enumerate(seen)
        if one.state != "running"
    ]
    return state, "; ".join(reasons)


def _readiness(host: Host, url: str) -> tuple[str, str]:
    answer = toolbox(host, "http", "GET", f"{url}/readyz", ANSWER_WITHIN)
    if answer["status"] == 200:
        return "running", ""
    return "starting", str(_body(answer).get("reason") or answer["body"])


def _body(answer: dict[str, Any]) -> dict[str, Any]:
    try:
        value = json.loads(answer["body"])
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _deployed_models(release: Release) -> list[dict[str, str]]:
    return [{"step": step, "version": sha256[:12], "sha256": sha256} for step, sha256 in release.models]


def logs(
    settings: Settings, pipeline_id: str, unit: str | None = None, lines: int = 100, fleet: Machines | None = None
) -> list[str]:
    """The last `lines` lines of each unit, or of one; each line begins with its unit when there are several, and with
    its replica where a unit has several. A machine that does not answer is a line of its units."""
    told: list[str] = []
    with _found(settings, pipeline_id, fleet) as found:
        units = _chosen(found[pipeline_id], pipeline_id, unit)
        for one, number, mark in _marked(units):
            told += [f"{mark}{line}" for line in printable(_log(one, lines, number)).splitlines()]
    return told


def _marked(units: Sequence[Found]) -> list[tuple[Found, int, str]]:
    """(unit, replica, how each of its lines begins)."""
    marked = []
    for one in units:
        several = one.release is not None and one.release.replicas > 1
        for number in range(one.release.replicas if one.release else 1):
            name = f"{one.unit}.{number}" if several else one.unit
            marked.append((one, number, f"{name} | " if several or len(units) > 1 else ""))
    return marked


def _log(found: Found, lines: int, number: int) -> str:
    if found.release is None or found.host is None:
        return f"({found.why})"
    return form_of(found.release).log(found.host, found.pipeline, found.unit, lines, number)


def follow(
    settings: Settings, pipeline_id: str, unit: str | None = None, lines: int = 10, fleet: Machines | None = None
) -> Generator[str]:
    """Lines as they come, of all machines, until the caller stops."""
    with _found(settings, pipeline_id, fleet) as found:
        units = _chosen(found[pipeline_id], pipeline_id, unit)
        come: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        tails = [_Tail(one, number, lines, mark, come) for one, number, mark in _marked(units)]
        for tail in tails:
            tail.start()
        try:
            ended = 0
            while ended < len(tails):
                line = come.get()
                ended += line is None
                if line is not None:
                    yield printable(line)
        finally:
            for tail in tails:
                tail.stop()


class _Tail(threading.Thread):
    """Passes on what a replica of a unit logs, and None at the end. One on another machine ends with its connection."""

    def __init__(self, found: Found, number: int, lines: int, mark: str, come: queue.SimpleQueue[str | None]) -> None:
        super().__init__(daemon=True)
        self._found, self._mark, self._come = found, mark, come
        self._argv: Sequence[str] = ()
        if found.release is not None and found.host is not None:
            self._argv = form_of(found.release).follow(found.host, found.pipeline, found.unit, lines, number)
        self._here: subprocess.Popen[str] | None = None

    def run(self) -> None:
        try:
            for line in self._lines():
                if not line.startswith("tail: "):  # its own remarks, as on a rotation
                    self._come.put(f"{self._mark}{line}")
        except MLPackerError as error:
            self._come.put(f"{self._mark}({error.message})")
        finally:
            self._come.put(None)

    def _lines(self) -> Iterator[str]:
        if self._found.host is None:
            yield f"({self._found.why})"
        elif self._found.host.machine is not None:
            yield from self._found.host.listen(self._argv)
        else:
            pipe = subprocess.PIPE
            self._here = subprocess.Popen(
                self._argv, stdout=pipe, stderr=subprocess.STDOUT, text=True, errors="replace"
            )
            with self._here as tail:
                yield from (line.rstrip("\n") for line in tail.stdout or ())

    def stop(self) -> None:
        if self._here is not None:
            self._here.terminate()


def _chosen(found: Sequence[Found], pipeline_id: str, unit: str | None) -> list[Found]:
    there = [one.unit for one in found]
    if unit is not None and unit not in there:
        raise NotDeployed(f"pipeline {pipeline_id!r} has no unit {unit!r} here", f"there is {', '.join(there)}")
    return [one for one in found if unit in (None, one.unit)]
