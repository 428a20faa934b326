"""What docker-compose.airflow.yml and docker/ say, without an engine."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

from packer_lib import standalone
from tests.stack.stack import FILE, PROFILES, config
from tests.support import ROOT, require

ONE_SHOT = {"secrets", "airflow-init"}
AIRFLOW = {"airflow-apiserver", "airflow-scheduler", "airflow-dag-processor", "airflow-triggerer", "airflow-worker"}
# Settings of the one-machine Airflow that mean something else in containers, or are secrets there.
OTHERWISE = {
    "CORE__EXECUTOR", "CORE__DAGS_FOLDER", "CORE__PLUGINS_FOLDER", "CORE__EXECUTION_API_SERVER_URL", "CORE__FERNET_KEY",
    "CORE__PARALLELISM", "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE", "CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS",
    "DATABASE__SQL_ALCHEMY_CONN", "LOGGING__BASE_LOG_FOLDER", "LOGGING__WORKER_LOG_SERVER_PORT",
    "LOGGING__TRIGGER_LOG_SERVER_PORT", "API__HOST", "API__PORT", "API__BASE_URL", "API__SECRET_KEY",
    "API_AUTH__JWT_SECRET", "DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST", "DAG_PROCESSOR__DAG_BUNDLE_STORAGE_PATH",
}  # fmt: skip


@pytest.fixture(scope="module")
def services() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load(FILE.read_text())["services"]
    return found


def test_both_generations_of_compose_read_it(tmp_path: Path) -> None:
    """1.29 refuses a top-level name; every profile together is valid, with nothing set."""
    require("docker-compose", "apt-get install docker-compose")
    text = config(tmp_path, *(word for profile in PROFILES for word in ("--profile", profile)))
    assert set(yaml.safe_load(text)["services"]) >= AIRFLOW | ONE_SHOT | {"registry", "mosquitto", "kafka", "feed"}
    assert "name" not in yaml.safe_load(FILE.read_text())


def test_what_runs_for_long_says_how_it_is_and_comes_back(services: dict[str, dict[str, Any]]) -> None:
    for name in services.keys() - ONE_SHOT:
        assert services[name]["restart"] == "unless-stopped", name
        assert services[name]["mem_limit"], name
        assert "healthcheck" in services[name] or name == "feed", name


def test_nobody_has_more_rights_than_needed(services: dict[str, dict[str, Any]]) -> None:
    dockerfile = (ROOT / "docker" / "airflow.Dockerfile").read_text()
    assert re.search(r"^USER 50000:0$", dockerfile, re.MULTILINE)
    for name, service in services.items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert not service.get("privileged"), name
        ours = "AIRFLOW_IMAGE" in service["image"]
        assert service.get("user", "50000:0" if ours else "0:0").split(":")[0] != "0" or name == "secrets", name
    assert services["secrets"]["network_mode"] == "none"


def test_the_engine_is_given_to_nobody_unless_asked(services: dict[str, dict[str, Any]]) -> None:
    mounts = {name: [v for v in service.get("volumes", ()) if "docker.sock" in v] for name, service in services.items()}
    given = {name: found for name, found in mounts.items() if found}
    assert given == {"airflow-worker": ["${DOCKER_SOCKET:-/dev/null}:/var/run/docker.sock"]}


def test_everything_listens_on_this_machine_only(services: dict[str, dict[str, Any]]) -> None:
    ports = [port for service in services.values() for port in service.get("ports", ())]
    assert len(ports) == 4
    assert all(port.startswith("${STACK_BIND:-127.0.0.1}:") for port in ports)


def test_images_are_variables_with_a_public_version_as_default(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        variable, default = re.fullmatch(r"\$\{([A-Z]+_IMAGE):-(.+)\}", service["image"]).groups()  # type: ignore[union-attr]
        assert re.search(r":\d+\.\d+", default), (name, variable, default)
    for argument in re.findall(r"^ARG \w+=(.+)$", (ROOT / "docker" / "airflow.Dockerfile").read_text(), re.MULTILINE):
        assert re.search(r":\d+\.\d+\.\d+", argument), argument


def test_airflow_is_set_as_it_is_on_one_machine(services: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    ours = services["airflow-apiserver"]["environment"]
    alone = standalone.environment(tmp_path, tmp_path / "pipelines")
    wanted = {key: value for key, value in alone.items() if key.removeprefix("AIRFLOW__") not in OTHERWISE}
    wanted = {key: value for key, value in wanted.items() if key.startswith("AIRFLOW__") or key in standalone.QUIET}
    assert {key: ours.get(key) for key in wanted} == wanted
    bundles = json.loads(ours["AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST"])
    there = json.loads(alone["AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST"])
    there[0]["kwargs"]["source"] = "/pipelines"
    assert bundles == there


def test_every_variable_is_in_the_example() -> None:
    example = (ROOT / "docker" / "env.example").read_text()
    for variable in sorted(set(re.findall(r"(?<!\$)\$\{([A-Z_]+)", FILE.read_text()))):
        assert re.search(rf"^#?{variable}=", example, re.MULTILINE), variable


def test_added_requirements_are_hashed_and_contradict_no_lock() -> None:
    stack = (ROOT / "docker" / "stack.txt").read_text()
    pins = dict(re.findall(r"^([a-z0-9._-]+)==([^ ;]+)", stack, re.MULTILINE))
    locked = dict(re.findall(r'^name = "(.+)"\nversion = "(.+)"$', (ROOT / "uv.lock").read_text(), re.MULTILINE))
    assert {"celery", "redis", "psycopg2-binary", "asyncpg", "apache-airflow-providers-celery"} <= pins.keys()
    assert {name: locked.get(name, pin) for name, pin in pins.items()} == pins
    entries = re.split(r"\n(?=[a-z0-9])", stack.strip())
    assert len(entries) == len(pins)
    assert all("--hash=sha256:" in entry for entry in entries)
    for line in (ROOT / "docker" / "stack.in").read_text().splitlines():
        assert line.startswith("#") or Requirement(line).name in pins
