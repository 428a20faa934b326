"""Rules that golden files do not reach: sets of files, schedules, paths, secrets, and what a name may be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packer_lib import padl
from packer_lib.errors import PadlInvalid
from packer_lib.padl import cron, paths
from packer_lib.padl.model import Pipeline, SecretRef
from packer_lib.plan import plan, to_dict

REST = """version: "1.1"
id: {id}
containerized: false
package-mode: api
deploy-mode: local
pipeline:
  {step}:
    type: model
    framework: scikit-learn
    props: {{path: ./iris.skops, serializer: skops}}
"""
NAMES = st.text("abc019._-", min_size=1, max_size=8)


def rest(id: str = "iris", step: str = "iris") -> Pipeline:
    return padl.read_text(REST.format(id=json.dumps(id), step=json.dumps(step)), "p.yaml")


def test_one_id_in_two_files_is_a_problem_of_both(tmp_path: Path) -> None:
    files = [tmp_path / "a.yaml", tmp_path / "b.yaml", tmp_path / "c.yaml"]
    for file, id in zip(files, ("iris", "iris", "rose"), strict=True):
        file.write_text(REST.format(id=id, step="s"))
    told = [str(problem) for problem in padl.check_set([padl.read(file) for file in files])]
    remedy = "(one file per id; rename one, or remove it)"
    assert told == [
        f"{files[0]}:2:5: id: the id 'iris' is also in {files[1]} {remedy}",
        f"{files[1]}:2:5: id: the id 'iris' is also in {files[0]} {remedy}",
    ]


def test_two_files_that_listen_on_one_address_are_a_problem_of_both() -> None:
    text = """version: "1.1"
id: {id}
containerized: false
package-mode: stream
deploy-mode: local
pipeline:
  s: {{type: code, language: python, props: {{path: ./s}}, queues: {{input: a, output: b}}}}
queues:
  a: {{connector: websocket, props: {{server: 0.0.0.0, port: 8765, topic: /a, role: server}}}}
  b: {{connector: kafka, props: {{server: localhost, topic: b}}}}
"""
    pipelines = [padl.read_text(text.format(id=id), f"{id}.yaml") for id in ("one", "two")]
    told = [str(problem) for problem in padl.check_set(pipelines)]
    assert len(told) == 2
    assert "queues.a.props.port: two.yaml listens on this address and port too (give each its own port)" in told[0]


def test_files_that_have_nothing_in_common_have_no_problem() -> None:
    assert padl.check_set([rest("one"), rest("two")]) == []


@given(NAMES, NAMES, NAMES, NAMES)
def test_two_units_never_share_a_name_made_of_pipeline_and_step(id: str, step: str, id2: str, step2: str) -> None:
    """`<pipeline>.<unit>` names processes, files and groups: a step's name has no dot, so it can be taken apart."""
    try:
        one, two = rest(id, step), rest(id2, step2)
    except PadlInvalid:
        return
    names = [(pipeline.id, plan(pipeline).units[0].name) for pipeline in (one, two)]
    joined = [".".join(pair) for pair in names]
    assert (joined[0] == joined[1]) == (names[0] == names[1])
    assert tuple(joined[0].rsplit(".", 1)) == names[0]


@given(st.text(max_size=70))
def test_a_name_that_is_taken_is_safe_wherever_it_goes(name: str) -> None:
    safe = set("abcdefghijklmnopqrstuvwxyz0123456789._-")
    try:
        taken = rest(name, "s").id
    except PadlInvalid:
        return
    assert taken == name
    assert set(name) <= safe
    assert name[0] not in "._-"
    assert 1 <= len(name) <= 63


LOGIN: dict[str, Any] = {
    "version": "1.0",
    "id": "p",
    "containerized": False,
    "package-mode": "api",
    "deploy-mode": "remote",
    "pipeline": {
        "s": {
            "type": "model",
            "framework": "sklearn",
            "props": {"path": "s.skops", "serializer": "skops"},
            "infra": "m",
        }
    },
    "infra": {"m": {"hostname": "m", "sshConfig": {"user": "u", "pass": "hunter2-sentinel", "port": 22}}},
}


def test_a_literal_password_is_only_pointed_at() -> None:
    pipeline = padl.read_text(json.dumps(LOGIN, indent=1), "p.json")
    assert pipeline.machines[0].secret == SecretRef("padl", "/infra/m/sshConfig/pass")
    kept = (repr(pipeline), json.dumps(to_dict(plan(pipeline))), *map(str, pipeline.warnings))
    assert not any("hunter2" in text for text in kept)
    assert str(pipeline.warnings[0]).startswith(
        "p.json:23:5: warning: infra.m.sshConfig.pass: the password is in this file"
    )


