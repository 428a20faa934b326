"""An API unit with a key, an admin port, two processes and two versions of its model, as a person deploys it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from tests.integration import streaming
from tests.integration.here import ask
from tests.integration.test_swap import Place
from tests.support import free_port

pytestmark = [pytest.mark.native, pytest.mark.timeout(600)]
SECRETS = {"PLANT_ADMIN": "hunter2-admin-sentinel", "PLANT_KEY": "hunter2-key-sentinel"}


class Guarded(Place):
    def mlpacker(self, *words: str | Path, **env: str) -> Any:
        return super().mlpacker(*words, **{**SECRETS, **env})

    def admin(self, method: str, path: str, body: Any = None, token: str = SECRETS["PLANT_ADMIN"]) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        try:
            with urlopen(Request(self.unit()["admin"] + path, data, headers, method=method), timeout=60) as response:
                return response.status, json.loads(response.read() or b"null")
        except HTTPError as error:
            return error.code, None


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Guarded]:
    made = Guarded(tmp_path, tmp_path / "home")
    step = {**streaming.MODEL, "replicas": 2, "test": {"input": [1], "output": 1}}
    step["props"] = {**step["props"], "versions": {"latest": 2}}
    padl = {
        "version": "1.1",
        "id": "swapping",
        "containerized": False,
        "package-mode": "api",
        "deploy-mode": "local",
        "admin": {"port": free_port(), "token_env": "PLANT_ADMIN"},
        "key": {"key_env": "PLANT_KEY"},
        "pipeline": {"step": step},
    }
    made.write("swapping.json", json.dumps(padl))
    yield made
    made.mlpacker("undeploy", "swapping")
    assert made.state()["processes"] == {}


def labels(place: Place) -> list[tuple[int, str]]:
    return [(one["number"], one["label"]) for one in place.unit()["versions"]]


def test_versions_come_and_go_by_the_command_line_and_the_admin_port(guarded: Guarded) -> None:
    own, new = guarded.model(0, "model.joblib"), guarded.model(1)
    assert guarded.action("deploy", "swapping.json") == "create"
    endpoint, release = guarded.unit()["endpoint"], guarded.unit()["release"]

    staged = guarded.mlpacker("swap", "swapping", "step", "model1.joblib", "--stage")
    assert staged.returncode == 0, staged.stderr
    assert "2 of 2 processes answer with it" in staged.stderr
    assert staged.stdout.split()[:3] == ["step", "stage", release]
    assert guarded.live() == own
    assert labels(guarded) == [(1, "stable"), (2, "candidate")]
    assert guarded.action("swap", "swapping", "step", "--shadow", "0.5") == "shadow"
    assert guarded.action("swap", "swapping", "step", "--promote") == "swap"
    assert guarded.live() == new
    assert labels(guarded) == [(2, "stable"), (1, "")], "the one before stays loaded, as the file says"
    none = guarded.mlpacker("swap", "swapping", "step", "--promote")
    assert (none.returncode, "has no version 'candidate'" in none.stderr) == (2, True), none.stderr
    assert guarded.action("rollback", "swapping") == "swap"
    assert guarded.live() == own

    guarded.mlpacker("swap", "swapping", "step", "model1.joblib", "--stage")
    assert guarded.action("swap", "swapping", "step", "--discard") == "discard"
    assert (guarded.admin("GET", "/admin/models")[0], guarded.admin("GET", "/admin/models", token="x" * 20)[0]) == (
        200,
        401,
    )
    guarded.mlpacker("swap", "swapping", "step", "model1.joblib", "--stage")
    assert guarded.admin("POST", "/admin/models/step/promote", {})[0] == 200
    assert guarded.live() == new
    assert guarded.action("deploy", "swapping.json", "--dry-run") == "swap", "the machine is asked, not the record"
    assert guarded.action("deploy", "swapping.json") == "swap"
    assert (guarded.live(), guarded.unit()["release"]) == (own, release)
    assert guarded.admin("POST", "/v2/repository/models/step/unload", {})[0] == 200
    assert guarded.action("deploy", "swapping.json") == "swap"
    assert ask(endpoint, [1])[0] == 401, "without the key; the golden request of each deploy has it"
    assert guarded.action("deploy", "swapping.json") == "nothing"

    holders = [file for file in guarded.home.rglob("*") if file.is_file() and b"hunter2" in file.read_bytes()]
    assert {file.name for file in holders} == {"launch.json"}
    assert all(file.stat().st_mode & 0o077 == 0 for file in holders)


def test_another_token_is_another_release(guarded: Guarded) -> None:
    guarded.model(0, "model.joblib")
    assert guarded.action("deploy", "swapping.json") == "create"
    now = {**SECRETS, "PLANT_ADMIN": "hunter3-admin-sentinel"}
    done = guarded.mlpacker("deploy", "swapping.json", "--json", **now)
    assert json.loads(done.stdout)["units"][0]["action"] == "replace", done.stderr
    assert guarded.admin("GET", "/admin/models")[0] == 401
    assert guarded.admin("GET", "/admin/models", token=now["PLANT_ADMIN"])[0] == 200
    short = guarded.mlpacker("deploy", "swapping.json", PLANT_ADMIN="short")
    assert (short.returncode, "characters long" in short.stderr) == (7, True), short.stderr
