"""The stack itself: who gets in, who knows which secret, and a pipeline that goes through it to a machine."""

from __future__ import annotations

import json
import urllib.error
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.lab import lab
from tests.lab.place import LabError, docker
from tests.stack.stack import Stack, call, status
from tests.support import ROOT, wait_for

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1800)]
EXAMPLE = ROOT / "pipelines" / "examples" / "iris-rest.yaml"
ID = "stack-iris"
DAG = f"mlpacker.{ID}"
PORT = 8096

FLOWERS = [[5.1, 3.5, 1.4, 0.2], [6.7, 3.1, 5.6, 2.4], [5.9, 3.0, 4.2, 1.5]]

LOG_IN = """
import base64, urllib.request
login = base64.b64encode(b"mlpacker:" + open("/run/secrets/registry_password", "rb").read()).decode()
request = urllib.request.Request("http://registry:5000/v2/", headers={"Authorization": f"Basic {login}"})
print(urllib.request.urlopen(request).status)
"""


def test_every_service_says_that_it_is_well(stack: Stack) -> None:
    done = dict.fromkeys(("secrets", "airflow-init"), "exited")
    wanted = {name: done.get(name, "running" if name == "feed" else "healthy") for name in stack.health()}
    wait_for(lambda: stack.health() == wanted, 300, f"{wanted}", every=1)


def test_what_is_published_is_published_on_this_machine_only(stack: Stack) -> None:
    bindings = [item["HostConfig"]["PortBindings"] or {} for item in stack.containers()]
    addresses = [where for binding in bindings for wheres in binding.values() for where in wheres]
    assert len(addresses) == 4
    assert {where["HostIp"] for where in addresses} == {"127.0.0.1"}


def test_airflow_asks_who_it_is(stack: Stack) -> None:
    assert status(f"{stack.url}/api/v2/dags") == 401
    with pytest.raises(urllib.error.HTTPError) as refused:
        call("POST", f"{stack.url}/auth/token", {"username": "admin", "password": "admin"})
    assert refused.value.code == 401
    assert stack.ask("GET", "/api/v2/dags")["total_entries"] >= 0


def test_secrets_are_random_long_and_in_files_only(stack: Stack) -> None:
    """Neither the configuration, nor the containers' descriptions, nor what they write has one of them."""
    made = stack.secrets()
    assert len(made["/secrets/api/jwt_secret"]) >= 64
    assert json.loads(made["/secrets/api/passwords.json"])["admin"] not in ("admin", "airflow", "")
    values = {json.loads(text)["admin"] if name.endswith("json") else text for name, text in made.items()}
    words = {word for value in values for word in value.replace("\n", " ").split(" ") if len(word) > 15}
    assert len(words) >= 12  # four passwords in their forms, five that one service has alone
    seen = stack.compose("config") + json.dumps(stack.containers()) + stack.compose("logs", "--no-color")
    assert [name for name, text in made.items() if any(word in text for word in words if word in seen)] == []


def test_each_secret_is_its_service_s_own(stack: Stack) -> None:
    for service, folder in (("postgres", "/run/secrets"), ("airflow-worker", "/run/secrets")):
        modes = stack.exec(service, "stat", "-c", "%a", folder).split()
        assert modes == ["700"]
    held = stack.exec("airflow-worker", "sh", "-c", "cat /run/secrets*/*")
    made = stack.secrets()
    for name in ("api/jwt_secret", "database/fernet_key", "postgres/password", "master/postgres"):
        assert made[f"/secrets/{name}"] not in held, name


def test_the_worker_cannot_reach_the_database(stack: Stack) -> None:
    """What a PADL file brings along runs there."""
    connect = "import socket; socket.create_connection(('{}', {}), 5)"
    stack.exec("airflow-worker", "python", "-c", connect.format("redis", 6379))
    with pytest.raises(LabError, match="gaierror"):
        stack.exec("airflow-worker", "python", "-c", connect.format("postgres", 5432))


def test_starting_again_makes_no_new_secrets(stack: Stack) -> None:
    before = stack.secrets()
    stack.compose("up", "-d", "--no-deps", "--force-recreate", "secrets")
    docker("wait", stack.container("secrets"))
    assert stack.secrets() == before


