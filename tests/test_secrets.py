"""Where secrets may come from, and that they stay in memory."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from packer_lib import secrets
from packer_lib.errors import DeployFailed, PolicyRefused
from packer_lib.padl.model import Machine, SecretRef
from packer_lib.settings import Settings

SENTINEL = "hunter2-9d1e"
PIN = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"
TASK = {"AIRFLOW_CTX_DAG_ID": "p"}


def _machine(kind: str = "", where: str = "", **changes: object) -> Machine:
    secret = SecretRef(kind, where) if kind else None  # type: ignore[arg-type]
    fields = {"id": "m1", "hostname": "edge", "user": "u", "secret": secret, "host_key": PIN, **changes}
    return Machine(**fields)  # type: ignore[arg-type]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    home = tmp_path / "home"
    (home / "keys").mkdir(parents=True)
    return Settings(home=home, key_roots=(home / "keys",))


def test_without_a_secret_own_keys_are_the_command_lines_only(settings: Settings) -> None:
    assert secrets.login(_machine(), None, settings, {}).own_keys
    assert not secrets.login(_machine(), None, settings, TASK).own_keys


def test_a_variable_of_an_allowed_name_is_the_password(settings: Settings) -> None:
    chosen = replace(settings, secret_env=("MLPACKER_SECRET_*",))
    environ = {"MLPACKER_SECRET_M1": SENTINEL, "AWS_SECRET_ACCESS_KEY": SENTINEL}
    found = secrets.login(_machine("env", "MLPACKER_SECRET_M1"), None, chosen, environ)
    assert found.password == SENTINEL
    assert SENTINEL not in f"{found!r} {found}"
    with pytest.raises(PolicyRefused, match="AWS_SECRET_ACCESS_KEY is not for PADL files") as refused:
        secrets.login(_machine("env", "AWS_SECRET_ACCESS_KEY"), None, chosen, environ)
    assert SENTINEL not in str(refused.value)
    with pytest.raises(DeployFailed, match="MLPACKER_SECRET_M2 is not set"):
        secrets.login(_machine("env", "MLPACKER_SECRET_M2"), None, chosen, environ)


def test_a_key_file_lies_below_a_root_also_when_links_say_otherwise(settings: Settings, tmp_path: Path) -> None:
    key = settings.home / "keys/m1"
    key.write_text("key")
    outside = tmp_path / "outside"
    outside.write_text("key")
    (settings.home / "keys/link").symlink_to(outside)
    assert secrets.login(_machine("file", str(key)), None, settings, {}).key_file == str(key)
    assert secrets.login(_machine("file", "m1"), None, settings, {}).key_file == str(key)
    for path in (str(outside), str(settings.home / "keys/../../outside"), str(settings.home / "keys/link"), "../x"):
        with pytest.raises(PolicyRefused, match="is not where keys may be"):
            secrets.login(_machine("file", path), None, settings, {})
    with pytest.raises(DeployFailed, match="there is no key file"):
        secrets.login(_machine("file", "m2"), None, settings, {})


@pytest.mark.parametrize("suffix", [".json", ".yaml"])
def test_a_literal_password_is_read_where_it_stands(settings: Settings, tmp_path: Path, suffix: str) -> None:
    text = (
        json.dumps({"infra": {"m1": {"sshConfig": {"pass": SENTINEL}}}})
        if suffix == ".json"
        else f"infra:\n  m1:\n    sshConfig:\n      pass: {SENTINEL}\n"
    )
    file = tmp_path / f"p{suffix}"
    file.write_text(text)
    machine = _machine("padl", "/infra/m1/sshConfig/pass")
    for source in (file, text):
        found = secrets.login(machine, source, settings, TASK)
        assert found.password == SENTINEL
        assert found.host_key == PIN, "the password is the author's own, and so is the pin"
    with pytest.raises(PolicyRefused, match="not allowed here") as refused:
        secrets.login(machine, file, replace(settings, allow_plaintext=False), {})
    assert SENTINEL not in str(refused.value)
    with pytest.raises(DeployFailed, match="no longer in the PADL file"):
        secrets.login(_machine("padl", "/infra/m2/sshConfig/pass"), text, settings, {})


def test_only_connections_that_are_meant_for_it(settings: Settings) -> None:
    with pytest.raises(PolicyRefused, match="'prod_db' is not for PADL files"):
        secrets.login(_machine("conn", "prod_db"), None, settings, {"AIRFLOW_CONN_PROD_DB": "{}"})


def test_a_connection_completes_what_the_file_says(settings: Settings) -> None:
    given = {"host": "edge.real", "port": 2222, "login": "other", "password": SENTINEL, "extra": {"host_key": "k 1"}}
    environ = {"AIRFLOW_CONN_MLPACKER_M1": json.dumps(given)}
    found = secrets.login(_machine("conn", "mlpacker_m1", user=None, host_key=None), None, settings, environ)
    assert (found.hostname, found.port, found.user, found.password) == ("edge.real", 2222, "other", SENTINEL)
    assert (found.host_key, found.conn) == ("k 1", "")
    waiting = secrets.login(_machine("conn", "mlpacker_m1"), None, settings, {})
    assert waiting.conn == "mlpacker_m1"
    keyed = secrets.connection(waiting, {"extra": json.dumps({"private_key": "KEY", "private_key_passphrase": "p"})})
    assert (keyed.key_text, keyed.passphrase, keyed.password) == ("KEY", "p", "")


def test_what_is_no_connection_is_told_without_its_text(settings: Settings) -> None:
    for text in (f"ssh://u:{SENTINEL}@h", f'["{SENTINEL}"]'):
        with pytest.raises(DeployFailed, match="is not a connection as JSON") as failed:
            secrets.login(_machine("conn", "mlpacker_m1"), None, settings, {"AIRFLOW_CONN_MLPACKER_M1": text})
        assert SENTINEL not in str(failed.value)


def test_an_author_does_not_say_which_machine_gets_the_installations_password(settings: Settings) -> None:
    """A file with its own host name and host key would have any password sent there."""
    environ = {**TASK, "MLPACKER_SECRET_M1": SENTINEL}
    assert secrets.login(_machine("env", "MLPACKER_SECRET_M1"), None, settings, environ).host_key == ""
    waiting = secrets.login(_machine("conn", "mlpacker_m1"), None, settings, TASK)
    assert waiting.host_key == ""
    with pytest.raises(PolicyRefused, match="names no host"):
        secrets.connection(waiting, {"password": SENTINEL})
    found = secrets.connection(waiting, {"host": "real", "login": "r", "extra": {"host_key": "ours"}})
    assert (found.hostname, found.user, found.host_key) == ("real", "r", "ours")
