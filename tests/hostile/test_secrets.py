"""A password travels through a whole deploy to a real machine and is nowhere afterwards but where it must be (T9, T10).

Two secrets: the literal `pass` of a machine, and what a unit's broker wants to hear (`pass_env`). Looked for in what is
printed, in every command line of every process here and there while it happens, on both disks, and in images.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from packer_lib import settings
from packer_lib.standalone import Airflow, free_ports
from tests.airflow.running import Running
from tests.lab import lab
from tests.lab.place import docker
from tests.support import wait_for

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1200)]
MLPACKER = str(Path(sys.executable).with_name("mlpacker"))
VARIABLE = "MLPACKER_SECRET_SENTINEL"  # a name that tasks of Airflow may use


@dataclass(frozen=True, slots=True)
class Place:
    """A user of a lab machine's own for this test, with a password that nobody else has, and a folder that deploys."""

    machine: lab.Machine
    user: str
    password: str
    broker: str
    folder: Path

    @property
    def secrets(self) -> tuple[str, str]:
        return self.password, self.broker

    def padl(self, containerized: bool) -> Path:
        props = {"server": "mqtt_1", "username": "plant", "pass_env": VARIABLE}
        step = {
            "type": "code",
            "language": "python",
            "props": {"path": "./code"},
            "queues": {"input": "raw", "output": "done"},
            "infra": "m",
        }
        login = self.machine.ssh_config(user=self.user, **{"pass": self.password})
        document = {
            "version": "1.1",
            "id": self.user,
            "containerized": containerized,
            "package-mode": "stream",
            "deploy-mode": "remote",
            "pipeline": {"echo": step},
            "queues": {
                name: {"connector": "mqtt", "props": {**props, "topic": f"{self.user}/{name}"}}
                for name in ("raw", "done")
            },
            "infra": {"m": {"hostname": self.machine.hostname, "sshConfig": login}},
        }
        file = self.folder / "pipeline.json"
        file.touch(0o600)
        file.write_text(json.dumps(document, indent=1))
        return file

    def mlpacker(self, *words: str) -> str:
        """What it prints, on either stream."""
        done = subprocess.run((MLPACKER, *words), env=self.environment(), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    def environment(self) -> dict[str, str]:
        """Of who deploys."""
        home = str(self.folder / "home")
        return {**os.environ, **lab.settings_env(), "MLPACKER__PATHS__HOME": home, VARIABLE: self.broker}

    def held_there(self, secret: str) -> list[str]:
        """Files of that machine that hold `secret`; the shadow file of the login has its hash only."""
        found = self.machine.exec("grep", "-rlIaF", secret, "/home", "/tmp", "/var", "/root", "/run", check=False)
        return [line for line in found.splitlines() if not line.startswith("/var/lib/docker/")]

    def held_here(self, secret: str) -> list[str]:
        files = (path for path in (self.folder / "home").rglob("*") if path.is_file() and not path.is_symlink())
        return [str(path.relative_to(self.folder)) for path in files if secret.encode() in path.read_bytes()]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    user = f"s{uuid.uuid4().hex[:8]}"
    made = Place(lab.machine("cloud_2"), user, f"hunter2-{uuid.uuid4().hex}", f"hunter3-{uuid.uuid4().hex}", tmp_path)
    (tmp_path / "code").mkdir()
    (tmp_path / "code/main.py").write_text("def handler(value):\n    return value\n")
    made.machine.exec("useradd", "-m", "-G", "docker", "-s", "/bin/bash", user)
    made.machine.exec("sh", "-c", 'echo "$0:$1" | chpasswd', user, made.password)
    try:
        yield made
    finally:
        made.machine.exec("pkill", "-KILL", "-u", user, check=False)
        made.machine.exec("userdel", "-rf", user, check=False)


class Listener:
    """Every command line and every environment's owner of every process of this box, machines of the lab included."""

    def __init__(self) -> None:
        self.heard: set[bytes] = set()
        self._over = threading.Event()

    def listen(self) -> None:
        while not self._over.wait(0.01):
            for file in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    self.heard.add(file.read_bytes())
                except OSError:
                    continue

    def stop(self) -> None:
        self._over.set()


@contextmanager
def listening() -> Iterator[set[bytes]]:
    listener = Listener()
    thread = threading.Thread(target=listener.listen)
    thread.start()
    try:
        yield listener.heard
    finally:
        listener.stop()
        thread.join()


@pytest.mark.parametrize("containerized", [False, True], ids=["native", "container"])
def test_two_secrets_are_nowhere_but_where_they_must_be(place: Place, containerized: bool) -> None:
    file = str(place.padl(containerized))
    try:
        with listening() as heard:
            printed = place.mlpacker("deploy", file)
            printed += place.mlpacker("status", place.user, "--json") + place.mlpacker("logs", place.user)
        assert len(heard) > 20
        assert [line for line in heard if any(secret.encode() in line for secret in place.secrets)] == []
        assert [secret for secret in place.secrets if secret in printed] == []
        only_where_they_must_be(place)
        assert not containerized or in_images(place) == []
    finally:
        place.mlpacker("undeploy", place.user)
    for secret in place.secrets:
        assert [*place.held_there(secret), *place.held_here(secret)] == []


def only_where_they_must_be(place: Place) -> None:
    """The unit's own secret in what it is started with there, the machine's in what the deployer keeps; both 0600."""
    assert place.held_there(place.password) == []
    for found in place.held_there(place.broker):
        assert found.endswith("/launch.json")
        assert place.machine.exec("stat", "-c", "%a %U", found).strip() == f"600 {place.user}"
    kept = f"home/pipelines/{place.user}/kept.json"
    assert place.held_here(place.password) == [kept]
    assert (place.folder / kept).stat().st_mode & 0o777 == 0o600
    assert place.held_here(place.broker) == []


def in_images(place: Place) -> list[str]:
    """Secrets in the history, the configuration or a layer of the unit's images on this box."""
    listed = docker("image", "ls", "-q", "--filter", f"label=io.mlpacker.pipeline={place.user}").split()
    assert listed, "there is an image of the unit"
    told = [docker("history", "--no-trunc", image) + docker("image", "inspect", image) for image in listed]
    saved = subprocess.run((*client(), "save", *listed), capture_output=True, check=True).stdout
    return [secret for secret in place.secrets if any(secret in text for text in told) or secret.encode() in saved]


def client() -> tuple[str, ...]:
    return (lab.settings_env()["MLPACKER__BUILD__DOCKER"],)


@pytest.mark.airflow
def test_nor_are_they_anywhere_in_airflow(place: Place) -> None:
    """Logs, metadata database (rendered fields, XCom, serialized DAGs), DAG files; the pinned text is ours alone."""
    with running(place) as airflow, listening() as heard:
        shutil.copytree(place.folder / "code", airflow.airflow.pipelines / "code")
        airflow.drop("pipeline.json", place.padl(containerized=True).read_text())
        (place.folder / "pipeline.json").unlink()
        ended = wait_for(lambda: airflow.ended(place.user), 900, "the run ends")
        assert ended == "success"
        with sqlite3.connect(airflow.airflow.home / "airflow.db") as database:
            assert not [line for line in database.iterdump() if any(secret in line for secret in place.secrets)]
    assert [line for line in heard if any(secret.encode() in line for secret in place.secrets)] == []
    kept = {path for secret in place.secrets for path in place.held_here(secret)}
    assert {Path(path).suffix for path in kept} <= {".pinned", ".json"}
    assert f"home/pipelines/{place.user}/kept.json" in kept
    assert all((place.folder / path).stat().st_mode & 0o077 == 0 for path in kept)
    place.mlpacker("undeploy", place.user)
    assert [found for secret in place.secrets for found in place.held_there(secret)] == []


@contextmanager
def running(place: Place) -> Iterator[Running]:
    """`mlpacker airflow` as a person starts and ends it."""
    ours = replace(settings.read(), home=place.folder / "home")
    airflow = Airflow(ours.home / "airflow", place.folder / "pipelines", free_ports())
    command = (MLPACKER, "airflow", str(airflow.pipelines), "--port", str(airflow.ports.api))
    with subprocess.Popen(command, env=place.environment(), stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith(airflow.url)
            yield Running(airflow, airflow.token(), ours)
        finally:
            process.terminate()
            process.wait(60)
