"""What the demo starts ends with it, also when the demo itself was killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from packer_lib.demo import processes
from packer_lib.errors import Busy

# A demo that starts a child, which starts a grandchild in a session of its own, and is then killed.
KILLED = '''
import os, signal, subprocess, sys
from pathlib import Path
from packer_lib.demo import processes
state = Path(sys.argv[1])
run = processes.claim(state)
child = """import subprocess, sys, time
subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True)
time.sleep(600)"""
processes.start([sys.executable, "-c", child], {**os.environ, processes.MARK: run.mark}, state / "child.log")
assert processes.wait_until(lambda: len(processes.belonging(run.mark, state)) == 2, 30)
os.kill(os.getpid(), signal.SIGKILL)
'''


def test_what_a_killed_demo_left_is_stopped_by_the_next_one(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], timeout=60)
    mark = json.loads((tmp_path / "run.json").read_text())["mark"]
    assert len(processes.belonging(mark, tmp_path)) == 2
    former = processes.killed(tmp_path)
    assert former is not None
    processes.stop_all(former.mark, tmp_path)
    assert processes.belonging(mark, tmp_path) == []
    run = processes.claim(tmp_path)
    assert run.mark != mark
    assert run.pid == os.getpid()


def test_a_demo_that_ended_leaves_nothing_to_clear(tmp_path: Path) -> None:
    processes.claim(tmp_path)
    processes.leave(tmp_path)
    assert processes.killed(tmp_path) is None


def test_a_demo_that_is_still_running_is_left_alone(tmp_path: Path) -> None:
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        started = psutil.Process(other.pid).create_time()
        (tmp_path / "run.json").write_text(json.dumps({"mark": "x", "pid": other.pid, "started": started}))
        with pytest.raises(Busy, match=f"process {other.pid}"):
            processes.killed(tmp_path)
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_a_reused_pid_is_not_taken_for_the_former_demo(tmp_path: Path) -> None:
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        (tmp_path / "run.json").write_text(json.dumps({"mark": "x", "pid": other.pid, "started": 1.0}))
        former = processes.killed(tmp_path)
        assert former is not None
        assert not former.alive()
        processes.stop_all(former.mark, tmp_path)
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"mark": 1}'])
def test_a_damaged_record_does_not_stop_the_demo(tmp_path: Path, content: str) -> None:
    (tmp_path / "run.json").write_text(content)
    assert processes.killed(tmp_path) is None
    assert processes.claim(tmp_path).alive()


def test_a_process_that_ignores_the_polite_way_is_ended_all_the_same(tmp_path: Path) -> None:
    code = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
    )
    log = tmp_path / "deaf.log"
    process = processes.start([sys.executable, "-c", code], os.environ, log)
    assert processes.wait_until(lambda: "deaf" in log.read_text(), 30)
    processes.stop(process, grace=0.2)
    assert process.returncode == -9


def test_what_runs_from_the_demos_folder_belongs_to_it_without_a_mark(tmp_path: Path) -> None:
    program = tmp_path / "bin" / "python"
    program.parent.mkdir()
    program.symlink_to(sys.executable)
    inside = subprocess.Popen([str(program), "-c", "import time; time.sleep(600)"], env={})
    outside = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", str(tmp_path / "file")], env={})
    try:
        assert processes.wait_until(lambda: bool(processes.belonging("none", tmp_path)), 30)
        assert [process.pid for process in processes.belonging("none", tmp_path)] == [inside.pid]
        processes.stop_all("none", tmp_path)
        assert inside.poll() is not None
        assert outside.poll() is None
    finally:
        for process in (inside, outside):
            process.kill()
            process.wait()
