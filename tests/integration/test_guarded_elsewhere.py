"""A deploy that is a swap, and a guarded unit, in the other forms: containers here, processes and containers by SSH."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import joblib
import pytest
import skops.io

from tests.integration.here import Here
from tests.integration.streaming import MODEL, unit
from tests.integration.test_streams_elsewhere import ID, Form, form, place
from tests.lab import lab
from tests.runtime.swapping import digest, line
from tests.support import free_port

__all__ = ["form", "place"]
pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]
TOKEN = {"PLANT_ADMIN": "hunter2-admin-sentinel"}


def padl(form: Form, **more: Any) -> str:
    infra = {"infra": lab.padl_infra(m="edge_node")} if form.remote else {}
    step = {**MODEL, "infra": "m"} if form.remote else dict(MODEL)
    modes = {"containerized": form.boxed, "package-mode": "api", "deploy-mode": "remote" if form.remote else "local"}
    return json.dumps({"version": "1.1", "id": ID, **modes, **infra, "pipeline": {"step": step}, **more})


def deploy(place: Here, **env: str) -> dict[str, Any]:
    done = place.mlpacker("deploy", "guarded.json", "--json", **{**lab.settings_env(), **TOKEN, **env})
    assert done.returncode == 0, done.stderr
    (changed,) = json.loads(done.stdout)["units"]
    return {**unit(place, ID), "action": changed["action"]}


def model(place: Here, number: int) -> str:
    joblib.dump(line(number), place.folder / "model.joblib")
    return digest(place.folder / "model.joblib")


def test_a_deploy_with_another_model_is_a_swap(form: Form) -> None:
    model(form.place, 0)
    form.place.write("guarded.json", padl(form))
    first = deploy(form.place)
    second = model(form.place, 1)
    swapped = deploy(form.place)
    assert (swapped["action"], swapped["pid"], swapped["release"]) == ("swap", first["pid"], first["release"])
    assert [one["sha256"] for one in swapped["models"]] == [second]
    assert deploy(form.place)["action"] == "nothing"
    form.undeploy()


def admin(url: str, method: str, path: str, body: bytes = b"", token: str = TOKEN["PLANT_ADMIN"]) -> Any:
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/octet-stream"}
    with urlopen(Request(url + path, body or None, headers, method=method), timeout=60) as response:
        return json.load(response)


def test_a_container_has_its_admin_port_through_the_door(place: Here) -> None:
    boxed = Form(place, boxed=True, remote=False)
    own, sent = model(place, 0), place.folder / "sent.skops"
    skops.io.dump(line(1), sent)
    port = free_port()
    place.write("guarded.json", padl(boxed, admin={"port": port, "token_env": "PLANT_ADMIN"}))
    first = deploy(place)
    assert first["admin"] == f"http://127.0.0.1:{port}"
    assert admin(first["admin"], "PUT", "/v2/repository/models/step/versions", sent.read_bytes())
    assert [one["sha256"] for one in unit(place, ID)["models"]] == [digest(sent)]
    file = deploy(place)
    assert (file["action"], [one["sha256"] for one in file["models"]]) == ("swap", [own])
    other = deploy(place, PLANT_ADMIN="hunter3-admin-sentinel")
    assert (other["action"], other["admin"]) == ("replace", first["admin"])
    assert admin(other["admin"], "GET", "/admin/models", token="hunter3-admin-sentinel")
    assert "hunter" not in boxed.ask("docker", "container", "ls", "--all", "--no-trunc")
    boxed.undeploy()
    assert not Path(boxed.home, "state", ID).exists()
