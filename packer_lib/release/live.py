"""Going live: switch every unit, then see it answer. One go for a deploy (`go_live`), two tasks for Airflow.

If either fails or is interrupted, every unit is as it was.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from packer_lib.errors import DeployFailed, MLPackerError, RollbackFailed
from packer_lib.hosts import Host
from packer_lib.hosts.home import prepare
from packer_lib.hosts.layout import Layout, program
from packer_lib.hosts.lock import hold
from packer_lib.plan import Plan
from packer_lib.release import switch
from packer_lib.release.model import Release
from packer_lib.release.restore import restore
from packer_lib.release.verify import verify
from packer_lib.settings import Settings

Progress = Callable[[str], None]


@contextmanager
def locked(host: Host, plan: Plan, settings: Settings, run: str, progress: Progress) -> Iterator[None]:
    """Nobody else changes the pipeline on this machine meanwhile; `Busy` when somebody is at it."""
    layout = Layout(str(settings.home))
    prepare(host, layout)
    with hold(host, layout, plan.pipeline, f"deploy {run}".strip(), progress=progress):
        yield


def go_live(host: Host, plan: Plan, releases: Sequence[Release], settings: Settings, progress: Progress) -> None:
    """`switch_all` and `verify_all` with no moment between them at which an interruption would leave them switched."""
    with _or_all_back(host, plan, settings, progress):
        _switch(host, plan, releases, settings, progress)
        _verify(host, plan, releases, settings, progress)


def switch_all(host: Host, plan: Plan, releases: Sequence[Release], settings: Settings, progress: Progress) -> None:
    """Stops the units that the plan no longer has, then puts every release in its unit's place, in the order given."""
    with _or_all_back(host, plan, settings, progress):
        _switch(host, plan, releases, settings, progress)


def verify_all(
    host: Host, plan: Plan, releases: Sequence[Release], settings: Settings, progress: Progress
) -> tuple[Release, ...]:
    """The releases once each has answered; from then on they are what a failed deploy comes back to."""
    for release in releases:
        _require_switched(host, release, settings)
    with _or_all_back(host, plan, settings, progress):
        return _verify(host, plan, releases, settings, progress)


def _switch(host: Host, plan: Plan, releases: Sequence[Release], settings: Settings, progress: Progress) -> None:
    for unit in switch.retire(host, plan, settings):
        progress(f"{unit}: stopped, it is no longer in the plan")
    for release in releases:
        if switch.switch(host, release, settings):
            progress(f"{release.unit}: switched to {release.id}")


def _verify(
    host: Host, plan: Plan, releases: Sequence[Release], settings: Settings, progress: Progress
) -> tuple[Release, ...]:
    progress("waiting for every unit to answer")
    return verify(host, plan, releases, settings)


def _require_switched(host: Host, release: Release, settings: Settings) -> None:
    """Between the stages of a failed run that somebody continues, another release may have come back."""
    if not switch.is_installed(host, Layout(str(settings.home)), release):
        name = program(release.pipeline, release.unit)
        raise DeployFailed(f"{name}: {release.id} is not what runs (any more)", "deploy again from the start")


@contextmanager
def _or_all_back(host: Host, plan: Plan, settings: Settings, progress: Progress) -> Iterator[None]:
    """An error of ours leaves here as `DeployFailed` or `RollbackFailed` that says how the units are now."""
    try:
        yield
    except BaseException as error:
        why = error.message if isinstance(error, MLPackerError) else f"{type(error).__name__}: {error}"
        try:
            with _undisturbed():
                what = "it failed" if isinstance(error, Exception) else "interrupted"
                progress(f"{what}; putting every unit back, which is not interrupted")
                done = restore(host, plan, settings)
        except MLPackerError as second:
            raise RollbackFailed(f"{why}\nand the way back failed: {second.message}", second.hint) from error
        if isinstance(error, MLPackerError):
            raise DeployFailed(f"{why}\nrolled back: {'; '.join(done)}", error.hint) from None
        progress(f"rolled back: {'; '.join(done)}")
        raise


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Ctrl-C and TERM do not end the block: a way back that stops half-way is worse than one that takes its time.

    Ignored, not handled: a process that is just being started would die of a signal that we handle. The only one that
    stays, supervisord, sets handlers of its own, and so hands no ignored signal on to the units.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler or signal.SIG_DFL)
