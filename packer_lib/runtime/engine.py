"""The stream engine: consume what is waiting, run the chain on all of it, deliver, and only then acknowledge.

One thread moves the data, others answer the probes. A broker that goes away is met by closing everything and connecting
again, so that what was not acknowledged comes again: at-least-once, by one path. Imports the runtime only.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from . import metrics
from .batch import Batches, Result
from .contract import (
    ALONE,
    ConnectionFailed,
    DeliveryFailed,
    Message,
    MessageRefused,
    Replica,
    Sink,
    Source,
)
from .deliveries import DELIVERIES, Deliveries
from .ends import connectors, plug
from .manifest import Manifest, QueueSpec
from .probes import State
from .watchdog import Watchdog

log = logging.getLogger("mlpacker.engine")

FLUSH_SECONDS = 20.0  # with what closing takes less than the 30 that supervisor and docker give a unit to end
IDLE_SECONDS = 0.5
DRAIN_SECONDS = 1.0
BACKOFF = (0.5, 1.0, 2.0, 4.0, 8.0, 10.0)
SAY_EVERY = 10.0


class Stopped(Exception):
    """A message failed in a step whose `on_error` is `fail`; the text has the place, step, stage and reason."""


class Engine:
    """Moves messages until `state.stop` is set or one fails for good (`Stopped`). `state` is what the probes show,
    `plug` finds a queue's connector class, `deliveries` knows what the process before this one died of. `between` is
    called when no message is in hand."""

    between: Callable[[], None] = staticmethod(lambda: None)

    def __init__(
        self,
        manifest: Manifest,
        batches: Batches,
        state: State,
        plug: Callable[[QueueSpec], Any] = plug,
        *,
        deliveries: Deliveries | None = None,
        replica: Replica = ALONE,
    ) -> None:
        self._manifest, self._batches, self._state = manifest, batches, state
        self._deliveries = deliveries or Deliveries(None)
        self._sources: dict[str, Source]
        self._sinks: dict[str, Sink]
        self._sources, self._sinks = connectors(manifest, plug, replica)
        self._max_batch = min(step.max_batch for step in manifest.steps)
        self._max_wait = max(step.max_wait_ms for step in manifest.steps) / 1000
        self._failures = Rarely(SAY_EVERY, time.monotonic)
        self._attempts = 0
        self._in_hand = ""
        self._watchdog: Watchdog | None = None
        for queue, source in self._sources.items():
            metrics.LAG.labels(queue).set_function(source.lag)

    def watch(self, seconds: float) -> None:
        """From now on this thread, which is to call `run`, is watched for standing still that long; 0: not at all."""
        self._watchdog = Watchdog(self._state, self._waiting, seconds)
        self._watchdog.start()

    def _waiting(self) -> str:
        """What waits to be moved, or ""; asked by the watchdog."""
        if self._in_hand:
            return self._in_hand
        lags = {queue: lag for queue, source in self._sources.items() if (lag := source.lag())}
        return ", ".join(f"{lag} messages wait in {queue}" for queue, lag in lags.items())

    def run(self) -> None:
        """Connects, pumps and connects again, at growing intervals, until stopped."""
        try:
            while not self._state.stop.is_set():
                try:
                    self.between()
                    self._connect()
                    self._pump()
                    if self._state.leaving:
                        self._drain()
                except (ConnectionFailed, DeliveryFailed) as error:
                    self._close()
                    self._wait_after(error)
        finally:
            self._state.reason = "stopping"
            self._close()
            if self._watchdog:
                self._watchdog.close()

    def _drain(self) -> None:
        """What a broker has given to this replica is nobody else's to do."""
        for queue, source in self._sources.items():
            if source.retire():
                while self._batch(queue, source, DRAIN_SECONDS):
                    pass

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
            self.between()
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
        metrics.IN_FLIGHT.inc(len(messages))
        self._in_hand = f"{len(messages)} messages of {queue} are in hand"
        try:
            for part in self._deliveries.parts(queue, messages):
                self._move(queue, source, part)
        finally:
            metrics.IN_FLIGHT.dec(len(messages))
            self._in_hand = ""
        self._state.moved = time.monotonic()
        metrics.END_TO_END_SECONDS.observe(self._state.moved - arrived)
        return True

    def _move(self, queue: str, source: Source, messages: Sequence[Message]) -> None:
        metrics.BATCH_SIZE.observe(len(messages))
        result = self._handle(queue, messages)
        self._deliver(queue, messages, result)
        done = messages[: result.done]
        source.ack(done)
        self._deliveries.done(queue, done)
        self._state.moved = time.monotonic()
        self._tell(result)
        if result.fatal is not None:
            raise Stopped(f"{queue} {messages[result.done].position}: {result.fatal}; the message is not acknowledged")

    def _handle(self, queue: str, messages: Sequence[Message]) -> Result:
        if self._deliveries.deadly(queue, messages):
            reason = f"the process died each of the {DELIVERIES} times that it was handled"
            return self._batches.give_up(queue, messages[0], reason)
        self._deliveries.begin(queue, messages)
        try:
            return self._batches.run(queue, messages)
        finally:
            self._deliveries.end()

    def _take(self, source: Source, wait: float) -> list[Message]:
        """What is waiting, and where a step asks for it (`max_wait_ms`) what comes shortly after."""
        messages = source.consume(self._max_batch, wait)
        deadline = time.monotonic() + self._max_wait
        while messages and len(messages) < self._max_batch and not self._state.stop.is_set():
            left = deadline - time.monotonic()
            if left <= 0:
                break
            messages += source.consume(self._max_batch - len(messages), min(left, IDLE_SECONDS))
        return source.kept(messages) if self._max_wait else messages

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
