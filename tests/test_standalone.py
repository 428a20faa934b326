"""The settings of the Airflow we ship, without starting it (tests/airflow/test_live.py does)."""

from __future__ import annotations

import json
import stat
from pathlib import Path

from packer_lib.standalone import Airflow, Ports, environment, free_ports


def test_secrets_are_made_once_and_only_we_can_read_them(tmp_path: Path) -> None:
    first = environment(tmp_path / "home", tmp_path / "pipelines")
    assert environment(tmp_path / "home", tmp_path / "pipelines") == first
    assert environment(tmp_path / "other", tmp_path / "p")["AIRFLOW__API_AUTH__JWT_SECRET"] not in first.values()
    for name in ("secrets.json", "passwords.json"):
        assert stat.S_IMODE((tmp_path / "home" / name).stat().st_mode) == 0o600


def test_two_on_one_machine_share_no_port_and_talk_to_themselves(tmp_path: Path) -> None:
    one, two = free_ports(), free_ports()
    assert len({one.api, one.worker_logs, one.trigger_logs}) == 3
    env = environment(tmp_path, tmp_path, two)
    assert env["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] == f"http://127.0.0.1:{two.api}/execution/"
    assert env["AIRFLOW__API__HOST"] == "127.0.0.1"


def test_signing_in_is_asked_for_unless_it_is_switched_off(tmp_path: Path) -> None:
    key = "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS"
    assert environment(tmp_path, tmp_path)[key] == "False"
    assert environment(tmp_path, tmp_path, login=False)[key] == "True"
    assert (
        Airflow(tmp_path, tmp_path, Ports()).password == json.loads((tmp_path / "passwords.json").read_text())["admin"]
    )


def test_the_watched_folder_is_a_bundle(tmp_path: Path) -> None:
    bundles = json.loads(environment(tmp_path, tmp_path / "p")["AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST"])
    assert bundles[0]["kwargs"]["source"] == str(tmp_path / "p")
