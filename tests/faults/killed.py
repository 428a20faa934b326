"""`mlpacker`, killed with SIGKILL at one of the calls it makes of a machine.

    python -m tests.faults.killed NUMBER before|during|after LOG WORD…

Every step of a release is a call of a machine: a command, a stream, a file; between two of them nothing of it is
outside this process. NUMBER counts them from 1; 0 kills never. LOG gets a line for every call.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from packer_lib.hosts.local import LocalHost
from packer_lib.hosts.ssh import SshHost

DURING = 0.03  # seconds after a call has begun


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Calls:
    """Counts calls, writes them down, and dies at one."""

    def __init__(self, number: int, when: str, log: Path) -> None:
        self.number, self.when, self.log = number, when, log
        self.count = itertools.count(1)
        self.writing = threading.Lock()
        self.depth = threading.local()

    def wrap(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(host: Any, what: Any, *rest: Any, **named: Any) -> Any:
            if getattr(self.depth, "inside", False):
                return method(host, what, *rest, **named)
            self.depth.inside = True
            try:
                return self.counted(method, host, what, *rest, **named)
            finally:
                self.depth.inside = False

        return call

    def counted(self, method: Callable[..., Any], host: Any, what: Any, *rest: Any, **named: Any) -> Any:
        with self.writing:
            mine = next(self.count) == self.number
            words = " ".join(map(str, what)) if isinstance(what, tuple | list) else str(rest[0] if rest else what)
            with self.log.open("a") as file:
                file.write(f"{method.__name__} {host.machine or 'here'}: {words!r}\n")
        if mine and self.when == "before":
            die()
        if mine and self.when == "during":
            threading.Timer(DURING, die).start()
        answer = method(host, what, *rest, **named)
        if mine:
            die()
        return answer


def main(number: str, when: str, log: str, *words: str) -> None:
    calls = Calls(int(number), when, Path(log))
    for kind in (LocalHost, SshHost):
        for name in ("run", "pour", "put"):
            setattr(kind, name, calls.wrap(getattr(kind, name)))
    sys.argv = ["mlpacker", *words]
    from packer_lib.cli import main as command

    command()


if __name__ == "__main__":
    main(*sys.argv[1:])
