"""A password travels through a whole deploy to a real machine and is nowhere afterwards but where it must be (T9, T10).

Two secrets: the literal `pass` of a machine, and what a unit's broker wants to hear (`pass_env`). Looked for in what is
printed, in every command line of every process here and there while it happens, on both disks, and in images.
"""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from packer_lib import settings
from packer_lib.standalone import Airflow, free_ports
from tests.airflow.running import Running
from tests.hostile.place import MLPACKER, VARIABLE, Place
from tests.lab import lab
from tests.lab.place import docker
from tests.support import wait_for

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1200)]


def stream(place: Place, containerized: bool) -> Path:
    """A step between two topics of a broker that wants a password."""
    props = {"server": "mqtt_1", "username": "plant", "pass_env": VARIABLE}
    queues = {
        name: {"connector": "mqtt", "props": {**props, "topic": f"{place.user}/{name}"}} for name in ("raw", "done")
    }
    step = place.code("def handler(value):\n    return value\n") | {"queues": {"input": "raw", "output": "done"}}
    head = {"containerized": containerized, "package-mode": "stream", "pipeline": {"echo": step}}
    return place.padl({**head, "queues": queues})


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
    file = str(stream(place, containerized))
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
        file = stream(place, containerized=True)
        shutil.copytree(place.folder / "code", airflow.airflow.pipelines / "code")
        airflow.drop("pipeline.json", file.read_text())
        file.unlink()
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
