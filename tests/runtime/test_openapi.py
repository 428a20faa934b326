"""The OpenAPI document of real units: what it says, and that Schemathesis finds nothing else in what they do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest
from sklearn.datasets import load_iris
from sklearn.ensemble import HistGradientBoostingClassifier

from tests.runtime.handmade import SERVERS, Service, code_step, model_step, running, write_bundle
from tests.support import ROOT

pytestmark = pytest.mark.slow

ROWS, LABELS = load_iris(return_X_y=True)
NAMES = load_iris().feature_names
CLIENTS = ROOT / "tests" / "clients"
KEY = "open sesame"
TWINS = "^/modelrunner|/versions/"  # the same routes at another place
CHANGING = ("/model", "/proto", "/model/configuration")


@pytest.fixture(scope="module", params=SERVERS)
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """An iris model that takes any number, which knows its columns' names, behind a key."""
    folder = tmp_path_factory.mktemp("unit")
    model = HistGradientBoostingClassifier(max_iter=4).fit(ROWS, LABELS)
    model.feature_names_in_ = numpy.array(NAMES, dtype=object)
    write_bundle(folder, model_step(folder, model, test={"input": [5.1, 3.5, 1.4, 0.2], "output": None}))
    with running(folder, request.param, MLPACKER_MAX_BODY_MIB="1", MLPACKER_API_KEY=KEY) as started:
        yield started


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Two functions that take anything, open to anybody, and a unit behind them."""
    folder = tmp_path_factory.mktemp("chain")
    text = "def handler(value):\n    return value"
    steps = code_step(folder, "a", text, outputs=("b",)), code_step(folder, "b", text, inputs=("a",), outputs=("z",))
    write_bundle(folder, *steps, links=("z",))
    with running(folder) as started:
        yield started


def document(service: Service) -> Any:
    return service.ask("/openapi.json").json


class TestWhatItSays:
    def test_is_the_page_of_the_unit_too(self, service: Service) -> None:
        assert service.ask("/docs.json").json == document(service)
        assert document(service)["info"]["title"] == "model"

    def test_instances_are_rows_of_the_model_or_objects_of_its_own_names(self, service: Service) -> None:
        body = document(service)["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]["schema"]
        row, named, carried = body["properties"]["data"]["items"]["anyOf"]
        assert row == {"type": "array", "items": {"type": "number"}, "minItems": 4, "maxItems": 4}
        assert named["required"] == NAMES
        assert carried["properties"]["data"] == row
        assert (
            service.ask("/predict", json.dumps(body["example"]).encode(), authorization=f"Bearer {KEY}").status == 200
        )

    def test_has_every_model_with_its_versions_and_no_other(self, service: Service) -> None:
        models = [path for path in document(service)["paths"] if path.startswith("/v2/models")]
        places = ("model", "model/versions/1", "plant", "plant/versions/r1")
        assert models == [f"/v2/models/{place}{what}" for place in places for what in ("", "/ready", "/infer")]
        gets = [path for path in models if not path.endswith("/infer")]
        assert {service.ask(path).status for path in gets} == {200}

    def test_what_predicts_asks_for_the_key_and_nothing_else_does(self, service: Service) -> None:
        said = document(service)
        assert said["components"]["securitySchemes"] == {"key": {"type": "http", "scheme": "bearer"}}
        asking = {path for path, each in said["paths"].items() if "security" in each.get("post", {})}
        for path, each in said["paths"].items():
            for method in each:
                status = service.ask(path.replace("{operation}", "x"), method=method.upper()).status
                assert (status == 401) == (path in asking and method == "post"), (path, status)

    def test_of_other_units_it_says_other_things(self, chain: Service) -> None:
        said = document(chain)
        predict = said["paths"]["/predict"]["post"]
        assert predict["parameters"][0]["schema"]["enum"] == ["a", "b"]
        assert predict["requestBody"]["content"]["application/json"]["schema"]["properties"]["data"]["items"] == {}
        assert "502" in predict["responses"]
        assert "securitySchemes" not in said["components"]

    def test_there_is_nothing_that_changes_the_unit(self, service: Service) -> None:
        assert not {*CHANGING} & document(service)["paths"].keys()


def schemathesis(service: Service, folder: Path, *arguments: str) -> str:
    """What it says of all routes when it finds something, else ""; what it keeps is in `folder`."""
    done = subprocess.run(
        [
            *(Path(sys.executable).with_name("schemathesis"), "--config-file", CLIENTS / "schemathesis.toml"),
            *("run", f"{service.url}/openapi.json", "--phases", "examples,coverage,fuzzing", "--workers", "2"),
            *("--exclude-path-regex", TWINS, "--seed", "7", "--continue-on-failure", *arguments),
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT), "SCHEMATHESIS_HOOKS": "tests.clients.schemathesis_types"},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=240,
    )
    print(done.stdout)
    assert "Test cases:" in done.stdout, done.stderr
    return f"exit code {done.returncode}, see above" if done.returncode else ""


def test_schemathesis_finds_nothing(service: Service, tmp_path: Path) -> None:
    assert schemathesis(service, tmp_path, "--header", f"Authorization: Bearer {KEY}") == ""


def test_schemathesis_finds_nothing_that_needs_no_key(tmp_path: Path) -> None:
    """Every check but those of keys; a function behind, that takes anything."""
    text = "def handler(value):\n    return value"
    write_bundle(tmp_path, code_step(tmp_path, "echo", text))
    with running(tmp_path) as service:
        assert schemathesis(service, tmp_path) == ""
