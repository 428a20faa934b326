"""One at a time: taken in one step, named, kept alive, broken when its owner is gone."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from threading import Barrier, Thread

import pytest

from packer_lib.errors import Busy
from packer_lib.hosts import lock
from packer_lib.hosts.layout import Layout
from packer_lib.hosts.local import LocalHost
from packer_lib.settings import Settings
from tests.support import wait_for

HERE = Settings(home=Path("/nowhere"))


def _layout(folder: Path) -> Layout:
    (folder / "locks").mkdir()
    return Layout(str(folder))


def test_a_lock_names_its_owner_and_is_gone_afterwards(tmp_path: Path) -> None:
    layout = _layout(tmp_path)
    with lock.hold(LocalHost(HERE), layout, "p", "deploy run-1"):
        with pytest.raises(Busy) as busy, lock.hold(LocalHost(HERE), layout, "p", "undeploy"):
            pass
        assert f"on {socket.gethostname()} (process {os.getpid()}) since 20" in busy.value.message
        assert busy.value.message.endswith(": deploy run-1")
        assert type(busy.value).exit_code == 75
    assert list((tmp_path / "locks").iterdir()) == []


def test_an_error_inside_frees_the_lock(tmp_path: Path) -> None:
    layout = _layout(tmp_path)
    with pytest.raises(KeyError), lock.hold(LocalHost(HERE), layout, "p", "deploy"):
        raise KeyError
    with lock.hold(LocalHost(HERE), layout, "p", "deploy"):
        pass


def test_what_a_dead_process_was_about_to_sign_goes_and_nobody_elses(tmp_path: Path) -> None:
    layout, here = _layout(tmp_path), socket.gethostname()
    dead, mine = f"p.{here}~999999999~1~ab", f"p.{here}~{os.getpid()}~{lock.start_of(os.getpid())}~ab"
    others = ("p.elsewhere~999999999~1~ab", f"p.q.{here}~999999999~1~ab", "p.breaking")
    for name in (dead, mine, *others):
        (tmp_path / "locks" / name).mkdir()
    with lock.hold(LocalHost(HERE), layout, "p", "deploy"):
        pass
    assert {path.name for path in (tmp_path / "locks").iterdir()} == {mine, *others}


def test_the_lock_of_a_dead_process_is_broken_and_that_is_said(tmp_path: Path) -> None:
    layout, said = _layout(tmp_path), []
    code = (
        "import sys, os\nfrom packer_lib.hosts.lock import hold\nfrom packer_lib.hosts.local import LocalHost\n"
        "from packer_lib.hosts.layout import Layout\nfrom packer_lib.settings import Settings\n"
        "from pathlib import Path\nhost = LocalHost(Settings(home=Path(sys.argv[1])))\n"
        "with hold(host, Layout(sys.argv[1]), 'p', 'deploy run-1'):\n    os.kill(os.getpid(), 9)\n"
    )
    assert subprocess.run((sys.executable, "-c", code, str(tmp_path)), timeout=60, check=False).returncode == -9
    assert (tmp_path / "locks/p/details").exists()
    with lock.hold(LocalHost(HERE), layout, "p", "deploy", progress=said.append):
        pass
    assert len(said) == 1
    assert said[0].startswith("breaking the lock of")
    assert list((tmp_path / "locks").iterdir()) == []


def test_a_process_of_the_same_number_is_not_the_owner(tmp_path: Path) -> None:
    layout, said = _layout(tmp_path), []
    _foreign(tmp_path, host=socket.gethostname(), pid=os.getpid(), started="1")
    with lock.hold(LocalHost(HERE), layout, "p", "deploy", progress=said.append):
        assert said


def test_a_lock_of_another_machine_lives_as_long_as_it_is_touched(tmp_path: Path) -> None:
    layout = _layout(tmp_path)
    details = _foreign(tmp_path, host="elsewhere", pid=1, started="1")
    with pytest.raises(Busy, match="someone on elsewhere"), lock.hold(LocalHost(HERE), layout, "p", "deploy"):
        pass
    os.utime(details.parent, (1, 1))
    with lock.hold(LocalHost(HERE), layout, "p", "deploy"):
        pass


def test_the_holder_touches_its_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "BEAT_EVERY", 0.05)
    layout = _layout(tmp_path)
    with lock.hold(LocalHost(HERE), layout, "p", "deploy"):
        os.utime(tmp_path / "locks/p", (1, 1))
        wait_for(lambda: (tmp_path / "locks/p").stat().st_mtime > 1, 10, "a heartbeat")


def test_who_waits_gets_the_lock_next(tmp_path: Path) -> None:
    layout, said = _layout(tmp_path), []

    def wait() -> None:
        with lock.hold(LocalHost(HERE), layout, "p", "second", wait=30, progress=said.append):
            said.append("in")

    with lock.hold(LocalHost(HERE), layout, "p", "first"):
        thread = Thread(target=wait)
        thread.start()
        wait_for(lambda: said, 10, "the waiting line")
        assert said[0].endswith(": first")
    thread.join()
    assert said[-1] == "in"


def test_of_many_at_once_one_holds_it_at_a_time(tmp_path: Path) -> None:
    layout, inside, most = _layout(tmp_path), [], []
    _foreign(tmp_path, host=socket.gethostname(), pid=1, started="not-its")
    start = Barrier(6)

    def work() -> None:
        start.wait()
        with lock.hold(LocalHost(HERE), layout, "p", "work", wait=60, progress=lambda line: None):
            inside.append(1)
            most.append(len(inside))
            inside.pop()

    threads = [Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 6
    assert list((tmp_path / "locks").iterdir()) == []


def _foreign(folder: Path, *, host: str, pid: int, started: str) -> Path:
    details = folder / "locks/p/details"
    details.parent.mkdir()
    owner = {"who": "someone", "host": host, "pid": pid, "started": started, "since": "today", "why": "deploy"}
    details.write_text(json.dumps(owner))
    return details
