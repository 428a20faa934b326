"""What several tests share: prerequisites that are named when they are missing, readiness polling, free ports."""

from __future__ import annotations

import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import TypeVar

import pytest

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"
T = TypeVar("T")


def require(program: str, remedy: str) -> str:
    """The path of `program`. Without it the test is skipped with the remedy; in CI it fails, for there it must be."""
    found = shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")
    return found or missing(program, remedy)


def missing(what: str, remedy: str) -> str:
    """Skips the test with the remedy; in CI, where everything is meant to be there, fails it."""
    text = f"{what} is not on this machine: {remedy}"
    if os.environ.get("CI"):
        pytest.fail(text)
    pytest.skip(text)


def wait_for(condition: Callable[[], T], seconds: float = 30.0, what: str = "", every: float = 0.05) -> T:
    """The first true value of `condition`, asked `every` so many seconds; fails with `what` and the last value after
    `seconds`. Asking may cost what is waited for: containers, a web server."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            pytest.fail(f"not within {seconds} s: {what or condition!r} (last: {value!r})")
        time.sleep(every)


@contextmanager
def beside(work: Callable[[Event], None]) -> Iterator[None]:
    """`work` runs in a thread of its own while the block does, and ends when the event is set."""
    stop = Event()
    thread = Thread(target=work, args=(stop,), name=work.__name__, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def free_port() -> int:
    """A TCP port on 127.0.0.1 that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
