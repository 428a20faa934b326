"""A bundle's own environment on a machine, and the check that the bundle loads there, before anything is switched."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event, Thread

from packer_lib import commands
from packer_lib.bundle import Bundle
from packer_lib.errors import BuildFailed
from packer_lib.hosts import Host, Result, environments
from packer_lib.hosts.equip import equip, uv_environment
from packer_lib.hosts.home import clean_environment, must, prepare
from packer_lib.hosts.layout import Layout
from packer_lib.hosts.lock import hold
from packer_lib.settings import Settings

CHECK_WITHIN = 300.0
WAIT_FOR_OTHER = 1800.0
TELL_EVERY = 15.0

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Environment:
    """`python` has all that the bundle needs; `folder` is the bundle on that machine. Both are paths there."""

    python: str
    folder: str


def quiet(line: str) -> None:
    """For callers who want no progress lines."""


def environment(host: Host, bundle: Bundle, settings: Settings, progress: Progress = quiet) -> Environment:
    """The bundle on the machine and an environment with exactly its lock, made when there is none yet.

    Environments are named by their lock: pipelines with the same needs share one, and it goes with the last of them.
    `BuildFailed` has uv's last lines.
    """
    layout = Layout(host.home)
    prepare(host, layout)
    equip(host, settings, progress)
    folder, place = layout.bundle(bundle.digest), layout.environment(bundle.lock_digest)
    host.put(bundle.path, folder)
    python = f"{place}/bin/python"
    must(host, commands.make_folders(f"{layout.claims(bundle.lock_digest)}/{bundle.digest}"))  # before it is looked for
    if not host.run(commands.runnable(python)).ok:
        with hold(
            host,
            layout,
            f"ENV-{bundle.lock_digest[:16]}",
            "building an environment",
            wait=WAIT_FOR_OTHER,
            progress=progress,
        ):
            if not host.run(commands.runnable(python)).ok:
                _install(host, f"{folder}/requirements.lock", place, uv_environment(host, settings), progress)
    return Environment(python, folder)


def _install(host: Host, lock: str, place: str, env: Mapping[str, str], progress: Progress) -> None:
    with telling(progress, "installing what the unit needs (once for these requirements)"):
        failed, result = environments.make(host, place, host.python, lock, env)
    if failed:
        raise BuildFailed(f"{failed}: {result.tail(8)}", _hint(result.tail(20)))


def _hint(said: str) -> str:
    """What to do about the failures that people meet."""
    known = {
        "hash": "the index offers other files than the lock names: resolve again (remove the bundle, then deploy)",
        "No space left": "free some disk below MLPACKER__PATHS__HOME, or move it to a larger one",
        "dns error": "no connection to the package index: look at the network and proxy of this machine",
        "Failed to fetch": "no connection to the package index: look at the network and proxy of this machine",
        "no wheels": "there is no wheel of it for this Python and machine; choose a version that has one",
    }
    return next(
        (hint for text, hint in known.items() if text in said),
        "the lines above are uv's; `mlpacker doctor` checks the rest",
    )


@contextmanager
def telling(progress: Progress, what: str) -> Iterator[None]:
    """A line at the start, every 15 s, and at the end."""
    begun, done = time.monotonic(), Event()

    def tell() -> None:
        while not done.wait(TELL_EVERY):
            progress(f"  still at it after {time.monotonic() - begun:.0f} s")

    progress(what)
    thread = Thread(target=tell, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
    progress(f"  done in {time.monotonic() - begun:.1f} s")


def entry(mode: str) -> str:
    """The file that starts a unit of that package mode."""
    return "service.py" if mode == "api" else "main.py"


def check(host: Host, bundle: Bundle, environment: Environment, variables: Mapping[str, str] | None = None) -> None:
    """Loads every model and handler of the bundle there and runs its golden requests; `BuildFailed` with what was said.

    Runs without the deployer's environment and without any secret. `variables` are the plan's own. A bundle that has
    passed is not checked again: its name is its content.
    """
    passed = f"{environment.folder}.checked"
    if host.run(commands.exists(passed)).ok:
        return
    start = entry("api" if (bundle.path / entry("api")).exists() else "stream")
    argv = commands.check_bundle(environment.python, environment.folder, start)
    result = host.run(argv, env={**clean_environment(host), **(variables or {})}, timeout=CHECK_WITHIN)
    if not result.ok:
        raise BuildFailed(
            f"the unit does not start: {_finding(result)}", "nothing was switched; mend it and deploy again"
        )
    host.run(commands.make_file(passed))


def _finding(result: Result) -> str:
    """What the check found; when it did not get as far as saying that, the last lines."""
    _, found, said = result.out.partition("check failed: ")
    return said.strip() if found else result.tail(12)
