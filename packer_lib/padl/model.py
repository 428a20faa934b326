"""What a PADL file says, as frozen values; imports `errors` only. Nothing here checks anything (see `check`)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from packer_lib.errors import Problem

PackageMode = Literal["api", "stream"]
DeployMode = Literal["local", "remote"]
OnError = Literal["fail", "skip", "dead_letter"]
Delivery = Literal["at_least_once", "exactly_once"]


@dataclass(frozen=True, slots=True)
class Batch:
    """Bounds of one batch. `max_wait_ms` 0: take what is waiting, never wait for more."""

    max_size: int = 2048
    max_wait_ms: int = 0


@dataclass(frozen=True, slots=True)
class Golden:
    """The golden request of a step: `input` in, and `output` out where it is given (numbers compared within 1e-4)."""

    input: Any
    output: Any = None


@dataclass(frozen=True, slots=True)
class Resources:
    """The most for a unit's container: `memory` as Docker writes it (`512m`), `cpus` processors. "" and 0: all."""

    memory: str = ""
    cpus: float = 0.0


NO_LIMITS = Resources()


@dataclass(frozen=True, slots=True)
class Step:
    """One entry of `pipeline`. `inputs` and `outputs` hold queue ids or names of neighbouring steps, as written."""

    name: str
    kind: Literal["model", "code"]
    path: str
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    machine: str | None = None
    # model
    framework: str | None = None
    serializer: str | None = None
    sha256: str | None = None
    input_format: str = "json"
    output_format: str = "json"
    versions: dict[str, Any] = field(default_factory=lambda: {"latest": 1})
    # code
    entrypoint: str = "main.py"
    function: str = "handler"
    ref: str | None = None
    # both (PADL 1.1)
    description: str = ""
    replicas: int = 1
    batch: Batch = Batch()
    on_error: OnError = "fail"
    dead_letter: str | None = None
    delivery: Delivery = "at_least_once"
    test: Golden | None = None
    port: int | None = None
    env: dict[str, str] = field(default_factory=dict)
    resources: Resources = NO_LIMITS
    idempotent: bool = False


@dataclass(frozen=True, slots=True)
class Link:
    """How an API unit calls the next: `timeout` seconds a call, and how often one without an answer is repeated."""

    timeout: float = 10.0
    retries: int = 2


@dataclass(frozen=True, slots=True)
class Queue:
    """`options` holds the connector's further props (`role`, `qos`, `config`, `pass_env` …), never a secret. `schema`
    is the JSON Schema of its messages, or the path of a file that has it."""

    id: str
    connector: str
    server: str
    port: int
    topic: str
    options: dict[str, Any] = field(default_factory=dict)
    schema: dict[str, Any] | str | None = None


@dataclass(frozen=True, slots=True)
class SecretRef:
    """Where a secret is, never what it is: an environment variable, an Airflow connection, a key file, or a JSON
    pointer into the PADL file (`/infra/m1/sshConfig/pass`)."""

    kind: Literal["env", "conn", "file", "padl"]
    where: str


@dataclass(frozen=True, slots=True)
class Machine:
    id: str
    hostname: str
    user: str | None = None
    port: int = 22
    secret: SecretRef | None = None
    host_key: str | None = None
    install: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Admin:
    """Where a unit that runs is changed, by who has the token: `port` for the first unit of a machine, the next for the
    next. On 127.0.0.1, or with `expose` where the unit itself listens."""

    port: int
    token: SecretRef | None = None
    expose: bool = False


@dataclass(frozen=True, slots=True)
class Pipeline:
    """One PADL file. Steps, queues and machines stay in the order of the file."""

    version: str
    id: str
    containerized: bool
    package_mode: PackageMode
    deploy_mode: DeployMode
    steps: tuple[Step, ...]
    queues: tuple[Queue, ...] = ()
    machines: tuple[Machine, ...] = ()
    # PADL 1.1
    schedule: str | None = None
    autodeploy: bool = True
    retries: int = 2
    owner: str = "mlpacker"
    tags: tuple[str, ...] = ()
    description: str = ""
    env: dict[str, str] = field(default_factory=dict)
    registry: str | None = None
    link: Link = Link()
    admin: Admin | None = None
    key: SecretRef | None = None
    file: str = ""
    warnings: tuple[Problem, ...] = ()
