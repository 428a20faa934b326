"""A native API unit is replaced, rolled back, and badly replaced, under a steady load: no request is lost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.here import Here
from tests.integration.load import Load

pytestmark = [pytest.mark.native, pytest.mark.timeout(600)]
DOUBLE = """
version: "1.1"
id: double
containerized: false
package-mode: api
deploy-mode: local
pipeline:
  double:
    type: code
    language: python
    props: {path: ./code}
    test: {input: 21, output: 42}
"""
WATCH = {"MLPACKER__DEPLOY__WATCH_SECONDS": "3"}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Here]:
    made = Here(tmp_path, tmp_path / "home")
    yield made
    made.mlpacker("undeploy", "double")


def _write(place: Here, code: str) -> None:
    place.write("code/main.py", code)
    place.write("double.yaml", DOUBLE)


def _unit(place: Here) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(place.mlpacker("status", "double", "--json").stdout)["units"][0]
    return found


def test_replacing_and_going_back_lose_no_request(place: Here) -> None:
    _write(place, "def handler(value):\n    return 2 * value\n")
    assert place.mlpacker("deploy", "double.yaml").returncode == 0
    first = _unit(place)
    _write(place, "def handler(value):\n    return value + value\n")
    with Load(first["endpoint"], 4, 8) as load:
        replaced = place.mlpacker("deploy", "double.yaml", **WATCH)
        second = _unit(place)
        back = place.mlpacker("rollback", "double", **WATCH)
    assert replaced.returncode == 0, replaced.stderr
    assert back.returncode == 0, back.stderr
    assert first["release"] == _unit(place)["release"] != second["release"]
    print(f"replaced and rolled back: {load.answered} answered, {len(load.lost)} lost, {load.releases}")
    assert load.lost == []
    assert set(load.releases) == {first["release"], second["release"]}


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("import os, sys\nif '--check' not in sys.argv:\n    os._exit(3)\n", "does not stay up"),
        (
            "import os, sys, threading\n"
            "if '--check' not in sys.argv:\n    threading.Timer(2, os._exit, (3,)).start()\n",
            "it was ready and did not stay so",
        ),
    ],
    ids=["crashes", "dies later"],
)
def test_a_release_that_does_not_hold_never_touches_what_is_live(place: Here, code: str, says: str) -> None:
    _write(place, "def handler(value):\n    return 2 * value\n")
    assert place.mlpacker("deploy", "double.yaml").returncode == 0
    before = _unit(place)
    _write(place, f"{code}\ndef handler(value):\n    return 2 * value\n")
    with Load(before["endpoint"], 4, 8) as load:
        failed = place.mlpacker("deploy", "double.yaml", MLPACKER__DEPLOY__WATCH_SECONDS="6")
    assert failed.returncode == 7, failed.stderr
    assert says in failed.stderr
    print(f"a bad release: {load.answered} answered, {len(load.lost)} lost")
    assert load.lost == []
    assert set(load.releases) == {before["release"]}
    after = _unit(place)
    assert (after["release"], after["pid"]) == (before["release"], before["pid"])
