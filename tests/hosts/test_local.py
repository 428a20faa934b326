"""This machine as a host."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from packer_lib.hosts.local import NOT_FOUND, TIMED_OUT, LocalHost
from tests.support import wait_for
from tests.tiny import is_gone


def test_a_command_gives_its_code_and_what_it_said() -> None:
    result = LocalHost().run(("sh", "-c", "cat; echo bad >&2; exit 3"), input="in")
    assert (result.code, result.out, result.err, result.ok) == (3, "in", "bad\n", False)
    assert result.tail(1) == "bad"


def test_a_program_that_is_not_there_is_a_result_not_an_exception() -> None:
    result = LocalHost().run(("no-such-program",))
    assert result.code == NOT_FOUND
    assert "no-such-program: No such file" in result.err


def test_a_given_environment_is_the_whole_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "hunter2")
    said = LocalHost().run(("/usr/bin/env",), env={"A": "1\n2"}).out
    assert said == "A=1\n2\n"
    assert "hunter2" in LocalHost().run(("/usr/bin/env",)).out


def test_nothing_is_read_by_a_shell() -> None:
    assert LocalHost().run(("echo", "$(id) `id` ; id")).out == "$(id) `id` ; id\n"


def test_when_time_is_up_everything_it_started_is_killed(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    begun = time.monotonic()
    result = LocalHost().run(("sh", "-c", f"sleep 60 & echo $! > {pid_file}; wait"), timeout=0.5)
    assert result.code == TIMED_OUT
    assert "stopped after 0.5 s" in result.err
    assert time.monotonic() - begun < 10
    child = int(pid_file.read_text())
    wait_for(lambda: is_gone(child), 5, "the grandchild's end")


def test_a_file_is_replaced_whole_and_only_its_owner_may_read_it(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "deep" / "target"
    source.write_text("new")
    LocalHost().put(source, str(target), 0o600)
    inode = target.stat().st_ino
    LocalHost().put(source, str(target), 0o600)
    assert target.read_text() == "new"
    assert target.stat().st_mode & 0o777 == 0o600
    assert target.stat().st_ino != inode
    assert [path.name for path in target.parent.iterdir()] == ["target"]


def test_a_folder_is_copied_whole_and_left_alone_when_it_is_there(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "deep" / "target"
    (source / "in").mkdir(parents=True)
    (source / "in" / "file").write_text("1")
    (source / "link").symlink_to("in/file")
    LocalHost().put(source, str(target))
    (source / "in" / "file").write_text("2")
    LocalHost().put(source, str(target))
    assert (target / "in" / "file").read_text() == "1"
    assert (target / "link").is_symlink()
    assert [path.name for path in target.parent.iterdir()] == ["target"]


def test_a_copy_that_fails_leaves_nothing(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "target"
    with pytest.raises(FileNotFoundError):
        LocalHost().put(tmp_path / "not-there", str(target))
    assert list(target.parent.iterdir()) == []
