"""The demo's child processes: each a session of its own, each with a record on disk, so that nothing outlives the demo.

Whatever the demo starts carries the run's mark in its environment; what Airflow's tasks start for it (checks, units,
supervisor) runs from the demo's own folder. By these two a killed run is cleaned up by the next one, never by names.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from packer_lib.errors import Busy

MARK = "MLPACKER_DEMO_RUN"
RECORD = "run.json"
#: setproctitle, which Airflow uses, otherwise writes over the environment that the mark is read from.
KEEP_ENVIRONMENT = {"SPT_NOENV": "1"}


@dataclass(frozen=True, slots=True)
class Run:
    """One run: the mark of its processes, and the demo itself by pid and start time (a pid alone may be reused)."""

    mark: str
    pid: int
    started: float

    def alive(self) -> bool:
        """Whether the demo of this run is still there."""
        with suppress(psutil.Error):
            return bool(psutil.Process(self.pid).create_time() == self.started)
        return False


def killed(state: Path) -> Run | None:
    """The last demo of `state`, if it did not get to its end. `Busy` when it is still running."""
    former = _read(state / RECORD)
    if former is not None and former.alive() and former.pid != os.getpid():
        raise Busy(f"a demo is already running here (process {former.pid})", "stop it with Ctrl-C in its terminal")
    return former


def claim(state: Path) -> Run:
    """This process as the one demo of `state`, until `leave`."""
    run = Run(uuid.uuid4().hex, os.getpid(), psutil.Process().create_time())
    state.mkdir(parents=True, exist_ok=True)
    (state / RECORD).write_text(json.dumps(asdict(run)), encoding="utf-8")
    return run


def leave(state: Path) -> None:
    """This demo has left nothing behind."""
    (state / RECORD).unlink(missing_ok=True)


def _read(file: Path) -> Run | None:
    try:
        return Run(**json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def belonging(mark: str, state: Path) -> list[psutil.Process]:
    """Every process with this mark in its environment, or whose program or supervisor's settings lie in `state`."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and (process.environ().get(MARK) == mark or _runs_from(process, state)):
                found.append(process)
    return found


def _runs_from(process: psutil.Process, state: Path) -> bool:
    argv = process.cmdline()
    return argv[:1] != [] and (Path(argv[0]).is_relative_to(state) or argv[1:] == _supervisor(state))


def _supervisor(state: Path) -> list[str]:
    return ["-m", "supervisor.supervisord", "-c", str(state / "mlpacker" / "supervisord.conf")]


def stop_all(mark: str, state: Path) -> None:
    """Stops all of them, politely first. What is born meanwhile is met in the next round."""
    for _ in range(5):
        if not (processes := belonging(mark, state)):
            return
        stop_processes(processes)


def stop_processes(processes: Sequence[psutil.Process], grace: float = 15.0) -> None:
    """Ends these, politely first."""
    for process in processes:
        with suppress(psutil.Error):
            process.terminate()
    _, left = psutil.wait_procs(processes, timeout=grace)
    for process in left:
        with suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(left, timeout=5)


def start(argv: Sequence[str], env: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
    """`argv` in a session of its own, so that Ctrl-C in the terminal reaches the demo only; output goes to `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        return subprocess.Popen(
            list(argv), env=dict(env), stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )


def stop(process: subprocess.Popen[bytes], grace: float = 10.0) -> None:
    """Ends the process and its group, politely first."""
    for number, seconds in ((signal.SIGTERM, grace), (signal.SIGKILL, 5.0)):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
            return


def wait_until(ready: Callable[[], bool], seconds: float, pause: float = 0.1) -> bool:
    """Asks until it is so, or `seconds` are over."""
    end = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > end:
            return False
        time.sleep(pause)
    return True
