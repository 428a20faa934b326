"""The stream engine: consume what is waiting, run the chain on all of it, deliver, and only then acknowledge.

One thread moves the data, others answer the probes. A broker that goes away is met by closing everything and connecting
again, so that what was not acknowledged comes again: at-least-once, by one path. Imports the runtime only.
"""

from __future__ import annotations

import gc
import logging
import signal
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from . import chain, logs, metrics
from . import manifest as manifests
from .batch import Batches, Result
from .catalogue import CONNECTORS, find
from .contract import (
    ConnectionFailed,
    DeliveryFailed,
    HandlerUnusable,
    Message,
    MessageRefused,
    ModelUnusable,
    Sink,
    Source,
)
from .manifest import Manifest, QueueSpec, Settings
from .probes import PortTaken, Probes, State

log = logging.getLogger("mlpacker.engine")

FLUSH_SECONDS = 30.0
IDLE_SECONDS = 0.5
BACKOFF = (0.5, 1.0, 2.0, 4.0, 8.0, 10.0)
SAY_EVERY = 10.0


class Stopped(Exception):
    """A message failed in a step whose `on_error` is `fail`; the text has the place, step, stage and reason."""


class ToldWhileLoading(BaseException):
    """Nothing was consumed yet, so that there is nothing to finish; loading itself can take a minute."""


def run(folder: Path, argv: Sequence[str]) -> int:
    """The entry point of a stream bundle in `folder`; returns the exit code: 0 after SIGTERM or SIGINT, else 1.

    `--check` loads everything, answers the golden requests and connects nowhere.
    """
    manifest = manifests.load(folder)
    settings = manifests.settings()
    logs.to_stderr(settings.log_level, f"{manifest.pipeline}/{manifest.unit}")
    if "--check" in argv:
        return chain.check_command(folder, manifest)
    state = State(info=manifests.describe(manifest, settings, datetime.now(UTC)))
    for number in (signal.SIGTERM, signal.SIGINT):
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
    log.info("stopped in order")
    return 0


def _asked_to_stop(signum: int, state: State) -> None:
    log.info("%s: finishing the batch in hand", signal.Signals(signum).name)
    state.reason = "stopping"
    state.stop.set()
    if state.loading:
        raise ToldWhileLoading


def _serve(folder: Path, manifest: Manifest, settings: Settings, state: State) -> None:
    probes = Probes(settings.host, settings.port, state)
    log.info("probes on http://%s:%d/readyz", settings.host, probes.port)
    steps = chain.Chain(manifest, folder, _observe)
    try:
        state.loading = True
        steps.load()
        state.loading = False
        _collect_less()
        Engine(manifest, Batches(manifest, steps, settings.max_body_mib << 20), state).run()
    finally:
        steps.close()
        probes.close()


def _collect_less() -> None:
    """A batch is tens of thousands of objects, none of them garbage; looking through them for cycles after every 700,
    as Python does, took half of the engine's time. What was loaded is never looked through again."""
    gc.freeze()
    gc.set_threshold(50_000, 10, 10)


def _observe(step: str, _size: int, seconds: float) -> None:
    metrics.PREDICT_SECONDS.labels(step).observe(seconds)


def plug(queue: QueueSpec) -> Any:
    """The connector class of the catalogue for `queue`."""
    return find("connector", queue.connector, CONNECTORS).load()


