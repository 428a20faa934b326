"""This machine as a host."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from packer_lib.hosts.local import NOT_FOUND, TIMED_OUT, LocalHost
from packer_lib.settings import Settings
from tests.support import wait_for
from tests.tiny import is_gone

HERE = Settings(home=Path("/nowhere"))


def test_a_command_gives_its_code_and_what_it_said() -> None:
    result = LocalHost(HERE).run(("sh", "-c", "cat; echo bad >&2; exit 3"), input="in")
    assert (result.code, result.out, result.err, result.ok) == (3, "in", "bad\n", False)
    assert result.tail(1) == "bad"


def test_a_program_that_is_not_there_is_a_result_not_an_exception() -> None:
    result = LocalHost(HERE).run(("no-such-program",))
    assert result.code == NOT_FOUND
    assert "no-such-program: No such file" in result.err


def test_a_given_environment_is_the_whole_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "hunter2")
    said = LocalHost(HERE).run(("/usr/bin/env",), env={"A": "1\n2"}).out
    assert said == "A=1\n2\n"
    assert "hunter2" in LocalHost(HERE).run(("/usr/bin/env",)).out


def test_nothing_is_read_by_a_shell() -> None:
    assert LocalHost(HERE).run(("echo", "$(id) `id` ; id")).out == "$(id) `id` ; id\n"


def test_when_time_is_up_everything_it_started_is_killed(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    begun = time.monotonic()
    result = LocalHost(HERE).run(("sh", "-c", f"sleep 60 & echo $! > {pid_file}; wait"), timeout=0.5)
    assert result.code == TIMED_OUT
    assert "stopped after 0.5 s" in result.err
    assert time.monotonic() - begun < 10
    child = int(pid_file.read_text())
    wait_for(lambda: is_gone(child), 5, "the grandchild's end")


def test_a_file_is_replaced_whole_and_only_its_owner_may_read_it(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "deep" / "target"
    source.write_text("new")
    LocalHost(HERE).put(source, str(target), 0o600)
    inode = target.stat().st_ino
    LocalHost(HERE).put(source, str(target), 0o600)
    assert target.read_text() == "new"
    assert target.stat().st_mode & 0o777 == 0o600
    assert target.stat().st_ino != inode
    assert [path.name for path in target.parent.iterdir()] == ["target"]


def test_a_folder_is_copied_whole_and_left_alone_when_it_is_there(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "deep" / "target"
    (source / "in").mkdir(parents=True)
    (source / "in" / "file").write_text("1")
    (source / "link").symlink_to("in/file")
    LocalHost(HERE).put(source, str(target))
    (source / "in" / "file").write_text("2")
    LocalHost(HERE).put(source, str(target))
    assert (target / "in" / "file").read_text() == "1"
    assert (target / "link").is_symlink()
    assert [path.name for path in target.parent.iterdir()] == ["target"]


def test_a_copy_that_fails_leaves_nothing(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "target"
    with pytest.raises(FileNotFoundError):
        LocalHost(HERE).put(tmp_path / "not-there", str(target))
    assert list(target.parent.iterdir()) == []


def test_a_stream_is_poured_into_a_command() -> None:
    result = LocalHost(HERE).pour(("sh", "-c", "wc -c; echo bad >&2; exit 3"), (b"x" * 65536 for _ in range(32)))
    assert (result.code, result.out.strip(), result.err) == (3, str(32 * 65536), "bad\n")


def test_a_command_that_ends_before_the_stream_does_is_not_waited_for() -> None:
    asked: list[int] = []

    def chunks() -> Iterator[bytes]:
        for number in range(1000):
            asked.append(number)
            yield b"x" * 65536

    assert LocalHost(HERE).pour(("false",), chunks()).code == 1
    assert len(asked) < 100


def test_a_stream_that_breaks_ends_its_command(tmp_path: Path) -> None:
    done = tmp_path / "done"

    def chunks() -> Iterator[bytes]:
        yield b"half"
        raise OSError("no more")

    with pytest.raises(OSError, match="no more"):
        LocalHost(HERE).pour(("sh", "-c", f"cat; touch {done}"), chunks())
    assert not done.exists()


def test_a_command_that_does_not_read_is_ended_in_time(tmp_path: Path) -> None:
    result = LocalHost(HERE).pour(("sleep", "60"), (b"x" * 65536 for _ in range(32)), timeout=0.5)
    assert result.code == TIMED_OUT
