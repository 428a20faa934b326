"""What `check` says of artefacts that cannot be used, and where."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from packer_lib import artefacts
from packer_lib.errors import PadlInvalid, PolicyRefused, Problem
from packer_lib.padl.model import Step
from tests.artefacts import cases


def only(folder: Path, step: Step, **settings: object) -> Problem:
    (problem,) = artefacts.check(cases.plan(folder, step), cases.settings(folder, **settings))
    return problem


def faults(folder: Path, step: Step, **settings: object) -> list[str]:
    """The levels of all that is more than a warning."""
    found = artefacts.check(cases.plan(folder, step), cases.settings(folder, **settings))
    return [problem.level for problem in found if problem.level != "warning"]


def test_what_is_as_the_padl_says_has_no_problem(tmp_path: Path) -> None:
    cases.write_code(tmp_path)
    sha256 = hashlib.sha256(cases.write_model(tmp_path).read_bytes()).hexdigest()
    plan = cases.plan(tmp_path, cases.code(), cases.model(sha256=sha256))
    assert artefacts.check(plan, cases.settings(tmp_path)) == []


def test_a_missing_model_is_named_at_its_line_and_column(tmp_path: Path) -> None:
    problem = only(tmp_path, cases.model("models/lstm.pickle"))
    assert (problem.file, problem.line, problem.column) == (str(tmp_path / "pipeline.json"), 6, 17)
    assert problem.path == "pipeline.classify.props.path"
    assert problem.level == "error"
    assert "there is no 'models/lstm.pickle'" in problem.message
    assert str(tmp_path / "models/lstm.pickle") in problem.message


@pytest.mark.parametrize(
    "path",
    ["../secret.pickle", "code/../../secret.pickle", "/etc/passwd", "link.pickle", "folder/secret.pickle", "broken"],
)
def test_a_path_out_of_the_folder_is_refused_whether_or_not_something_is_there(tmp_path: Path, path: str) -> None:
    home = tmp_path / "pipelines"
    home.mkdir()
    cases.write_code(home)
    secret = cases.write_model(tmp_path, "secret.pickle")
    (home / "link.pickle").symlink_to(secret)
    (home / "folder").symlink_to(tmp_path)
    (home / "broken").symlink_to("/nowhere/at/all")
    problem = only(home, cases.model(path))
    assert problem.level == "refused"
    assert "MLPACKER__PATHS__MODEL_ROOTS" in problem.hint


@pytest.mark.parametrize(
    "path", ["a\0b", "x" * 5000, "..\\secret.pickle", "%2e%2e/secret.pickle", "%252e%252e/secret", "~/x"]
)
def test_a_path_is_taken_as_it_is_and_never_decoded(tmp_path: Path, path: str) -> None:
    cases.write_model(tmp_path, "secret.pickle")
    home = tmp_path / "pipelines"
    home.mkdir()
    assert only(home, cases.model(path)).path == "pipeline.classify.props.path"


def test_an_absolute_path_under_a_root_is_allowed(tmp_path: Path) -> None:
    shared, home = tmp_path / "shared", tmp_path / "pipelines"
    shared.mkdir()
    home.mkdir()
    step = cases.model(str(cases.write_model(shared)))
    assert faults(home, step) == ["refused"]
    assert faults(home, step, model_roots=(shared,)) == []


def test_a_link_from_one_root_into_another_is_allowed(tmp_path: Path) -> None:
    shared, home = tmp_path / "shared", tmp_path / "pipelines"
    shared.mkdir()
    home.mkdir()
    (home / "current.pickle").symlink_to(cases.write_model(shared))
    assert faults(home, cases.model("current.pickle"), model_roots=(shared,)) == []


def test_another_digest_is_shown_with_both(tmp_path: Path) -> None:
    actual = hashlib.sha256(cases.write_model(tmp_path).read_bytes()).hexdigest()
    problem = only(tmp_path, cases.model(sha256="0" * 64))
    assert problem.path == "pipeline.classify.props.sha256"
    assert actual in problem.message
    assert "0" * 64 in problem.message


def test_a_wrong_serializer_is_shown_with_the_right_one(tmp_path: Path) -> None:
    cases.write_model(tmp_path)
    problem = only(tmp_path, cases.model(serializer="h5"))
    assert (problem.path, problem.line) == ("pipeline.classify.props.serializer", 7)
    assert "looks like joblib" in problem.message


def test_wrong_digest_and_wrong_serializer_are_reported_together(tmp_path: Path) -> None:
    cases.write_model(tmp_path)
    plan = cases.plan(tmp_path, cases.model(serializer="skops", sha256="0" * 64))
    assert len(artefacts.check(plan, cases.settings(tmp_path))) == 2


@pytest.mark.parametrize("serializer", ["pickle", "joblib"])
def test_strict_mode_wants_a_digest_for_what_can_run_code(tmp_path: Path, serializer: str) -> None:
    sha256 = hashlib.sha256(cases.write_model(tmp_path).read_bytes()).hexdigest()
    assert only(tmp_path, cases.model(serializer=serializer), strict=True).level == "refused"
    pinned = cases.plan(tmp_path, cases.model(serializer=serializer, sha256=sha256))
    assert artefacts.check(pinned, cases.settings(tmp_path, strict=True)) == []


def test_a_format_that_can_run_code_is_warned_of_once_with_its_line_and_the_remedy(tmp_path: Path) -> None:
    sha256 = hashlib.sha256(cases.write_model(tmp_path).read_bytes()).hexdigest()
    warned = only(tmp_path, cases.model())
    assert (warned.level, warned.path, warned.line) == ("warning", "pipeline.classify.props.serializer", 7)
    assert warned.message == "pickle can run code of its author when it is loaded"
    assert (
        warned.hint == f'pin the file that you trust by "sha256": "{sha256}" in props (PADL 1.1), or save it as skops'
    )
    assert artefacts.check(cases.plan(tmp_path, cases.model(sha256=sha256)), cases.settings(tmp_path)) == []


def test_what_a_pickle_names_and_we_do_not_know_is_in_the_warning(tmp_path: Path) -> None:
    (tmp_path / "model.pickle").write_bytes(b"\x80\x02cmycompany.models\nMine\n)R.")
    warned = only(tmp_path, cases.model())
    assert warned.level == "warning"
    assert "it names mycompany.models.Mine, which we do not know" in warned.message


def test_a_model_at_a_url_is_warned_of_before_it_is_fetched(tmp_path: Path) -> None:
    warned = only(tmp_path, cases.model("https://models.example/model.pickle"))
    assert (warned.level, "pin the file that you trust by sha256" in warned.hint) == ("warning", True)


def test_warnings_stand_in_nobodys_way(tmp_path: Path) -> None:
    cases.write_model(tmp_path)
    warned = artefacts.require(cases.plan(tmp_path, cases.model()), cases.settings(tmp_path))
    assert [problem.level for problem in warned] == ["warning"]


def test_a_folder_without_its_entry_point_says_what_there_is(tmp_path: Path) -> None:
    cases.write_code(tmp_path, filter__py="")
    problem = only(tmp_path, cases.code(entrypoint="app.py"))
    assert "there is filter.py, main.py" in problem.message


@pytest.mark.parametrize("entrypoint", ["../other.py", "/etc/passwd"])
def test_an_entry_point_out_of_the_folder_is_refused(tmp_path: Path, entrypoint: str) -> None:
    cases.write_code(tmp_path)
    (tmp_path / "other.py").write_text(cases.CODE)
    assert only(tmp_path, cases.code(entrypoint=entrypoint)).level == "refused"


def test_a_code_step_that_names_a_file_is_told_about_entrypoint(tmp_path: Path) -> None:
    cases.write_code(tmp_path)
    assert "entrypoint" in only(tmp_path, cases.code("code/main.py")).hint


def test_every_refused_requirement_is_named_with_its_own_file_and_line(tmp_path: Path) -> None:
    cases.write_code(tmp_path, requirements__txt="numpy>=2\n--index-url https://elsewhere.example\n\n-e .\n")
    problems = artefacts.check(cases.plan(tmp_path, cases.code()), cases.settings(tmp_path))
    assert [(problem.file, problem.line, problem.level) for problem in problems] == [
        ("./code/requirements.txt", 2, "refused"),
        ("./code/requirements.txt", 4, "refused"),
    ]


def test_a_link_in_a_code_folder_is_named(tmp_path: Path) -> None:
    (cases.write_code(tmp_path) / "requirements.txt").symlink_to("/etc/passwd")
    problem = only(tmp_path, cases.code())
    assert problem.message.endswith("code/requirements.txt is a symbolic link")


def test_a_pipe_or_device_in_a_code_folder_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    os.mkfifo(cases.write_code(tmp_path) / "pipe")
    assert "not a regular file" in only(tmp_path, cases.code()).message


def test_a_code_folder_with_too_many_files_is_refused(tmp_path: Path) -> None:
    folder = cases.write_code(tmp_path)
    for number in range(5_000):
        (folder / str(number)).touch()
    assert "more than 5000 files" in only(tmp_path, cases.code()).message


def test_a_code_folder_that_is_too_large_is_refused(tmp_path: Path) -> None:
    with (cases.write_code(tmp_path) / "data.bin").open("wb") as file:
        file.truncate(65 << 20)
    assert "larger than 64 MiB" in only(tmp_path, cases.code()).message


def test_a_code_folder_nested_without_end_is_refused(tmp_path: Path) -> None:
    folder = cases.write_code(tmp_path)
    (folder / "/".join(["d"] * 40)).mkdir(parents=True)
    assert "nested deeper" in only(tmp_path, cases.code()).message


def test_environments_and_version_control_in_a_code_folder_do_not_count(tmp_path: Path) -> None:
    folder = cases.write_code(tmp_path)
    (folder / ".venv/bin").mkdir(parents=True)
    (folder / ".venv/bin/python").symlink_to("/usr/bin/python3")
    (folder / ".git").write_text("gitdir: elsewhere")
    assert artefacts.check(cases.plan(tmp_path, cases.code()), cases.settings(tmp_path)) == []


def test_errors_make_the_file_invalid_and_refusals_alone_are_policy(tmp_path: Path) -> None:
    missing, outside = cases.model("no.pickle"), cases.code("../elsewhere")
    with pytest.raises(PolicyRefused) as refused:
        artefacts.require(cases.plan(tmp_path, outside), cases.settings(tmp_path))
    with pytest.raises(PadlInvalid) as invalid:
        artefacts.require(cases.plan(tmp_path, missing, outside), cases.settings(tmp_path))
    assert (refused.value.exit_code, invalid.value.exit_code) == (4, 3)
    assert len(invalid.value.problems) == 2
