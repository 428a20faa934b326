"""Logins and registries that Airflow keeps: read from its connections, and used for nothing else."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mlpacker_airflow import machines

from packer_lib import padl, plan, settings
from packer_lib.errors import DeployFailed, PolicyRefused
from packer_lib.hosts import Unreachable
from packer_lib.padl.model import Machine, SecretRef
from packer_lib.secrets import Login
from packer_lib.settings import Settings
from tests.airflow import padls
from tests.lab import lab

REGISTRY = {"conn_type": "docker", "host": "registry.example.org:5000", "login": "ci", "password": "hunter2"}


def planned(containerized: bool = True, **more: Any) -> plan.Plan:
    document = padls.stream(containerized=containerized) | {"version": "1.1"} | more
    return plan.plan(padl.read_text(padls.text(document), "/p/file.json"))


@pytest.fixture
def ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("AIRFLOW_CONN_MLPACKER_REGISTRY", json.dumps(REGISTRY))
    return replace(settings.read({}), home=tmp_path / "home")


def test_the_connection_that_the_file_or_the_installation_names_is_the_registry(ours: Settings) -> None:
    named = machines.with_registry(ours, planned(registry="mlpacker_registry"))
    assert (named.registry, named.registry_user, named.registry_password) == (
        "registry.example.org:5000",
        "ci",
        "hunter2",
    )
    installed = replace(ours, registry_conn="mlpacker_registry", registry="registry.example.org:5000/plant")
    assert machines.with_registry(installed, planned()).registry == "registry.example.org:5000/plant"
    assert "hunter2" not in repr(named)


def test_no_connection_is_read_where_nothing_is_pushed(ours: Settings) -> None:
    absent = replace(ours, registry_conn="mlpacker_absent")
    assert machines.with_registry(absent, planned(containerized=False)) == absent
    assert machines.with_registry(absent, planned(registry="none")) == absent
    assert machines.with_registry(ours, planned()) == ours


def far(name: str, host_key: str = "") -> Machine:
    return Machine(
        name, name, secret=SecretRef("conn", "mlpacker_lab"), host_key=host_key or lab.machine(name).host_key
    )


def allow(monkeypatch: pytest.MonkeyPatch, **changes: str) -> None:
    given = {"conn_type": "ssh", "host": "cloud_1", "login": lab.machine("cloud_1").user}
    monkeypatch.setenv("AIRFLOW_CONN_MLPACKER_LAB", json.dumps(given | changes))


@pytest.mark.lab
def test_a_machine_is_logged_in_on_with_its_connection(ours: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    allow(monkeypatch, password=lab.machine("cloud_1").password)
    with machines.opened([(far("cloud_1"), "")], ours) as fleet:
        assert fleet["cloud_1"].run(("id", "-un")).out == f"{lab.machine('cloud_1').user}\n"
        assert fleet[None].run(("true",)).ok


@pytest.mark.lab
def test_a_connection_that_only_airflow_can_read_is_read_there(ours: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    allow(monkeypatch, password=lab.machine("cloud_1").password)
    unread = Login("m1", "cloud_1", host_key=lab.machine("cloud_1").host_key, conn="mlpacker_lab")
    client = machines.connect(unread, ours)
    try:
        assert client.exec_command("id -un")[1].read().decode() == f"{lab.machine('cloud_1').user}\n"
    finally:
        client.close()


@pytest.mark.lab
def test_a_wrong_password_and_a_wrong_host_key_are_told_apart(ours: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    allow(monkeypatch, password="wrong")
    with machines.opened([(far("cloud_1"), "")], ours) as fleet, pytest.raises((Unreachable, DeployFailed)) as refused:
        fleet["cloud_1"].run(("true",))
    assert "wrong" not in str(refused.value)
    other = far("cloud_1", lab.machine("cloud_2").host_key)
    with machines.opened([(other, "")], ours) as fleet, pytest.raises(PolicyRefused, match="another host key"):
        fleet["cloud_1"].run(("true",))
