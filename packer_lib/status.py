"""What is live on this machine, asked of the machine: its records, supervisor, and the units themselves."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any

from packer_lib import commands
from packer_lib.errors import MLPackerError, printable
from packer_lib.hosts import Host
from packer_lib.hosts.layout import Layout, program
from packer_lib.hosts.local import LocalHost
from packer_lib.release import records, supervisor
from packer_lib.release.model import Release
from packer_lib.release.supervisor import State
from packer_lib.release.verify import toolbox
from packer_lib.settings import Settings

ANSWER_WITHIN = "2"
STATES = {"FATAL": "failed", "BACKOFF": "starting", "RUNNING": "starting", "STARTING": "starting"}


class NotDeployed(MLPackerError):
    """No such pipeline or unit here; the text lists what there is."""

    exit_code = 2


def status(settings: Settings, pipeline_id: str | None = None) -> list[dict[str, Any]]:
    """One dict per pipeline: `{"pipeline", "units": [{"name", "machine", "state", "endpoint", "release", "models",
    "since", "reason", "pid", "run", "by"}]}`. `state` is running (ready), starting, stopped or failed; `reason`
    says why it is not running; `models` are `{"step", "version", "sha256"}` as the unit itself says, or as it was
    deployed when it is silent.
    """
    host, layout = LocalHost(settings), Layout(str(settings.home))
    names = _known(host, layout, pipeline_id)
    processes = supervisor.ask_all(host, layout) if names else {}
    return [{"pipeline": name, "units": _units(host, layout, name, processes)} for name in names]


def _known(host: Host, layout: Layout, pipeline_id: str | None) -> list[str]:
    there = records.pipelines(host, layout)
    if pipeline_id is None:
        return there
    if pipeline_id not in there:
        listed = ", ".join(there) or "nothing"
        raise NotDeployed(f"no pipeline {pipeline_id!r} is deployed here", f"there is {listed}")
    return [pipeline_id]


def _units(host: Host, layout: Layout, pipeline: str, processes: dict[str, State]) -> list[dict[str, Any]]:
    found = []
    for name in records.units(host, layout, pipeline):
        release = records.current(host, layout, pipeline, name) or next(
            iter(records.history(host, layout, pipeline, name)), None
        )
        if release is not None:
            found.append(_unit(host, layout, release, processes.get(program(pipeline, name), State("UNKNOWN"))))
    return found


def _unit(host: Host, layout: Layout, release: Release, process: State) -> dict[str, Any]:
    state, reason, info = STATES.get(process.word, "stopped"), process.text, {}
    if process.alive:
        state, reason = _readiness(host, layout, release)
        info = _body(toolbox(host, layout, "http", "GET", f"{release.endpoint}/info", ANSWER_WITHIN))
    return {
        "name": release.unit,
        "machine": None,
        "state": state,
        "endpoint": release.endpoint,
        "release": info.get("release") or release.id,
        "models": info.get("models") or _deployed_models(release),
        "since": release.since,
        "reason": reason,
        "pid": process.pid or supervisor.pid(host, layout, program(release.pipeline, release.unit)),
        "run": release.run,
        "by": release.by,
    }


def _readiness(host: Host, layout: Layout, release: Release) -> tuple[str, str]:
    answer = toolbox(host, layout, "http", "GET", f"{release.endpoint}/readyz", ANSWER_WITHIN)
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


def logs(settings: Settings, pipeline_id: str, unit: str | None = None, lines: int = 100) -> list[str]:
    """The last `lines` lines of each unit, or of one; each line begins with its unit when there are several."""
    host, layout = LocalHost(settings), Layout(str(settings.home))
    units = _chosen(host, layout, pipeline_id, unit)
    found: list[str] = []
    for name in units:
        text = host.run(commands.tail(layout.log(pipeline_id, name), lines)).out
        found += [f"{name} | {line}" if len(units) > 1 else line for line in printable(text).splitlines()]
    return found


def follow(settings: Settings, pipeline_id: str, unit: str | None = None, lines: int = 10) -> Iterator[str]:
    """Lines as they come, across rotations, until the caller stops."""
    host, layout = LocalHost(settings), Layout(str(settings.home))
    files = [layout.log(pipeline_id, name) for name in _chosen(host, layout, pipeline_id, unit)]
    argv = commands.follow(lines, *files)
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, errors="replace") as tail:
        try:
            for line in tail.stdout or ():
                yield printable(line.rstrip("\n"))
        finally:
            tail.terminate()


def _chosen(host: Host, layout: Layout, pipeline_id: str, unit: str | None) -> list[str]:
    _known(host, layout, pipeline_id)
    there = records.units(host, layout, pipeline_id)
    if unit is not None and unit not in there:
        raise NotDeployed(f"pipeline {pipeline_id!r} has no unit {unit!r} here", f"there is {', '.join(there)}")
    return [unit] if unit else there
