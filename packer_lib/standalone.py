"""Airflow as we ship it for one machine: its settings as environment variables, its processes started and stopped.

For the demo, the tests and `mlpacker airflow`. Airflow is run, never imported. Larger installations take the same
settings and bring their own database, executor and users.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import astuple, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

from packer_lib.errors import MLPackerError

ROOT = Path(__file__).resolve().parent.parent
COMPONENTS = ("api-server", "scheduler", "dag-processor")
ADMIN = "admin"
STOP_WITHIN = 15.0
# Airflow's own matcher of `.airflowignore` warns in the log of every task.
QUIET = {"PYTHONWARNINGS": "ignore:GitWildMatchPattern"}


@dataclass(frozen=True, slots=True)
class Ports:
    """Where this Airflow listens, on 127.0.0.1. A second one on the machine needs its own three."""

    api: int = 8080
    worker_logs: int = 8793
    trigger_logs: int = 8794


def environment(home: Path, pipelines: Path, ports: Ports = Ports(), *, login: bool = True) -> dict[str, str]:
    """What Airflow needs in its environment to watch `pipelines`, with its database, logs and secrets below `home`.

    Without `login` whoever reaches the port is an administrator: for a demo on this machine only.
    """
    kept = _secrets(home)
    sections: dict[str, dict[str, Any]] = {
        "CORE": {
            "EXECUTOR": "LocalExecutor",
            "LOAD_EXAMPLES": False,
            "DAGS_FOLDER": ROOT / "dags",
            "PLUGINS_FOLDER": ROOT / "plugins",
            "EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{ports.api}/execution/",
            "FERNET_KEY": kept["fernet"],
            # All of them are forked at the start, 32 by default.
            "PARALLELISM": 4,
            # With the default of 30 s an edit soon after the last one is dropped until the file is parsed again.
            "MIN_SERIALIZED_DAG_UPDATE_INTERVAL": 0,
            "SIMPLE_AUTH_MANAGER_USERS": f"{ADMIN}:admin",
            "SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": _passwords(home, kept["password"]),
            "SIMPLE_AUTH_MANAGER_ALL_ADMINS": not login,
        },
        "DATABASE": {"SQL_ALCHEMY_CONN": f"sqlite:///{home / 'airflow.db'}"},
        "LOGGING": {
            "BASE_LOG_FOLDER": home / "logs",
            "WORKER_LOG_SERVER_PORT": ports.worker_logs,
            "TRIGGER_LOG_SERVER_PORT": ports.trigger_logs,
            # It logs every look at the watched folder, one a second.
            "NAMESPACE_LEVELS": "airflow.dag_processing.manager=WARNING",
        },
        "API": {
            "HOST": "127.0.0.1",
            "PORT": ports.api,
            "BASE_URL": f"http://127.0.0.1:{ports.api}",
            "WORKERS": 1,
            "SECRET_KEY": kept["api"],
        },
        "API_AUTH": {"JWT_SECRET": kept["jwt"]},
        "DAG_PROCESSOR": {
            "DAG_BUNDLE_CONFIG_LIST": json.dumps(_bundles(pipelines)),
            "DAG_BUNDLE_STORAGE_PATH": home / "dag-bundles",
            # How soon new, changed and removed files are noticed: the defaults are 5 and 300 s.
            "BUNDLE_REFRESH_CHECK_INTERVAL": 1,
            "REFRESH_INTERVAL": 2,
            # A file whose date changes is parsed at once all the same.
            "MIN_FILE_PROCESS_INTERVAL": 300,
            # A version is kept while somebody may want to deploy its state again, by clearing its run.
            "STALE_BUNDLE_CLEANUP_AGE_THRESHOLD": 30 * 24 * 3600,
            "STALE_BUNDLE_CLEANUP_MIN_VERSIONS": 100,
        },
        # How long each task of a chain waits for its turn: the default is 1 s.
        "SCHEDULER": {"SCHEDULER_IDLE_SLEEP_TIME": 0.1},
        # How long a task that has ended may hold its slot: the default is 5 s.
        "WORKERS": {"MIN_HEARTBEAT_INTERVAL": 1},
    }
    named = {f"AIRFLOW__{name}__{key}": str(value) for name, keys in sections.items() for key, value in keys.items()}
    return {"AIRFLOW_HOME": str(home), "MLPACKER__PATHS__PIPELINES": str(pipelines), **QUIET, **named}


def _bundles(pipelines: Path) -> list[dict[str, Any]]:
    """Ours over the watched folder, and Airflow's own for `dags/`."""
    watched = {"source": str(pipelines), "refresh_interval": 1}
    return [
        {"name": "mlpacker", "classpath": "mlpacker_airflow.bundle.PadlDagBundle", "kwargs": watched},
        {"name": "dags-folder", "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle", "kwargs": {}},
    ]


def _secrets(home: Path) -> dict[str, str]:
    """This Airflow's own secrets, made once and readable by their owner only."""
    path = home / "secrets.json"
    if not path.exists():
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        made = {
            "jwt": secrets.token_urlsafe(64),
            "api": secrets.token_urlsafe(32),
            "fernet": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
            "password": secrets.token_urlsafe(12),
        }
        _write_private(path, json.dumps(made))
    return _read(path)


