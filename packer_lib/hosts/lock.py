"""One release at a time for a pipeline on a machine: a folder there that says who, since when and why.

A folder that holds a file cannot be renamed over (rename(2): ENOTEMPTY), so taking the lock and signing it is one step.
The holder touches it every few seconds; who finds it untouched for a minute, or its process gone, breaks it and
says so.
"""

from __future__ import annotations

import getpass
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from packer_lib import commands
from packer_lib.errors import Busy
from packer_lib.hosts import Host, Unreachable
from packer_lib.hosts.home import must, put_text
from packer_lib.hosts.layout import Layout

BEAT_EVERY = 10.0
DEAD_AFTER = 60.0
LOOK_EVERY = 0.5
HELD: set[tuple[str | None, str]] = set()  # by this process: one that it could not give back is not held any more

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Owner:
    """Who holds a lock. `started` tells a process from a later one of the same number (clock ticks since boot)."""

    who: str
    host: str
    pid: int
    started: str
    since: str
    why: str

    def __str__(self) -> str:
        return f"{self.who} on {self.host} (process {self.pid}) since {self.since}: {self.why}"


def myself(why: str) -> Owner:
    since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return Owner(getpass.getuser(), socket.gethostname(), os.getpid(), start_of(os.getpid()), since, why)


def start_of(pid: int) -> str:
    """Field 22 of /proc/<pid>/stat, see proc(5); empty when there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    return text.rpartition(")")[2].split()[19]


@contextmanager
def hold(
    host: Host, layout: Layout, name: str, why: str, *, wait: float = 0.0, progress: Progress = print
) -> Iterator[None]:
    """Holds the lock `name`; `Busy` with its owner when somebody else still does after `wait` seconds."""
    path, owner = layout.lock(name), myself(why)
    _take(host, path, owner, time.monotonic() + wait, progress)
    _sweep(host, path)
    done = threading.Event()
    beat = threading.Thread(target=_beat, args=(host, path, done), daemon=True)
    HELD.add((host.machine, path))
    beat.start()
    try:
        yield
    finally:
        done.set()
        beat.join()
        HELD.discard((host.machine, path))
        with suppress(Unreachable):  # then it is broken by whoever comes next
            host.run(commands.remove(path))


def _take(host: Host, path: str, owner: Owner, end: float, progress: Progress) -> None:
    told: set[str] = set()
    while not _try(host, path, owner):
        holder = _holder(host, path)
        gone = holder is not None and not _alive(host, path, holder)
        if not gone and time.monotonic() >= end:
            said = str(holder) if holder else "someone who is just leaving"
            raise Busy(f"{Path(path).name} is held by {said}", "wait for it to end, or stop it; then run this again")
        line = f"breaking the lock of {holder}: it is gone" if gone else f"waiting for {holder}"
        if line not in told:
            progress(line)
        told.add(line)
        if gone and holder:
            _break(host, path, holder)
        else:
            time.sleep(LOOK_EVERY)


def _try(host: Host, path: str, owner: Owner) -> bool:
    mine = f"{path}.{owner.host}~{owner.pid}~{owner.started}~{uuid.uuid4().hex}"
    must(host, commands.make_folders(mine))
    put_text(host, json.dumps(asdict(owner)), f"{mine}/details")
    if host.run(commands.rename(mine, path)).ok:
        return True
    host.run(commands.remove(mine))
    return False


def _sweep(host: Host, path: str) -> None:
    """What processes of this machine were about to sign when they were killed."""
    folder, _, name = path.rpartition("/")
    found = host.run(commands.names(folder)).out.splitlines()
    dead = [f"{folder}/{one}" for one in found if one.startswith(f"{name}.") and _is_dead(one[len(name) + 1 :])]
    if dead:
        host.run(commands.remove(*dead))


def _is_dead(attempt: str) -> bool:
    who, *process = attempt.split("~")
    return who == socket.gethostname() and len(process) == 3 and start_of(int(process[0])) != process[1]


def _holder(host: Host, path: str) -> Owner | None:
    result = host.run(commands.read(f"{path}/details"))
    return Owner(**json.loads(result.out)) if result.ok else None


def _alive(host: Host, path: str, owner: Owner) -> bool:
    if owner.host == socket.gethostname():
        forgotten = owner.pid == os.getpid() and (host.machine, path) not in HELD
        return start_of(owner.pid) == owner.started and not forgotten
    return _untouched(host, path) < DEAD_AFTER


def _break(host: Host, path: str, dead: Owner) -> None:
    """One at a time breaks a lock, and looks again first: it may be someone else's by now."""
    gate = f"{path}.breaking"
    if not host.run(commands.make_new_folder(gate)).ok:
        if _untouched(host, gate) > DEAD_AFTER:
            host.run(commands.remove_empty(gate))
        return
    try:
        if _holder(host, path) == dead:
            host.run(commands.remove(path))
    finally:
        host.run(commands.remove_empty(gate))


def _untouched(host: Host, path: str) -> float:
    """Seconds since `path` was touched, by that machine's clock; 0 when it is gone."""
    touched, now = host.run(commands.changed(path)).out, host.run(commands.now()).out
    return float(now) - float(touched) if touched else 0.0


def _beat(host: Host, path: str, done: threading.Event) -> None:
    while not done.wait(BEAT_EVERY):
        with suppress(Unreachable):
            host.run(commands.touch(path))
