"""A file without its passwords says all that it said; the connections have them, and nothing else does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from packer_lib import padl
from packer_lib.cli import app
from packer_lib.padl.model import SecretRef
from packer_lib.padl.secure import connection_id, secured
from tests.padl import golden

PAPER = golden.GOLDEN / "valid" / "api-model-1.0" / "pipeline.json"
YAML = """# the plant's own
version: "1.1"
id: plant
containerized: false
package-mode: api
deploy-mode: remote
pipeline:
  s: {{type: code, language: python, props: {{path: ./s}}, infra: m1}}
infra:
  m1:
    hostname: edge   # in the hall
    sshConfig:
      user: deploy
      pass: {password} # changed in May
      port: 2222
"""


def test_the_paper_s_listing_becomes_a_file_of_1_1_with_a_connection() -> None:
    before = padl.read(PAPER)
    text, (moved,) = secured(PAPER.read_text(), "pipeline.json")
    after = padl.read_text(text, "pipeline.json")
    assert after.version == "1.1"
    assert after.machines[0].secret == SecretRef("conn", moved.conn_id)
    assert (after.steps, after.queues, after.warnings) == (before.steps, before.queues, ())
    login = json.loads(PAPER.read_text())["infra"]["m1"]
    assert moved.connection["password"] == login["sshConfig"]["pass"]
    assert (moved.connection["host"], moved.connection["login"]) == (login["hostname"], login["sshConfig"]["user"])


@pytest.mark.parametrize("written", ["hunter2", '"hunter2"', "'hunter2'"])
def test_comments_and_layout_stay(written: str) -> None:
    text, (moved,) = secured(YAML.format(password=written), "p.yaml")
    assert text == YAML.format(password="XXX").replace("pass: XXX", '"conn_id": "mlpacker_plant_m1"')
    assert moved.connection == {
        "conn_type": "ssh",
        "host": "edge",
        "port": 2222,
        "login": "deploy",
        "password": "hunter2",
    }
    assert "hunter2" not in repr(moved)


@given(st.text(min_size=1, max_size=12), st.booleans())
def test_no_password_survives_however_it_is_written(password: str, ascii_only: bool) -> None:
    before: dict[str, Any] = {"version": "1.1", "id": "p", "infra": {"m.1": {"sshConfig": {"pass": password}}}}
    text, moved = secured(json.dumps(before, ensure_ascii=ascii_only, indent=1), "p.json")
    login = json.loads(text)["infra"]["m.1"]["sshConfig"]
    assert login == {"conn_id": moved[0].conn_id}
    assert moved[0].connection["password"] == password


def test_the_connection_knows_the_machine_s_key_for_a_file_s_own_does_not_count_in_airflow() -> None:
    pinned = YAML.format(password="x").replace("port: 2222", f"host_key: SHA256:{'a' * 43}")
    _, (moved,) = secured(pinned, "p.yaml")
    assert json.loads(moved.connection["extra"]) == {"host_key": f"SHA256:{'a' * 43}"}


def test_a_file_without_passwords_stays_as_it_is() -> None:
    text = YAML.format(password="x").replace("pass:", "pass_env:")
    assert secured(text, "p.yaml") == (text, ())


NAMES = st.text("ab_.-", min_size=1, max_size=4)


@given(NAMES, NAMES, NAMES, NAMES)
def test_two_machines_never_share_a_connection(one: str, m1: str, other: str, m2: str) -> None:
    assert (connection_id(one, m1) == connection_id(other, m2)) == ((one, m1) == (other, m2))


def test_the_command_rewrites_the_file_and_shows_no_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLPACKER__PATHS__HOME", str(tmp_path / "home"))
    file = tmp_path / "plant.yaml"
    file.write_text(YAML.format(password="hunter2"))
    done = CliRunner().invoke(app, ["secure", str(file)])
    kept = tmp_path / "home/connections/plant.json"
    assert (done.exit_code, "hunter2" in done.output) == (0, False)
    assert str(kept) in done.output
    assert json.loads(kept.read_text())["mlpacker_plant_m1"]["password"] == "hunter2"
    assert kept.stat().st_mode & 0o777 == 0o600
    assert "hunter2" not in file.read_text()
    assert padl.read(file).warnings == ()