@pytest.mark.parametrize("value", [True, 12345678, ["hunter2-sentinel"], {"x": "hunter2-sentinel"}, "x" * 2000])
def test_a_password_of_another_type_is_refused_without_being_shown(value: Any) -> None:
    login = {**LOGIN, "infra": {"m": {"hostname": "m", "sshConfig": {"pass": value}}}}
    with pytest.raises(PadlInvalid) as caught:
        padl.read_text(json.dumps(login), "p.json")
    assert "infra.m.sshConfig.pass: expected" in str(caught.value)
    assert not any(shown in str(caught.value) for shown in ("hunter2", "12345678", "xxxx"))


@pytest.mark.parametrize(
    ("login", "secret"),
    [
        ({"conn_id": "mlpacker_m"}, SecretRef("conn", "mlpacker_m")),
        ({"key_file": "/k"}, SecretRef("file", "/k")),
        ({"pass_env": "P"}, SecretRef("env", "P")),
        ({}, None),
    ],
)
def test_each_way_to_log_in_is_kept_as_a_reference(login: dict[str, str], secret: SecretRef | None) -> None:
    text = json.dumps({**LOGIN, "version": "1.1", "infra": {"m": {"hostname": "m", "sshConfig": login}}})
    pipeline = padl.read_text(text, "p.json")
    assert (pipeline.machines[0].secret, pipeline.warnings) == (secret, ())


def test_sklearn_is_another_name_of_scikit_learn() -> None:
    assert padl.read_text(json.dumps(LOGIN), "p.json").steps[0].framework == "scikit-learn"


@pytest.mark.parametrize(
    "schedule",
    ["* * * * *", "*/15 0-6,18 1 jan-mar mon", "0 0 31 12 7", "5/10 * * * *", "0 3 * * SUN", "@daily", "@quarterly"],
)
def test_a_schedule_is_taken(schedule: str) -> None:
    assert cron.fault(schedule) == ""


@pytest.mark.parametrize(
    ("schedule", "fault"),
    [
        ("", "expected 5 fields, got 0"),
        ("60 * * * *", "the minute is 0-59, got 60"),
        ("* 24 * * *", "the hour is 0-23, got 24"),
        ("* * 0 * *", "the day of the month is 1-31, got 0"),
        ("* * * 13 *", "the month is 1-12, got 13"),
        ("* * * * 8", "the day of the week is 0-7, got 8"),
        ("5-1 * * * *", "the minute is 0-59, got 5-1"),
        ("*/0 * * * *", "the minute is 0-59, got */0"),
        ("1, * * * *", "the minute is 0-59, got 1,"),
        ("٣ * * * *", "the minute is 0-59, got ٣"),
        ("@reboot", "unknown preset @reboot"),
    ],
)
def test_what_is_wrong_with_a_schedule_is_named(schedule: str, fault: str) -> None:
    assert cron.fault(schedule) == fault


@pytest.mark.parametrize(
    "path",
    [
        "git@host:team/x.git",
        "host:x.git",
        "https://git.example.org:8443/x.git",
        "ssh://git@[2001:db8::1]:22/x.git",
        "git://host/x",
        "file:///srv/x.git",
        "./code",
        "code/../other",
        "a folder",
        "/srv/code",
    ],
)
def test_code_is_a_git_url_or_a_folder(path: str) -> None:
    assert paths.code_fault(path) is None


@pytest.mark.parametrize(
    "path",
    [
        "--upload-pack=touch /tmp/x",
        "-u",
        "ext::sh -c id",
        "fd::17",
        "ssh://-oProxyCommand=id/x",
        "ssh://git@-oProxyCommand=id/x",
        "ssh://-x@host/x",
        "git@-oProxyCommand=id:x",
        "git@host:--upload-pack=id",
        "https://host/--upload-pack=id",
        "https://host/x --config=y",
        "https://token@host/x",
        "https://u:p@host/x",
        "https:///x",
        "javascript://host/x",
        "..",
        "../x",
        "a/../../x",
        "/a/../../x",
        "..\\x",
        "~/x",
        "~root/x",
        "x\0y",
        "x\ny",
        "x\u2028y",
    ],
)
def test_code_from_elsewhere_or_with_options_inside_is_refused(path: str) -> None:
    assert paths.code_fault(path) is not None


@pytest.mark.parametrize("path", ["%2e%2e/x", "models/%252e%252e/x", "m.h5", "https://host/m.h5?v=1", "s3://bucket/m"])
def test_a_model_path_is_taken_as_it_stands(path: str) -> None:
    assert paths.model_fault(path) is None


@given(st.lists(st.sampled_from(["..", ".", "a", "", "b"]), max_size=8))
def test_a_relative_path_is_refused_exactly_when_it_leaves_its_folder(parts: list[str]) -> None:
    inside = Path("/root") / "x"
    steps = [inside]
    for part in parts:
        steps.append(steps[-1].parent if part == ".." else steps[-1] / part)
    path = "./" + "/".join(parts)
    assert (paths.model_fault(path) is not None) == any(not step.is_relative_to(inside) for step in steps)
