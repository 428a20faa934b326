"""What a pipeline has left on a machine: asked of the machine itself, with its own tools, not of ours."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

# Files of a pipeline, not what pipelines share (environments, the store, supervisor's own log).
FOLDERS = ("bundles", "conf.d", "releases", "locks", "logs", "doors", "pipelines")
ENGINE = (
    ("container", ("ps", "-a", "--format", "{{.Names}}")),
    ("volume", ("volume", "ls", "--format", "{{.Name}}")),
    ("network", ("network", "ls", "--format", "{{.Name}}")),
    ("image", ("images", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}")),
    ("labelled image", ("images", "-a", "--filter", "label=io.mlpacker.pipeline", "--format", "{{.ID}}")),
)
Ask = Callable[..., str]
PROCESSES = "for file in /proc/[0-9]*/cmdline; do tr '\\0' ' ' < $file; echo; done 2>/dev/null; true"
# What it prints counts, however it ends: `find` minds folders that are not there.
ANYHOW = ("sh", "-c", '"$@"; true', "sh")


def here(*argv: str) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=False).stdout


def left(ask: Ask, home: str, docker: str = "") -> list[str]:
    """Everything of ours on the machine that `ask` asks, in one line each. `docker` is its client, if it has one."""
    return sorted([*_processes(ask, home), *_files(ask, home), *(_objects(ask, docker) if docker else [])])


def _processes(ask: Ask, home: str) -> list[str]:
    lines = ask("sh", "-c", PROCESSES).splitlines()
    ours = (f"{home}/bundles", f"{home}/envs", f"{home}/doors", f"{home}/supervisord", f"{home}/door.py")
    return [f"process {line}" for line in lines if any(word in line for word in ours)]


def _files(ask: Ask, home: str) -> list[str]:
    found = ask(*ANYHOW, "find", *(f"{home}/{name}" for name in FOLDERS), "-mindepth", "1").splitlines()
    return [f"file {path}" for path in found if Path(path).name.partition(".")[0] != "supervisord"]


def _objects(ask: Ask, docker: str) -> list[str]:
    found = []
    for kind, words in ENGINE:
        lines = ask(*ANYHOW, docker, *words).splitlines()
        found += [f"{kind} {line}" for line in lines if kind == "labelled image" or _is_ours(line)]
    return found


def _is_ours(name: str) -> bool:
    """Ours begin with `mlpacker`; the lab's own with `mlpacker-lab`."""
    name = name.rpartition("/mlpacker/")[1].strip("/") or name  # an image may have a registry before its name
    return name.startswith("mlpacker") and not name.startswith("mlpacker-")
