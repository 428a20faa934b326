"""One Airflow with everything the modes need around it: models and code beside the PADL files, the lab's machines with
a login of each kind, its registry as an Airflow connection; and what all that is left with in the end."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from packer_lib import kept, release, settings, status
from packer_lib.standalone import Airflow
from tests.airflow.running import Running
from tests.lab import lab
from tests.modes import mode as modes
from tests.modes.conversation import Topics
from tests.modes.left import Place, here, left
from tests.support import wait_for

MACHINES = ("edge_node", "cloud_1", "cloud_2", "bare")
WITH_ENGINE = ("edge_node", "cloud_1", "cloud_2")
DEPLOY_WITHIN = 1500.0
GONE_WITHIN = 300.0


@dataclass
class Installation:
    """`home` is MLPacker's own on this machine; `running` the Airflow over `running.airflow.pipelines`; `former` what
    others had left on the machines before."""

    running: Running
    home: Path
    topics: Topics
    former: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.former = self.left("", {})

    @property
    def pipelines(self) -> Path:
        return self.running.airflow.pipelines

    def infra(self, *names: str) -> dict[str, Any]:
        """Those machines as a PADL file describes them, each with another kind of login."""
        return {name: {"hostname": name, "sshConfig": _login(name, self.home)} for name in names}

    def deploy(self, file: str, document: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """Drops the file; the units by name, once the run that this starts has ended well."""
        before = len(self.running.runs(document["id"]))
        self.running.drop(file, document)
        return self._deployed(document["id"], before)

    @contextmanager
    def live(self, file: str, document: dict[str, Any]) -> Iterator[dict[str, dict[str, Any]]]:
        """The units of a dropped file; should the test fail, nothing of them is in the way of the next."""
        try:
            yield self.deploy(file, document)
        except BaseException:
            (self.pipelines / file).unlink(missing_ok=True)
            release.undeploy(document["id"], self.running.settings, progress=lambda _: None)
            raise

    def deploy_again(self, name: str) -> dict[str, dict[str, Any]]:
        """Another run of the same, as by the button of its page."""
        before = len(self.running.runs(name))
        self.running.ask(f"/api/v2/dags/mlpacker.{name}/dagRuns", "POST", {"logical_date": None})
        return self._deployed(name, before)

    def _deployed(self, name: str, before: int) -> dict[str, dict[str, Any]]:
        ended = wait_for(lambda: self.running.ended(name, before + 1), DEPLOY_WITHIN, f"the run of {name}")
        assert ended == "success", self.story(f"mlpacker.{name}")
        return {unit["name"]: unit for unit in status.status(self.running.settings, name)[0]["units"]}

    def remove(self, file: str, name: str) -> None:
        """The PADL file goes; returns when the run that takes the pipeline down has ended well."""
        since = datetime.now(UTC)
        (self.pipelines / file).unlink()
        states = wait_for(lambda: self._retired(name, since), GONE_WITHIN, f"{name} is retired")
        assert states == ["success"], self.story("mlpacker-retire")

    def _retired(self, name: str, since: datetime) -> list[str]:
        """How each task of that name ended that began after `since` and has, oldest first."""
        asked = urlencode({"start_date_gte": since.isoformat(), "order_by": "start_date", "limit": 100})  # 100 at most
        place = f"/api/v2/dags/mlpacker-retire/dagRuns/~/taskInstances?{asked}"
        found = (self.running.maybe(place) or {"task_instances": []})["task_instances"]
        ended = ("success", "failed", "upstream_failed", "skipped")
        return [task["state"] for task in found if task["task_id"] == name and task["state"] in ended]

    def left(self, pipeline: str, units: Mapping[str, dict[str, Any]]) -> dict[str, list[str]]:
        """What there is of a pipeline whose units were these, by machine; nothing is an empty dict."""
        releases = {unit["release"] for unit in units.values()}
        found = {name: left(place, pipeline, releases) for name, place in self._places().items()}
        return {name: new for name, lines in found.items() if (new := self._new(name, lines))}

    def _new(self, machine: str, lines: list[str]) -> list[str]:
        return [line for line in lines if line not in self.former.get(machine, ())]

    def _places(self) -> dict[str, Place]:
        """This machine's engine and the lab may be others' too; our home here is not."""
        alone = not os.environ.get("MLPACKER_LAB_SHARED")
        places = {
            "files here": Place(here, str(self.home)),
            "engine here": Place(here, str(self.home), self.running.settings.docker, alone),
        }
        for name in MACHINES:
            machine = lab.machine(name)
            docker = "docker" if name in WITH_ENGINE else ""
            ask = partial(machine.exec, check=False)
            places[name] = Place(ask, f"/home/{machine.user}/.mlpacker", docker, alone)
        return places

    def story(self, dag: str) -> str:
        """What a person reads who asks why the last run failed: the log of every task that did."""
        run = self.running.ask(f"/api/v2/dags/{dag}/dagRuns")["dag_runs"][-1]["dag_run_id"]
        place = f"/api/v2/dags/{dag}/dagRuns/{run}/taskInstances"
        tasks = self.running.ask(place)["task_instances"]
        said = [f"{task['task_id']}: {task['state']}" for task in tasks]
        for task in tasks:
            if task["state"] in ("failed", "up_for_retry"):
                log = self.running.ask(f"{place}/{task['task_id']}/logs/{task['try_number']}")
                said += [f"--- {task['task_id']}", *(_line(line) for line in log["content"])]
        return "\n".join(said)


def _line(line: dict[str, Any]) -> str:
    """With the last place of the traceback, where there is one."""
    where = [
        f"  {error['exc_type']}: {error['exc_value']} {error['frames'][-1:]}" for error in line.get("error_detail", ())
    ]
    return "\n".join([str(line.get("event", line)), *where])


def _login(name: str, home: Path) -> dict[str, Any]:
    machine = lab.machine(name)
    if name == "cloud_1":
        return {"conn_id": f"mlpacker_{name}"}
    if name == "cloud_2":
        return {"user": machine.user, "pass": machine.password, "host_key": machine.host_key}
    return {"user": machine.user, "key_file": str(_key(home)), "host_key": machine.host_key}


def _key(home: Path) -> Path:
    """The lab's key where this installation allows keys to be."""
    place = home / "keys" / "id_ed25519"
    if not place.exists():
        place.parent.mkdir(parents=True, mode=0o700, exist_ok=True)
        place.touch(mode=0o600)
        place.write_bytes(Path(lab.machine("edge_node").key).read_bytes())
    return place


