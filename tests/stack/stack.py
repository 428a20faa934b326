"""docker-compose.airflow.yml brought up by Debian's docker-compose, under a name and on ports of this test run.

What stands in for the public images is one image of Debian's packages (lab.Dockerfile); Airflow's is the product's own
Dockerfile on the lab's base image. Both stay on the engine.
"""

from __future__ import annotations

import json
import subprocess
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from tests.lab import lab
from tests.lab.place import SYSTEM_PATH, client, docker, run
from tests.support import ROOT, free_port

HERE = Path(__file__).resolve().parent
FILE = ROOT / "docker-compose.airflow.yml"
PARTS = ("postgres", "redis", "registry", "mosquitto", "kafka")
SERVICES, AIRFLOW = "mlpacker-lab/stack-services", "mlpacker-lab/stack-airflow"
PROFILES = ("registry", "mqtt", "kafka", "demo")
CA_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
SOCKET = Path("/var/run/docker.sock")
READ_ALL = """
import json, pathlib
print(json.dumps({str(file): file.read_text() for file in pathlib.Path("/secrets").rglob("*") if file.is_file()}))
"""


@dataclass
class Stack:
    """One project of compose. `folder` holds its env file and, below `pipelines`, the watched folder."""

    folder: Path
    project: str
    ports: Mapping[str, int] = field(
        default_factory=lambda: {name: free_port() for name in ("AIRFLOW", "REGISTRY", "MQTT", "KAFKA")}
    )

    @property
    def pipelines(self) -> Path:
        return self.folder / "pipelines"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ports['AIRFLOW']}"

    def up(self) -> None:
        self.pipelines.mkdir(exist_ok=True, parents=True)
        self.pipelines.chmod(0o755)
        (self.folder / "env").write_text("".join(f"{key}={value}\n" for key, value in self._variables().items()))
        self.compose("up", "-d")

    def down(self) -> None:
        self.compose("down", "-v", "--remove-orphans", "-t", "5")

    def compose(self, *arguments: str, profiles: Sequence[str] = PROFILES) -> str:
        """What `docker-compose …` prints; `LabError` with its words when it fails."""
        words = ("docker-compose", "--env-file", str(self.folder / "env"), "-f", str(FILE))
        chosen = [word for profile in profiles for word in ("--profile", profile)]
        return run((*words, *chosen, *arguments))

    def exec(self, service: str, *argv: str) -> str:
        return docker("exec", self.container(service), *argv)

    def container(self, service: str) -> str:
        return f"{self.project}_{service}_1"

    def inspect(self, service: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(docker("inspect", self.container(service)))[0]
        return found

    def health(self) -> dict[str, str]:
        """The health of each container that has one; of one that is not running, its state."""
        states = [item["State"] | {"name": item["Name"].strip("/")} for item in self.containers()]
        return {
            state["name"].removeprefix(f"{self.project}_").removesuffix("_1"): state["Health"]["Status"]
            if state["Running"] and "Health" in state
            else state["Status"]
            for state in states
        }

    def containers(self) -> list[dict[str, Any]]:
        ids = docker("ps", "-aq", "--filter", self._label()).split()
        found: list[dict[str, Any]] = json.loads(docker("inspect", *ids)) if ids else []
        return found

    def left(self) -> list[str]:
        """What of this project is on the engine: containers, networks, volumes."""
        kinds = (("ps", "-aq"), ("network", "ls", "-q"), ("volume", "ls", "-q"))
        return [line for kind in kinds for line in docker(*kind, "--filter", self._label()).split()]

    def secrets(self) -> dict[str, str]:
        """Every secret that was made, by its file: read as root from their volumes."""
        names = ("master", "worker", "database", "api", "postgres", "redis", "mqtt", "registry")
        mounts = [word for name in names for word in ("-v", f"{self.project}_secrets-{name}:/secrets/{name}:ro")]
        found: dict[str, str] = json.loads(
            docker("run", "--rm", "--network", "none", "-u", "0", *mounts, AIRFLOW, "python", "-c", READ_ALL)
        )
        return found

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """The answer of Airflow's REST API to its administrator."""
        return call(method, self.url + path, body, {"Authorization": f"Bearer {self._token}"})

    @cached_property
    def _token(self) -> str:
        password = json.loads(self.exec("airflow-apiserver", "cat", "/run/secrets-api/passwords.json"))["admin"]
        login = {"username": "admin", "password": password}
        return str(call("POST", f"{self.url}/auth/token", login)["access_token"])

    def _label(self) -> str:
        return f"label=com.docker.compose.project={self.project}"

    def _variables(self) -> dict[str, object]:
        return {
            "COMPOSE_PROJECT_NAME": self.project,
            "AIRFLOW_IMAGE": AIRFLOW,
            **{f"{part.upper()}_IMAGE": SERVICES for part in PARTS},
            **{f"{name}_PORT": port for name, port in self.ports.items()},
            "PIPELINES": self.pipelines,
            "CA_BUNDLE": CA_BUNDLE if CA_BUNDLE.exists() else "/dev/null",
            "DOCKER_SOCKET": SOCKET,
            "DOCKER_GID": SOCKET.stat().st_gid,
            "MLPACKER__BUILD__BASE_IMAGE": lab.base_image,
            "MLPACKER__DEPLOY__RETIRE_AFTER": 1,
            "STACK_MTU": 1400,
        }


def build_images() -> None:
    """Both images, from the engine's cache when nothing changed; a minute when nothing is there."""
    _build(SERVICES, HERE / "lab.Dockerfile", KAFKA="mlpacker-lab/kafka", MACHINE="mlpacker-lab/machine")
    _build(AIRFLOW, ROOT / "docker" / "airflow.Dockerfile", AIRFLOW_BASE=lab.base_image, DOCKER_CLI=SERVICES)


def _build(name: str, file: Path, **arguments: str) -> None:
    chosen = [word for key, value in arguments.items() for word in ("--build-arg", f"{key}={value}")]
    secret = ("--secret", f"id=ca,src={CA_BUNDLE}") if CA_BUNDLE.exists() else ()
    argv = (client(), "build", "-q", "-f", str(file), *chosen, *secret, "-t", name, str(ROOT))
    run(argv, env={"DOCKER_BUILDKIT": "1"})


def call(method: str, url: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Any:
    """The JSON of an HTTP answer; `HTTPError` when it is a refusal."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json", **(headers or {})}, method=method)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read() or b"null")


def status(url: str, headers: Mapping[str, str] | None = None) -> int:
    """The status code of a GET."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=dict(headers or {})), timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as refused:
        return refused.code


def config(folder: Path, *arguments: str) -> str:
    """`docker-compose config` with nothing set: what a newcomer has. `folder` takes an empty env file."""
    empty = folder / "empty.env"
    empty.touch()
    argv = ("docker-compose", "--env-file", str(empty), "-f", str(FILE), *arguments, "config")
    clean = {"PATH": SYSTEM_PATH, "HOME": str(folder)}
    return subprocess.run(argv, env=clean, capture_output=True, text=True, check=True).stdout
