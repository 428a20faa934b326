"""Keys for what predicts: every route that does asks for one, all others stay open."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from packer_lib.runtime.keys import Keys
from tests.runtime.handmade import SERVERS, Service, code_step, running, write_bundle

ECHO = "def handler(value):\n    return value"
TENSOR = {"name": "x", "shape": [1], "datatype": "FP64", "data": [1.5]}
DATA = json.dumps({"data": [1.5]}).encode()
ASKED = {
    "/predict": DATA,
    "/predict?step=echo": DATA,
    "/v2/models/echo/infer": json.dumps({"inputs": [TENSOR]}).encode(),
    "/v2/models/plant/versions/r1/infer": json.dumps({"inputs": [TENSOR]}).encode(),
    "/invocations": json.dumps({"instances": [1.5]}).encode(),
}
ACUMOS = (
    "/transformCSVDefault",
    "/modelrunner/getBinaryJSON",
    "/model/methods/predict",
    "/modelrunner/model/methods/x",
)
OPEN = (
    "/livez",
    "/readyz",
    "/metrics",
    "/info",
    "/v2",
    "/v2/health/ready",
    "/v2/models/echo",
    "/ping",
    "/version",
    "/",
)


@pytest.fixture(scope="module", params=SERVERS)
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("keys")
    write_bundle(folder, code_step(folder, "echo", ECHO))
    with running(folder, request.param, MLPACKER_API_KEY="new-key, old-key") as started:
        yield started


@pytest.mark.parametrize("path", ASKED)
def test_what_predicts_asks_for_any_of_the_keys(service: Service, path: str) -> None:
    for given in ("", "Bearer", "Bearer wrong", "Basic new-key", "new-key", "Bearer new-key, old-key"):
        reply = service.ask(path, ASKED[path], authorization=given)
        assert (reply.status, reply.json.keys()) == (401, {"error"}), given
        assert reply.headers["www-authenticate"] == "Bearer"
    for given in ("Bearer new-key", "bearer old-key"):
        reply = service.ask(path, ASKED[path], authorization=given)
        assert (reply.status, b"1.5" in reply.body) == (200, True)


@pytest.mark.parametrize("path", ACUMOS)
def test_so_do_the_routes_of_acumos_that_predict(service: Service, path: str) -> None:
    assert service.ask(path, b"x", content_type="multipart/form-data; boundary=x").status == 401
    known = service.ask(path, b"x", content_type="multipart/form-data; boundary=x", authorization="Bearer new-key")
    assert known.status in (400, 415)


@pytest.mark.parametrize("path", OPEN)
def test_all_else_is_open(service: Service, path: str) -> None:
    assert service.ask(path).status == 200


def test_a_large_body_without_a_key_is_not_kept(service: Service) -> None:
    assert service.ask("/predict", b" " * (1 << 20)).status == 401


def test_is_no_secret_to_the_next_unit_of_the_pipeline(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    write_bundle(second, code_step(second, "last", ECHO))
    write_bundle(first, code_step(first, "echo", ECHO, outputs=("last",)), links=("last",))
    with running(second, MLPACKER_API_KEY="k2,k1") as behind:
        links = json.dumps({"last": {"url": behind.url}})
        with running(first, MLPACKER_LINKS=links, MLPACKER_API_KEY="k1") as before:
            assert before.ask("/predict", DATA, authorization="Bearer k1").json == {"predictions": [1.5]}
        with running(first, MLPACKER_LINKS=links) as before:
            reply = before.ask("/predict", DATA)
            assert (reply.status, "status 401" in reply.json["error"]) == (502, True)
        assert "k1" not in behind.log.read_text()


def test_none_are_asked_for_where_none_is_given() -> None:
    assert not Keys(" , ")
    assert Keys("a").refusal({b"authorization": b"Bearer a"}) is None