def test_the_registry_asks_who_it_is(stack: Stack) -> None:
    address = f"127.0.0.1:{stack.ports['REGISTRY']}"
    assert status(f"http://{address}/v2/") == 401
    assert stack.exec("airflow-worker", "python", "-c", LOG_IN).strip() == "200"


def test_a_dropped_file_is_live_on_a_machine(stack: Stack) -> None:
    """Drop → DAG → image built by the worker → over SSH to the machine → right answers → file gone → nothing there."""
    machine = lab.machine("cloud_2")
    _connection(stack, machine)
    _drop(stack, machine)
    try:
        _run(stack)
        answer = call("POST", f"http://{machine.address}:{PORT}/predict", {"data": FLOWERS})
        assert answer["predictions"] == _called_directly()
        assert _there(machine)
    finally:
        (stack.pipelines / f"{ID}.yaml").unlink()
    wait_for(lambda: not _there(machine), 300, "nothing of the pipeline is left", every=1)


def _there(machine: lab.Machine) -> str:
    """What there is of the pipeline: containers, volumes, images and files there, and images where it was built."""
    label = f"label=io.mlpacker.pipeline={ID}"
    images = ("image", "ls", "--quiet", "--filter", label)
    asked = (
        ("docker", "ps", "--all", "--quiet", "--filter", f"name=mlpacker.{ID}."),
        ("docker", "volume", "ls", "--quiet", "--filter", f"name=mlpacker.{ID}."),
        ("docker", *images),
        ("find", f"/home/{machine.user}/.mlpacker", "-name", f"*{ID}*"),
    )
    return "\n".join(filter(None, (*(machine.exec(*argv) for argv in asked), docker(*images))))


def _connection(stack: Stack, machine: lab.Machine) -> None:
    extra = json.dumps({"host_key": machine.host_key})
    login = {"connection_id": "mlpacker_stack", "conn_type": "ssh", "host": machine.address, "login": machine.user}
    stack.ask("POST", "/api/v2/connections", login | {"password": machine.password, "extra": extra})


def _drop(stack: Stack, machine: lab.Machine) -> None:
    padl: dict[str, Any] = yaml.safe_load(EXAMPLE.read_text())
    padl |= {"id": ID, "autodeploy": True, "containerized": True, "deploy-mode": "remote"}
    padl["infra"] = {"edge": {"hostname": machine.address, "sshConfig": {"conn_id": "mlpacker_stack"}}}
    padl["pipeline"]["iris"]["infra"] = "edge"
    padl["pipeline"]["iris"]["port"] = PORT
    models = stack.pipelines / "models"
    models.mkdir(exist_ok=True)
    (models / "iris.skops").write_bytes((EXAMPLE.parent / "models" / "iris.skops").read_bytes())
    aside = stack.pipelines / ".stack-iris.yaml"
    aside.write_text(yaml.safe_dump(padl))
    aside.rename(stack.pipelines / f"{ID}.yaml")


def _run(stack: Stack) -> None:
    """Waits until the pipeline's first run is over; fails with the logs of the tasks that failed."""

    def over() -> dict[str, Any]:
        try:
            runs = stack.ask("GET", f"/api/v2/dags/{DAG}/dagRuns")["dag_runs"]
        except urllib.error.HTTPError:
            errors = stack.ask("GET", "/api/v2/importErrors")["import_errors"]
            assert errors == []
            return {}
        return next((run for run in runs if run["state"] in ("success", "failed")), {})

    run = wait_for(over, 900, "the first run ends", every=1)
    assert run["state"] == "success", _failures(stack, run["dag_run_id"])


def _failures(stack: Stack, run: str) -> str:
    path = f"/api/v2/dags/{DAG}/dagRuns/{run}/taskInstances"
    failed = [task for task in stack.ask("GET", path)["task_instances"] if task["state"] == "failed"]
    logs = [stack.ask("GET", f"{path}/{task['task_id']}/logs/{task['try_number']}") for task in failed]
    return json.dumps([task["task_id"] for task in failed]) + json.dumps(logs)[-6000:]


def _called_directly() -> Any:
    import skops.io

    path = Path(EXAMPLE.parent / "models" / "iris.skops")
    model = skops.io.load(path, trusted=skops.io.get_untrusted_types(file=path))
    return model.predict(FLOWERS).tolist()
