"""This installation's settings: where each may come from, what is told of a wrong one, and what nobody sees."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from packer_lib import settings
from packer_lib.errors import MLPackerError
from packer_lib.settings import Settings

SECRETS = {
    "MLPACKER__REGISTRY__PASSWORD": "registry_password",
    "MLPACKER__BUILD__INDEX_URL": "index_url",
}
TASK = {"AIRFLOW_CTX_DAG_ID": "mlpacker.plant"}


def test_without_any_variable_the_defaults_of_the_page_hold() -> None:
    made, plain = settings.read({}), Settings(home=Path.home() / ".mlpacker")
    found = {"docker", "key_roots"}  # what this machine has decides
    assert {field.name for field in fields(made) if getattr(made, field.name) != getattr(plain, field.name)} <= found


@pytest.mark.parametrize(("name", "field"), SECRETS.items())
def test_a_secret_may_be_in_a_file_and_is_in_no_repr(tmp_path: Path, name: str, field: str) -> None:
    file = tmp_path / "secret"
    file.write_text("hunter2 with spaces \n")
    made = settings.read({f"{name}_FILE": str(file)})
    assert getattr(made, field) == "hunter2 with spaces "
    assert getattr(settings.read({name: "first", f"{name}_FILE": str(file)}), field) == "first"
    assert "hunter2" not in repr(made)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("MLPACKER__SECURITY__ALLOW_PLAINTEXT", "no", "expected true or false, got 'no'"),
        ("MLPACKER__DEPLOY__WATCH_SECONDS", "soon", "expected a number, got 'soon'"),
        ("MLPACKER__DEPLOY__KEEP_RELEASES", "few", "expected a number, got 'few'"),
        ("MLPACKER__REGISTRY__PASSWORD_FILE", "/nowhere/x", "/nowhere/x cannot be read (FileNotFoundError)"),
    ],
)
def test_a_setting_that_is_wrong_is_named_and_never_guessed(name: str, value: str, told: str) -> None:
    """`no` for plain text must not mean that it is allowed."""
    with pytest.raises(MLPackerError) as caught:
        settings.read({name: value})
    assert str(caught.value) == f"{name}: {told}"


def test_a_task_of_airflow_gives_less_to_a_file_than_its_author_s_own_shell() -> None:
    shell, task = settings.read({}), settings.read(TASK)
    assert (shell.secret_env, task.secret_env) == (("*",), ("MLPACKER_SECRET_*",))
    assert task.key_roots == (task.home / "keys",)
    assert set(shell.key_roots) == {shell.home / "keys", Path("~/.ssh").expanduser()}


def test_an_administrator_may_widen_what_a_task_gives() -> None:
    given = {"MLPACKER__SSH__KEY_ROOTS": "/etc/keys:~/k", "MLPACKER__SECURITY__SECRET_ENV": "PLANT_*, EDGE"}
    made = settings.read({**TASK, **given})
    assert made.key_roots == (Path("/etc/keys"), Path("~/k").expanduser())
    assert made.secret_env == ("PLANT_*", "EDGE")
