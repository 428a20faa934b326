"""What a machine says of its units, and their logs."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from packer_lib import status
from packer_lib.settings import Settings
from tests.support import wait_for
from tests.tiny import Tiny, tiny

native = pytest.mark.native


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tiny]:
    made = tiny(tmp_path, monkeypatch)
    yield made
    made.undeploy()


def test_a_machine_without_a_home_has_nothing(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home")
    assert status.status(settings) == []
    with pytest.raises(status.NotDeployed, match="no pipeline 'p' is deployed here"):
        status.status(settings, "p")
    assert not settings.home.exists()


@native
def test_status_follows_what_the_process_does(here: Tiny) -> None:
    here.deploy(here.plan())
    assert here.unit()["state"] == "running"
    os.kill(here.unit()["pid"], signal.SIGSTOP)
    hung = here.unit()
    assert hung["state"] == "starting"
    assert "timed out" in hung["reason"]
    assert hung["models"] == [{"step": "double", "version": "abababababab", "sha256": "ab" * 32}]
    os.kill(hung["pid"], signal.SIGCONT)
    wait_for(lambda: here.unit()["state"] == "running", 10, "the unit to answer again")


@native
def test_a_unit_that_keeps_ending_is_failed(here: Tiny) -> None:
    here.deploy(here.plan())
    service = next(here.settings.home.glob("bundles/*/service.py"))
    service.write_text("raise SystemExit('out of luck')")
    os.kill(here.unit()["pid"], signal.SIGKILL)
    wait_for(lambda: here.unit()["state"] == "failed", 40, "failed")
    unit = here.unit()
    assert "Exited too quickly" in unit["reason"]
    assert len(status.logs(here.settings, "tiny", "double")) == 5


@native
def test_what_a_unit_says_of_its_models_comes_first(here: Tiny) -> None:
    models = [{"step": "double", "version": "7", "sha256": "cd" * 32}]
    here.told["double"] = {"factor": 2, "models": models}
    here.deploy(here.plan())
    assert here.unit()["models"] == models


@native
def test_logs_of_several_units_begin_with_their_names(here: Tiny) -> None:
    here.deploy(here.plan("one", "two"))
    assert status.logs(here.settings, "tiny") == ["one | serving 2", "two | serving 2"]
    assert status.logs(here.settings, "tiny", "two") == ["serving 2"]
    assert status.logs(here.settings, "tiny", "two", 0) == []
    with pytest.raises(status.NotDeployed, match="no unit 'three'"):
        status.logs(here.settings, "tiny", "three")


@native
def test_followed_lines_come_as_they_are_written_and_cannot_drive_a_terminal(here: Tiny) -> None:
    here.deploy(here.plan())
    lines = status.follow(here.settings, "tiny", "double", 1)
    assert next(lines) == "serving 2"
    with Path(here.layout.log("tiny", "double")).open("a") as log:
        log.write("\x1b]0;title\x07\nnext\n")
    assert list(islice(lines, 2)) == ["\\x1b]0;title\\x07", "next"]
    lines.close()