class Engine:
    """Moves messages until `state.stop` is set or one fails for good (`Stopped`). `state` is what the probes show,
    `plug` finds a queue's connector class."""

    def __init__(
        self, manifest: Manifest, batches: Batches, state: State, plug: Callable[[QueueSpec], Any] = plug
    ) -> None:
        self._manifest, self._batches, self._state = manifest, batches, state
        name = f"mlpacker.{manifest.pipeline}.{manifest.unit}"
        self._sources: dict[str, Source] = {queue.id: plug(queue).source(queue, name) for queue in inputs(manifest)}
        self._sinks: dict[str, Sink] = {queue.id: plug(queue).sink(queue, name) for queue in outputs(manifest)}
        self._max_batch = min(step.max_batch for step in manifest.steps)
        self._max_wait = max(step.max_wait_ms for step in manifest.steps) / 1000
        self._failures = Rarely(SAY_EVERY, time.monotonic)
        self._attempts = 0

    def run(self) -> None:
        """Connects, pumps and connects again, at growing intervals, until stopped."""
        try:
            while not self._state.stop.is_set():
                try:
                    self._connect()
                    self._pump()
                except (ConnectionFailed, DeliveryFailed) as error:
                    self._close()
                    self._wait_after(error)
        finally:
            self._state.reason = "stopping"
            self._close()

    def _wait_after(self, error: Exception) -> None:
        delay = BACKOFF[min(self._attempts, len(BACKOFF)) - 1]
        self._state.reason = str(error)
        log.warning("%s; next attempt in %g s", error, delay)
        self._state.stop.wait(delay)

    def _connect(self) -> None:
        """Sinks before sources: nothing is taken that cannot be passed on."""
        self._attempts += 1
        ends: list[tuple[str, Source | Sink]] = [*self._sinks.items(), *self._sources.items()]
        for queue, end in ends:
            if self._attempts > 1:
                metrics.RECONNECTS.labels(queue).inc()
            end.connect()
        if not self._state.stop.is_set():
            self._state.reason = ""
        log.info("ready: %s → %s", self._places(self._sources), self._places(self._sinks))

    def _pump(self) -> None:
        idle = False
        while not self._state.stop.is_set():
            wait = IDLE_SECONDS / len(self._sources) if idle else 0.0
            moved = [self._batch(queue, source, wait) for queue, source in self._sources.items()]
            idle = not any(moved)
            self._attempts = 1
            if idle:
                self._heed_sinks()

    def _heed_sinks(self) -> None:
        """Clients that are never called never notice that their peer has gone, and some pile up their own events."""
        for sink in self._sinks.values():
            sink.flush(FLUSH_SECONDS)

    def _batch(self, queue: str, source: Source, wait: float) -> bool:
        """One batch of one queue from arrival to acknowledgement; False when nothing was waiting."""
        messages = self._take(source, wait)
        if not messages:
            return False
        arrived = time.monotonic()
        metrics.MESSAGES_IN.labels(queue).inc(len(messages))
        metrics.BATCH_SIZE.observe(len(messages))
        metrics.IN_FLIGHT.inc(len(messages))
        try:
            result = self._batches.run(queue, messages)
            self._deliver(queue, messages, result)
            source.ack(messages[: result.done])
        finally:
            metrics.IN_FLIGHT.dec(len(messages))
        metrics.END_TO_END_SECONDS.observe(time.monotonic() - arrived)
        self._tell(result)
        if result.fatal is not None:
            raise Stopped(f"{queue} {messages[result.done].position}: {result.fatal}; the message is not acknowledged")
        return True

    def _take(self, source: Source, wait: float) -> list[Message]:
        """What is waiting, and where a step asks for it (`max_wait_ms`) what comes shortly after."""
        messages = source.consume(self._max_batch, wait)
        deadline = time.monotonic() + self._max_wait
        while messages and len(messages) < self._max_batch and not self._state.stop.is_set():
            left = deadline - time.monotonic()
            if left <= 0:
                break
            messages += source.consume(self._max_batch - len(messages), min(left, IDLE_SECONDS))
        return messages

    def _deliver(self, queue: str, messages: Sequence[Message], result: Result) -> None:
        """Dead letters last, for a sink may still refuse an answer and make its message one."""
        for sink in self._sinks:
            if sink in result.out:
                self._produce(queue, messages, sink, result)
        for sink in result.out:
            self._sinks[sink].flush(FLUSH_SECONDS)
        for sink, delivered in result.out.items():
            metrics.MESSAGES_OUT.labels(sink).inc(len(delivered))

    def _produce(self, queue: str, messages: Sequence[Message], sink: str, result: Result) -> None:
        out, taken = result.out[sink], 0
        while taken < len(out):
            try:
                self._sinks[sink].produce(out[taken:])
                return
            except MessageRefused as refused:
                taken = next(place for place, item in enumerate(out) if item is refused.message)
                del out[taken]
                self._batches.refuse(queue, messages, sink, refused, result)

    def _tell(self, result: Result) -> None:
        """Counts every failure; says so at most every ten seconds."""
        failed = [*result.skipped, *result.dead, *([result.fatal] if result.fatal else [])]
        for error in failed:
            metrics.MESSAGES_FAILED.labels(error.step, error.stage).inc()
        metrics.MESSAGES_SKIPPED.inc(len(result.skipped))
        metrics.DEAD_LETTERS.inc(len(result.dead))
        if (result.skipped or result.dead) and (count := self._failures.add(len(result.skipped) + len(result.dead))):
            log.warning(
                "%d messages failed and were skipped or put on a dead-letter queue; last: %s", count, failed[-1]
            )

    def _close(self) -> None:
        ends: list[Source | Sink] = [*self._sources.values(), *self._sinks.values()]
        for end in ends:
            end.close()

    def _places(self, queues: Mapping[str, object]) -> str:
        specs = [self._manifest.queues[queue] for queue in queues]
        return (
            ", ".join(f"{spec.id} ({spec.connector} {spec.server}:{spec.port} {spec.topic})" for spec in specs)
            or "nothing"
        )


def inputs(manifest: Manifest) -> list[QueueSpec]:
    """The queues that the unit reads, in the order of its steps."""
    return _queues(manifest, (queue for step in manifest.steps for queue in step.inputs))


def outputs(manifest: Manifest) -> list[QueueSpec]:
    """The queues that the unit writes: its outputs, then its dead-letter queues."""
    plain = [queue for step in manifest.steps for queue in step.outputs]
    return _queues(manifest, [*plain, *(step.dead_letter for step in manifest.steps if step.on_error == "dead_letter")])


def _queues(manifest: Manifest, names: Iterable[str]) -> list[QueueSpec]:
    return [manifest.queues[name] for name in dict.fromkeys(names) if name in manifest.queues]


class Rarely:
    """Counts, and gives the count away at most once in `seconds` of `clock`; 0 in between."""

    def __init__(self, seconds: float, clock: Callable[[], float]) -> None:
        self._seconds, self._clock = seconds, clock
        self._count, self._next = 0, 0.0

    def add(self, number: int) -> int:
        self._count += number
        if self._clock() < self._next:
            return 0
        count, self._count, self._next = self._count, 0, self._clock() + self._seconds
        return count
