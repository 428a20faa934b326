"""`unit.json`: all that a unit is told by its PADL, as data; written by the orchestrator and read in the unit.

What differs between machines (port, address, log level) is not here but in the environment (see `Settings`), so that
one bundle has one digest wherever it runs. Standard library only.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from pathlib import Path
from typing import Any

FORMAT = 1
SHORTEST_TOKEN = 16  # characters
LEFT, STALLED = 85, 70  # exit codes of a streaming unit: it has left for good; its watchdog ended it


@dataclass(frozen=True, slots=True)
class StepSpec:
    """One step of the unit. `path` is relative to the bundle; `inputs` and `outputs` are queue ids or steps of it.
    `versions` says which of its models stay loaded, see `wanted.kept`."""

    name: str
    kind: str
    path: str
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    framework: str = ""
    serializer: str = ""
    sha256: str = ""
    input_format: str = "json"
    output_format: str = "json"
    entrypoint: str = "main.py"
    function: str = "handler"
    max_batch: int = 1024
    max_wait_ms: int = 0
    on_error: str = "fail"
    dead_letter: str = ""
    delivery: str = "at_least_once"
    test: dict[str, Any] | None = None
    versions: dict[str, Any] = field(default_factory=lambda: {"latest": 1})


@dataclass(frozen=True, slots=True)
class QueueSpec:
    """`schema` is the JSON Schema that every message read from it is held to, or None."""

    id: str
    connector: str
    server: str
    port: int
    topic: str
    options: dict[str, Any] = field(default_factory=dict)
    schema: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Manifest:
    """Steps are in the order in which they run: a step's neighbours inside the unit come before it."""

    pipeline: str
    unit: str
    mode: str
    steps: tuple[StepSpec, ...]
    queues: dict[str, QueueSpec] = field(default_factory=dict)
    links: tuple[str, ...] = ()
    format: int = FORMAT

    def entries(self) -> tuple[StepSpec, ...]:
        """The steps that none of this unit comes before."""
        names = {step.name for step in self.steps}
        return tuple(step for step in self.steps if not names.intersection(step.inputs))

    def to_json(self) -> str:
        """The same bytes for the same value: sorted keys, two spaces, a newline at the end."""
        return json.dumps(asdict(self), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def parse(text: str) -> Manifest:
    """The manifest in `text`; `ValueError` when its format is not ours."""
    data = json.loads(text)
    if data.get("format") != FORMAT:
        raise ValueError(f"unit.json has format {data.get('format')!r}, this runtime reads {FORMAT}")
    steps = tuple(_build(StepSpec, step) for step in data["steps"])
    queues = {name: _build(QueueSpec, queue) for name, queue in data["queues"].items()}
    manifest: Manifest = _build(Manifest, {**data, "steps": steps, "queues": queues})
    return manifest


def load(folder: Path) -> Manifest:
    """The manifest of the bundle in `folder`."""
    return parse((folder / "unit.json").read_text(encoding="utf-8"))


def _build(kind: type[Any], data: dict[str, Any]) -> Any:
    known = {item.name for item in fields(kind)}
    return kind(
        **{
            key: tuple(value) if isinstance(value, list) and key in _TUPLES else value
            for key, value in data.items()
            if key in known
        }
    )


_TUPLES = {"inputs", "outputs", "links", "steps"}


@dataclass(frozen=True, slots=True)
class Settings:
    """What the machine tells the unit: `MLPACKER_HOST`, `MLPACKER_PORT` … (port 0: any free one).

    `door` is the folder of the unit's door, see door/; host and port are private then. `links` says where the units
    are that this one calls, see links.py. This is process `replica` (from 0) of `replicas` of the unit. `state` is a
    folder of its own that outlives the process, see deliveries.py; after `stall_seconds` without progress while
    messages wait it no longer counts as alive, and after as many again it ends (0: never), see watchdog.py. What
    changes an API unit is asked on `admin_host:admin_port` (0: nowhere), by who has the `token`; `max_model_mib` bounds
    a model that is sent there, `unsafe_uploads`: one of a format that can carry code, too, see uploads.py. An API unit
    has as many processes as `workers` says, of which this is `worker` (from 0), see workers.py. `api_key`
    is what the routes that predict ask for, one or several separated by commas ("": anybody may). Requests with more
    than `max_waiting_mib` together do not wait.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    log_level: str = "INFO"
    release: str = ""
    door: str = ""
    links: str = ""
    max_body_mib: int = 32
    replica: int = 0
    replicas: int = 1
    state: str = ""
    stall_seconds: float = 600.0
    token: str = field(default="", repr=False)
    admin_host: str = "127.0.0.1"
    admin_port: int = 0
    max_model_mib: int = 512
    unsafe_uploads: bool = False
    workers: int = 1
    worker: int = 0
    api_key: str = field(default="", repr=False)
    max_waiting_mib: int = 256


def settings() -> Settings:
    """`Settings` from the environment; an unset or empty variable keeps the default."""
    env = {item.name: os.environ.get(f"MLPACKER_{item.name.upper()}", "") for item in fields(Settings)}
    given: dict[str, Any] = {name: value for name, value in env.items() if value}
    whole = {"port", "admin_port", "max_body_mib", "max_model_mib", "max_waiting_mib"}
    for name in (whole | {"replica", "replicas", "workers", "worker"}) & given.keys():
        given[name] = int(given[name])
    for name in {"unsafe_uploads"} & given.keys():
        given[name] = given[name] == "true"
    for name in {"stall_seconds"} & given.keys():
        given[name] = float(given[name])
    return Settings(**given)


def objection(settings: Settings) -> str:
    """Why a unit that is told this cannot be started, or ""."""
    token, asked = settings.token, "MLPACKER_TOKEN, which every admin route asks for"
    if settings.admin_port and not token:
        return f"MLPACKER_ADMIN_PORT is set, and not {asked}; set both or neither"
    if token and len(token) < SHORTEST_TOKEN:
        return f"{asked}, is {len(token)} characters long; make it {SHORTEST_TOKEN} at least"
    if not (token.isascii() and token.isprintable()) or " " in token:
        return f"{asked}, has other characters than visible ones of ASCII"
    return ""


def state_folder(settings: Settings, bundle: Path) -> Path:
    """Where the unit of `bundle` keeps what is to outlive its process."""
    return Path(settings.state) if settings.state else bundle / ".mlpacker-state"


def describe(manifest: Manifest, settings: Settings, started: datetime) -> dict[str, Any]:
    """What `/info` of every unit says; the `version` of a model is the start of its sha256."""
    return {
        "pipeline": manifest.pipeline,
        "unit": manifest.unit,
        "mode": manifest.mode,
        "release": settings.release,
        **({"replica": settings.replica} if manifest.mode == "stream" else {"workers": settings.workers}),
        "steps": [
            {"name": step.name, "kind": step.kind, "framework": step.framework or "python"} for step in manifest.steps
        ],
        "models": models(manifest.steps),
        "started": started.isoformat(timespec="seconds"),
    }


def models(steps: Iterable[StepSpec]) -> list[dict[str, str]]:
    """What `/info` says of the models of `steps`."""
    found = (step for step in steps if step.kind == "model")
    return [{"step": step.name, "version": step.sha256[:12], "sha256": step.sha256} for step in found]
