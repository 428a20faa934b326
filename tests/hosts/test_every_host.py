"""What every host does, this machine and one that is reached by SSH: one suite for both."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from packer_lib.errors import DeployFailed
from packer_lib.hosts import Host
from packer_lib.hosts.local import NOT_FOUND, TIMED_OUT, LocalHost
from packer_lib.hosts.ssh import SshHost
from packer_lib.settings import Settings
from tests.support import wait_for
from tests.tiny import is_gone


@pytest.fixture(params=["here", "by ssh"])
def host(request: pytest.FixtureRequest, here: Settings) -> Host:
    found: Host = LocalHost(here) if request.param == "here" else request.getfixturevalue("remote")
    return found


def test_output_errors_and_code_are_apart(host: Host) -> None:
    result = host.run(("sh", "-c", "cat; echo bad >&2; exit 3"), input="in\n")
    assert (result.code, result.out, result.err) == (3, "in\n", "bad\n")


def test_a_program_that_is_not_there_has_a_code_of_its_own(host: Host) -> None:
    result = host.run(("no-such-program",))
    assert result.code == NOT_FOUND
    assert "no-such-program" in result.err


def test_a_command_that_a_signal_ended_says_so(host: Host) -> None:
    assert host.run(("sh", "-c", "kill -9 $$")).code == -9


@pytest.mark.parametrize("word", ["$(id) `id` ; id", "a\nb", "'\"\\", "*", "-n", "", "ü€", "\x1b[31m"])
def test_a_word_is_never_syntax(host: Host, word: str) -> None:
    assert host.run(("printf", "%s|", word, "end")).out == f"{word}|end|"


def test_the_environment_is_exactly_what_is_given(host: Host) -> None:
    assert host.run(("/usr/bin/env",), env={"A": "1\n2", "B": "$(id) '"}).out == "A=1\n2\nB=$(id) '\n"


def test_without_input_a_command_reads_nothing(host: Host) -> None:
    assert host.run(("cat",), timeout=20).code == 0


def test_much_input_and_much_output_at_once(host: Host) -> None:
    text = "0123456789abcdef" * 500_000
    assert host.run(("cat",), input=text, timeout=120).out == text


def test_after_its_time_a_command_and_all_it_started_are_killed(host: Host, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = f"sleep 60 & echo $! >> {pids}; echo $$ >> {pids}; echo said; wait"
    result = host.run(("sh", "-c", script), timeout=1.0)
    assert result.code == TIMED_OUT
    assert result.out == "said\n"
    assert result.err.endswith("stopped after 1 s")
    for pid in pids.read_text().split():
        wait_for(lambda pid=int(pid): is_gone(pid), 10, "the end of what it started")  # type: ignore[misc]


def test_a_stream_is_poured_into_a_command(host: Host) -> None:
    result = host.pour(("sh", "-c", "wc -c; echo bad >&2; exit 3"), (b"x" * 65536 for _ in range(64)))
    assert (result.code, result.out.strip(), result.err) == (3, str(64 * 65536), "bad\n")


def test_a_command_that_ends_before_the_stream_does_is_not_waited_for(host: Host) -> None:
    asked: list[int] = []

    def chunks() -> Iterator[bytes]:
        for number in range(4000):
            asked.append(number)
            yield b"x" * 65536

    assert host.pour(("sh", "-c", "exit 1"), chunks()).code == 1
    assert len(asked) < 4000


def test_a_stream_that_breaks_ends_its_command(host: Host, tmp_path: Path) -> None:
    pid, done = tmp_path / "pid", tmp_path / "done"

    def chunks() -> Iterator[bytes]:
        yield b"half"
        wait_for(lambda: pid.exists() and pid.read_text(), 20, "the command's begin")
        raise OSError("no more")

    with pytest.raises(OSError, match="no more"):
        host.pour(("sh", "-c", f"echo $$ > {pid}; cat; touch {done}"), chunks())
    wait_for(lambda: is_gone(int(pid.read_text())), 10, "the command's end")
    assert not done.exists()


def test_a_command_that_does_not_read_is_ended_in_time(host: Host) -> None:
    assert host.pour(("sleep", "60"), (b"x" * 65536 for _ in range(64)), timeout=1.0).code == TIMED_OUT


def test_lines_are_heard_as_they_come_and_closing_kills(host: Host, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    lines = host.listen(("sh", "-c", f"echo $$ > {pid}; echo one; echo two >&2; while :; do sleep 0.1; done"))
    assert [next(lines), next(lines)] == ["one", "two"]
    lines.close()
    wait_for(lambda: is_gone(int(pid.read_text())), 20, "its end")


def test_what_ends_by_itself_is_heard_to_its_last_line(host: Host) -> None:
    assert list(host.listen(("printf", "a\n\nb"))) == ["a", "", "b"]


def test_a_file_is_complete_replaced_and_as_private_as_asked(host: Host, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "there/deep/file"
    for text in ("one", "", "three" * 100_000):
        source.write_text(text)
        host.put(source, str(target), 0o600)
        assert target.read_text() == text
        assert stat.S_IMODE(target.stat().st_mode) == 0o600
    source.chmod(0o754)
    host.put(source, str(target))
    assert stat.S_IMODE(target.stat().st_mode) == 0o754
    assert [path.name for path in target.parent.iterdir()] == ["file"]


def test_a_folder_is_what_it_was_and_stays_when_it_is_there(host: Host, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "there/folder"
    (source / "a/b").mkdir(parents=True)
    (source / "a/b/ü \n'$(id)").write_bytes(os.urandom(300_000))
    (source / "empty").touch()
    (source / "none").mkdir()
    (source / "program").write_text("#!/bin/sh\n")
    (source / "program").chmod(0o755)
    (source / "link").symlink_to("a/b")
    (source / "dangling").symlink_to("/nowhere")
    host.put(source, str(target))
    assert _tree(target) == _tree(source)
    (source / "more").touch()
    host.put(source, str(target))
    assert not (target / "more").exists()
    assert [path.name for path in target.parent.iterdir()] == ["folder"]


def _tree(folder: Path) -> dict[str, tuple[int, object]]:
    def content(path: Path) -> object:
        return path.readlink() if path.is_symlink() else path.read_bytes() if path.is_file() else None

    return {str(path.relative_to(folder)): (path.lstat().st_mode, content(path)) for path in folder.rglob("*")}


def test_several_threads_may_use_a_host_at_once(host: Host, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "big").write_bytes(os.urandom(1_000_000))
    said: list[str] = []

    def work(number: int) -> None:
        host.put(source, str(tmp_path / "same"))
        said.append(host.run(("echo", str(number))).out)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(said) == sorted(f"{number}\n" for number in range(20))
    assert (tmp_path / "same/big").read_bytes() == (source / "big").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".put")) == []


def test_a_host_says_what_it_is(host: Host) -> None:
    assert Path(host.home).is_absolute()
    assert host.uid == os.getuid()
    assert set(host.environ) >= {"PATH", "HOME", "LANG"}
    assert host.run((host.python, "-c", "")).ok


def test_a_target_that_cannot_be_written_says_why(remote: SshHost, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DeployFailed, match=r"on m1 .*File exists"):
        remote.put(tmp_path / "file", str(tmp_path / "file/below"))
