"""What a pipeline has left on a machine: asked of the machine itself, with its own tools, not of ours."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

# Files of a pipeline, not what pipelines share (environments, the store, supervisor's own log).
FOLDERS = ("bundles", "conf.d", "releases", "state", "locks", "logs", "doors", "pipelines")
ENGINE = (
    ("container", ("ps", "-a", "--format", "{{.Names}}")),
    ("volume", ("volume", "ls", "--format", "{{.Name}}")),
    ("network", ("network", "ls", "--format", "{{.Name}}")),
    ("image", ("images", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}")),
    ("nameless image", ("images", "-a", "--filter", "label=io.mlpacker.pipeline", "--format", "{{.ID}}")),
)
Ask = Callable[..., str]
# Command line and environment of everything that runs, a line each.
PROCESSES = "cd /proc; for p in [0-9]*; do cat $p/cmdline $p/environ | tr '\\0\\n' '  '; echo; done 2>/dev/null; true"
# What it prints counts, however it ends: `find` minds folders that are not there.
ANYHOW = ("sh", "-c", '"$@"; true', "sh")


def here(*argv: str) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=False).stdout


@dataclass(frozen=True, slots=True)
class Place:
    """A machine: how it is asked, our home there, its docker client if it has one. `alone`: nobody else's pipelines
    are there, so that whatever is ours is the pipeline's."""

    ask: Ask
    home: str
    docker: str = ""
    alone: bool = True


def left(place: Place, pipeline: str, releases: Collection[str]) -> list[str]:
    """Everything of the pipeline there, in one line each; `releases` are the ids that it had."""
    found = [*_files(place), *(_objects(place) if place.docker else [])]
    mine = found if place.alone else [line for line in found if _names(line, pipeline)]
    return sorted([*mine, *_processes(place, pipeline, releases), *_bundles(place, pipeline)])


def _names(line: str, pipeline: str) -> bool:
    """Whether it is about `pipeline`, and not one whose id only contains it."""
    words = line.replace("~", ".").replace("/", ".").replace(" ", ".").replace(":", ".").split(".")
    return pipeline in words


def _processes(place: Place, pipeline: str, releases: Collection[str]) -> list[str]:
    lines = place.ask("sh", "-c", PROCESSES).splitlines()
    signs = [f"MLPACKER_RELEASE={release}" for release in releases] + [f"/{pipeline}~"]
    signs += [f"{place.home}/supervisord.conf", f"{place.home}/envs/"] if place.alone else []
    return [f"process {line[:120]}" for line in lines if any(sign in line for sign in signs) and "cat " not in line]


def _files(place: Place) -> list[str]:
    roots = (f"{place.home}/{name}" for name in FOLDERS)
    found = place.ask(*ANYHOW, "find", *roots, "-mindepth", "1").splitlines()
    return [f"file {path}" for path in found if Path(path).name.partition(".")[0] != "supervisord"]


def _bundles(place: Place, pipeline: str) -> list[str]:
    """Their names are their content; each says whose it is."""
    words = ("grep", "-rls", "--include", "unit.json", f'"pipeline": "{pipeline}"', f"{place.home}/bundles")
    return [f"bundle {path}" for path in place.ask(*ANYHOW, *words).splitlines()]


def _objects(place: Place) -> list[str]:
    found = []
    for kind, words in ENGINE:
        lines = place.ask(*ANYHOW, place.docker, *words).splitlines()
        found += [f"{kind} {line}" for line in lines if kind == "nameless image" or _is_ours(line)]
    return found


def _is_ours(name: str) -> bool:
    """Ours begin with `mlpacker`, behind a registry's name maybe; the lab's own with `mlpacker-lab`."""
    return any(
        part.startswith(("mlpacker.", "mlpacker ", "mlpacker:")) or part == "mlpacker" for part in name.split("/")
    )