@contextmanager
def installation(folder: Path) -> Iterator[Installation]:
    """It and its Airflow, below `folder`; nothing of it runs afterwards."""
    home = folder / "mlpacker"
    env = _environment(home)
    former = {name: os.environ.get(name) for name in env}
    os.environ.update(env)  # for our own `status`, which asks the same machines
    airflow = Airflow(folder / "airflow", folder / "pipelines")
    airflow.pipelines.mkdir(parents=True)
    _key(home)
    _artefacts(airflow.pipelines)
    topics = Topics("mqtt_1")
    try:
        with airflow:
            yield Installation(Running(airflow, airflow.token(), settings.read()), home, topics)
    finally:
        topics.close()
        for pipeline in kept.pipelines(settings.read()):  # of a test that failed
            release.undeploy(pipeline, settings.read(), progress=lambda _: None)
        for name, value in former.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def _environment(home: Path) -> dict[str, str]:
    cloud, registry = lab.machine("cloud_1"), lab.registry(auth=True)
    login = {"conn_type": "ssh", "host": cloud.hostname, "login": cloud.user, "password": cloud.password}
    images = {"conn_type": "docker", "host": registry.host, "login": registry.user, "password": registry.password}
    return {
        **lab.settings_env(),
        "MLPACKER__PATHS__HOME": str(home),
        "MLPACKER__REGISTRY__CONN_ID": "mlpacker_registry",
        "MLPACKER__DEPLOY__RETIRE_AFTER": "1",
        "MLPACKER__DEPLOY__WATCH_SECONDS": "2",
        "AIRFLOW_CONN_MLPACKER_CLOUD_1": json.dumps({**login, "extra": {"host_key": cloud.host_key}}),
        "AIRFLOW_CONN_MLPACKER_REGISTRY": json.dumps(images),
        "NO_PROXY": ",".join(("127.0.0.1", "localhost", socket.gethostname(), *MACHINES)),
    }


def _artefacts(place: Path) -> None:
    """The model and the code of the sixteen."""
    import skops.io

    skops.io.dump(model(), place / "iris.skops")
    for name, text in modes.CODE.items():
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_text(text)


def model() -> Any:
    """The same model each time: nothing in its training is random."""
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression

    data = load_iris()
    return LogisticRegression(max_iter=500).fit(data.data, data.target)
