"""A streaming unit as a process: from its start by `main.py` to the exit code."""

from __future__ import annotations

import logging
import signal
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from . import chain, logs, memory, metrics
from . import manifest as manifests
from .batch import Batches
from .contract import HandlerUnusable, ModelUnusable, Replica
from .deliveries import Deliveries
from .engine import Engine, Stopped
from .manifest import LEFT, Manifest, Settings
from .probes import PortTaken, Probes, State
from .swap import Swaps

log = logging.getLogger("mlpacker.stream")


class ToldWhileLoading(BaseException):
    """Nothing was consumed yet, so that there is nothing to finish; loading itself can take a minute."""


def run(folder: Path, argv: Sequence[str]) -> int:
    """The entry point of a stream bundle in `folder`; returns the exit code: 0 after a signal to stop, else 1.

    SIGTERM and SIGINT: it finishes the batch in hand, and the broker keeps its place. SIGUSR1: it leaves for good, as a
    replica that is one too many, and hands back its place when all that the broker gave it is done; the code is `LEFT`
    then, so that nobody starts it again. One that stands still is ended with `STALLED`, see watchdog.py.
    `--check` loads everything, answers the golden requests and connects nowhere.
    """
    manifest = manifests.load(folder)
    settings = manifests.settings()
    logs.to_stderr(settings.log_level, f"{manifest.pipeline}/{manifest.unit}")
    if "--check" in argv:
        return chain.check_command(folder, manifest)
    state = State(info=manifests.describe(manifest, settings, datetime.now(UTC)))
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, lambda signum, _frame: _asked_to_stop(signum, state))
    try:
        _serve(folder, manifest, settings, state)
    except ToldWhileLoading:
        pass
    except (Stopped, PortTaken, ModelUnusable, HandlerUnusable, ValueError) as error:
        log.error("stopped: %s", error)
        return 1
    except Exception:
        log.exception("stopped by what should not have happened")
        return 1
    log.info("stopped in order%s", ", for good" if state.leaving else "")
    return LEFT if state.leaving else 0


def _asked_to_stop(signum: int, state: State) -> None:
    log.info("%s: finishing the batch in hand", signal.Signals(signum).name)
    state.leaving = state.leaving or signum == signal.SIGUSR1
    state.reason = "stopping"
    state.stop.set()
    if state.loading:
        raise ToldWhileLoading


def _serve(folder: Path, manifest: Manifest, settings: Settings, state: State) -> None:
    memory.keep_freed()
    probes = Probes(settings.host, settings.port, state)
    log.info("probes on http://%s:%d/readyz", settings.host, probes.port)
    kept = manifests.state_folder(settings, folder)
    deliveries = Deliveries(kept, settings.replica)
    if not settings.port:
        _tell_port(kept / f"probes-{settings.replica}", probes.port)
    steps = chain.Chain(manifest, folder, _observe)
    swaps = Swaps(steps, kept, settings.replica, lambda: state.show(swaps.described()))
    try:
        state.loading = True
        steps.prepare()
        memory.collect_less()
        swaps.load()
        state.loading = False
        state.show(swaps.described())
        replica = Replica(settings.replica, settings.replicas)
        engine = Engine(
            manifest,
            Batches(manifest, steps, settings.max_body_mib << 20),
            state,
            deliveries=deliveries,
            replica=replica,
        )
        engine.between = swaps.apply
        engine.watch(settings.stall_seconds)
        swaps.start()
        engine.run()
    finally:
        swaps.close()
        steps.close()
        deliveries.close()
        probes.close()


def _tell_port(file: Path, port: int) -> None:
    """For whoever deployed it, and cannot know which one was free."""
    try:
        new = file.with_suffix(".new")
        new.write_text(f"{port}\n", encoding="utf-8")
        new.replace(file)
    except OSError as error:
        log.warning("nobody can find its probes: %s", error)


def _observe(step: str, _size: int, seconds: float) -> None:
    metrics.PREDICT_SECONDS.labels(step).observe(seconds)
