"""This machine as a host."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from packer_lib.hosts.local import LocalHost
from packer_lib.settings import Settings

HERE = Settings(home=Path("/nowhere"))


def test_a_given_environment_is_the_whole_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "hunter2")
    said = LocalHost(HERE).run(("/usr/bin/env",), env={"A": "1\n2"}).out
    assert said == "A=1\n2\n"
    assert "hunter2" in LocalHost(HERE).run(("/usr/bin/env",)).out


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


def test_a_copy_that_fails_leaves_nothing(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "target"
    with pytest.raises(FileNotFoundError):
        LocalHost(HERE).put(tmp_path / "not-there", str(target))
    assert list(target.parent.iterdir()) == []


@pytest.mark.parametrize("argv", [("sleep", "600"), ("/nowhere/program",)])
def test_ctrl_c_while_a_process_is_being_started_leaves_none(
    monkeypatch: pytest.MonkeyPatch, argv: tuple[str, ...]
) -> None:
    begin, begun = subprocess.Popen, []

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        try:
            begun.append(begin(*args, **kwargs))
        finally:
            signal.raise_signal(signal.SIGINT)
        return begun[0]

    monkeypatch.setattr(subprocess, "Popen", interrupted)
    with pytest.raises(KeyboardInterrupt):
        LocalHost(HERE).run(argv)
    assert len(begun) == (argv[0] == "sleep")
    for process in begun:
        assert process.returncode == -signal.SIGKILL
        with pytest.raises(ProcessLookupError):
            os.kill(process.pid, 0)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