def _read(path: Path) -> dict[str, str]:
    return dict(json.loads(path.read_text(encoding="utf-8")))


def _passwords(home: Path, password: str) -> Path:
    path = home / "passwords.json"
    if not path.exists():
        _write_private(path, json.dumps({ADMIN: password}))
    return path


def _write_private(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text, encoding="utf-8")


def free_ports() -> Ports:
    """Three ports that were free a moment ago, all different because all are held until the last is known."""
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
    numbers = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return Ports(*numbers)


def _require_free(ports: Ports) -> None:
    """Otherwise whoever holds a port would answer in our place."""
    for port in astuple(ports):
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError as error:
            raise MLPackerError(
                f"port {port} is taken: {error.strerror}", "stop what listens there, or give another"
            ) from None


@dataclass
class Airflow:
    """Airflow's three processes on this machine, each a process group of its own, logging to files in `home`.

    `extra` comes into their environment, on top of this process's own and of `environment`.
    """

    home: Path
    pipelines: Path
    ports: Ports = field(default_factory=free_ports)
    login: bool = True
    extra: Mapping[str, str] = field(default_factory=dict)
    _running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict, init=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ports.api}"

    @property
    def password(self) -> str:
        """The administrator's (`admin`), made at the first start."""
        return _read(_passwords(self.home, _secrets(self.home)["password"]))[ADMIN]

    def start(self, within: float = 120.0) -> None:
        """Returns when all three are at work.

        `MLPackerError` names the one that is not after `within` seconds, with its last lines; then none stays.
        """
        _require_free(self.ports)
        begun = datetime.now(UTC)
        self.pipelines.mkdir(parents=True, exist_ok=True)
        ours = environment(self.home, self.pipelines, self.ports, login=self.login)
        env = {**os.environ, **ours, **self.extra}
        try:
            self._migrate(env)
            for component in COMPONENTS:
                self._running[component] = self._start(component, env)
            self._wait(begun, time.monotonic() + within)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Ends every process that `start` started and what they started; those that will not within 15 s are killed."""
        for process in self._running.values():
            _signal(process, signal.SIGTERM)
        end = time.monotonic() + STOP_WITHIN
        for process in self._running.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, end - time.monotonic()))
            _signal(process, signal.SIGKILL)  # what is left of its group: the scheduler's workers can outlive it
            process.wait()
        self._running.clear()

    def watch(self) -> NoReturn:
        """Never returns: raises `MLPackerError` when one of the processes has ended."""
        while True:
            self._require_alive()
            time.sleep(1.0)

    def __enter__(self) -> Airflow:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def log(self, component: str) -> Path:
        return self.home / f"{component}.log"

    def token(self) -> str:
        """For the `Authorization: Bearer` header of the REST API."""
        body = {"username": ADMIN, "password": self.password}
        return str(self._ask("POST", "/auth/token", body)["access_token"])

    def ask(self, method: str, path: str, body: Any = None, token: str = "") -> Any:
        """The JSON of one call of Airflow's REST API (`/api/v2/…`) as administrator; `HTTPError` when it is refused."""
        return self._ask(method, path, body, token or self.token())

    def _ask(self, method: str, path: str, body: Any = None, token: str = "") -> Any:
        headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, headers, method=method)  # noqa: S310  our own http address
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            return json.loads(answer.read() or b"null")

    def _migrate(self, env: Mapping[str, str]) -> None:
        """The database's tables; a fresh one takes a second, plus Airflow's own imports."""
        argv = [sys.executable, "-c", "from airflow.utils.db import initdb; initdb()"]
        log = self.log("migrate")
        with log.open("wb") as output:
            done = subprocess.run(argv, env=env, stdout=output, stderr=output, check=False)
        if done.returncode:
            raise MLPackerError(f"Airflow's database cannot be prepared:\n{_tail(log)}", f"the whole log is {log}")

    def _start(self, component: str, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
        with self.log(component).open("ab") as output:
            return subprocess.Popen(
                [sys.executable, "-m", "airflow", component],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def _wait(self, begun: datetime, end: float) -> None:
        while not self._healthy(begun):
            self._require_alive()
            if time.monotonic() > end:
                raise MLPackerError("Airflow is not at work in time", self._where())
            time.sleep(0.1)

    def _require_alive(self) -> None:
        for component, process in self._running.items():
            if process.poll() is not None:
                last = _tail(self.log(component))
                raise MLPackerError(f"Airflow's {component} has ended:\n{last}", self._where())

    def _healthy(self, begun: datetime) -> bool:
        """Airflow calls a process healthy for 30 s after its last heartbeat; those before this start do not count."""
        try:
            health = self._ask("GET", "/api/v2/monitor/health")
        except (OSError, ValueError):
            return False
        beats = [health[name][f"latest_{name}_heartbeat"] for name in ("scheduler", "dag_processor")]
        return all(beat and datetime.fromisoformat(beat) >= begun for beat in beats)

    def _where(self) -> str:
        return f"its logs: {', '.join(str(self.log(component)) for component in COMPONENTS)}"


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    """To the whole group of a process we started; fine when it is gone."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _tail(log: Path, lines: int = 15) -> str:
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
