"""Literal passwords: found wherever the language lets them be, and gone from the text that is shown."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlpacker_airflow import secrets

from packer_lib.padl.load import load_text

WAYS = [
    ("a.json", '{"user": "vagrant", "pass": "vagrant", "port": 22}'),
    ("a.json", '{"user": "vagrant",\n "pass"\n :\n "vagrant"\n}'),
    ("a.yaml", "user: vagrant\npass: vagrant\nport: 22\n"),
    ("a.yaml", "user: vagrant # me\npass: 'vagrant' # mine\nport: 22\n"),
    ("a.yaml", '{user: vagrant, "pass": vagrant, port: 22}'),
    ("a.yaml", "user: vagrant\npass: |\n  vagrant\nport: 22\n"),
    ("a.yaml", "user: vagrant\npass: va grant, or not\nport: 22\n"),
    ("a.yaml", "user: vagrant\nport: 22\npass:\n  vagrant"),
]


@pytest.mark.parametrize(("file", "text"), WAYS)
def test_the_password_is_hidden_and_all_else_stays(file: str, text: str) -> None:
    before, after = load_text(text, file).value, load_text(secrets.hide(text, file), file).value
    assert after.pop("pass") == secrets.HIDDEN
    password = before.pop("pass")
    assert after == before
    assert secrets.literals(text, file) == [password]


def test_names_that_only_point_to_a_secret_are_shown() -> None:
    text = '{"pass_env": "MQTT_PASSWORD", "key_file": "~/.ssh/id", "path": "./compass"}'
    assert secrets.hide(text, "a.json") == text


def test_comments_and_layout_stay() -> None:
    text = "# the plant's own broker\nqueues:\n  q1:   {sasl.password: abc}   # soon by conn_id\n"
    assert secrets.hide(text, "a.yaml") == text.replace("abc", f'"{secrets.HIDDEN}"')


def test_a_text_that_cannot_be_read_is_not_shown() -> None:
    assert "vagrant" not in secrets.hide('{"pass": "vagrant"', "a.json")


@given(st.text(min_size=3), st.text())
@settings(max_examples=200, deadline=None)
def test_no_password_survives_in_json(password: str, user: str) -> None:
    text = json.dumps({"user": "u", "deep": [{"pass": f"#{password}#"}], "note": user}, ensure_ascii=False)
    hidden = secrets.hide(text, "a.json")
    assert json.dumps(f"#{password}#", ensure_ascii=False)[1:-1] not in hidden.replace(
        json.dumps(user, ensure_ascii=False), ""
    )
