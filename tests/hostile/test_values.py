"""What a file gives a unit arrives as it was written, native and in a container, and runs nothing on the way."""

from __future__ import annotations

import json
import urllib.request

import pytest

from tests.hostile import padls
from tests.hostile.place import Place

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1200)]

CANARY = "/tmp/mlpacker-canary"
BREAKS = [text.replace("/canary", CANARY) for text in padls.CORPUS if text.isprintable() and 0 < len(text) < 200]
STEERS = {  # what would turn the client of an engine, a loader or a shell, if it came into their own environment
    "DOCKER_HOST": "tcp://127.0.0.1:1",
    "DOCKER_CONFIG": "/nowhere",
    "LD_LIBRARY_PATH": "/nowhere",
    "BASH_ENV": CANARY,
    "ENV": CANARY,
}
CODE = """import os

def handler(value):
    return [os.environ.get(name) for name in value]
"""


@pytest.mark.parametrize("containerized", [False, True], ids=["native", "container"])
def test_every_value_arrives_as_it_was_written_and_runs_nothing(place: Place, containerized: bool) -> None:
    given = {f"V{number}": text for number, text in enumerate(BREAKS)} | STEERS
    step = place.code(CODE) | {"env": given, "description": "\n".join(BREAKS)}
    head = {"containerized": containerized, "package-mode": "api", "pipeline": {"echo": step}}
    file = place.padl({**head, "description": "\n".join(BREAKS), "owner": BREAKS[0], "tags": BREAKS[:5]})
    try:
        place.mlpacker("deploy", str(file))
        (unit,) = json.loads(status(place))["units"]
        assert dict(zip(given, ask(unit["endpoint"], list(given)), strict=True)) == given
    finally:
        place.mlpacker("undeploy", place.user)
    assert place.machine.exec("ls", CANARY, check=False) == ""


def status(place: Place) -> str:
    said = place.mlpacker("status", place.user, "--json")
    return said[: said.rindex("}") + 1]


def ask(endpoint: str, names: list[str]) -> list[str]:
    body = json.dumps({"data": [names]}).encode()
    request = urllib.request.Request(f"{endpoint}/predict", body, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        found: list[str] = json.load(answer)["predictions"][0]
    return found
