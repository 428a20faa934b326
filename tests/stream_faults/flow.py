"""A unit in the middle of a stream: who writes, who reads, and the ledger of both."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from packer_lib.runtime.manifest import QueueSpec
from tests.contract.connectors import fresh
from tests.lab.brokers import Broker
from tests.runtime.handmade import code_step
from tests.runtime.workers import Worker, running, write_unit
from tests.stream_faults.ledger import Ledger, Verdict
from tests.stream_faults.outside import Feed, Text, feed, plain, reading, settle, topic
from tests.stream_faults.table import TABLE
from tests.support import wait_for

TELLS = "import faulthandler, signal\nfaulthandler.register(signal.SIGUSR2)\n"  # where it stands, into its log
SLOW = f"{TELLS}import time\ndef handler(value):\n    time.sleep(0.002)\n    return value\n"
PASS = f"{TELLS}def handler(value):\n    return value\n"
OUT = 'mlpacker_messages_out_total{queue="out"}'
IN = 'mlpacker_messages_in_total{queue="in"}'
UNWRITTEN_SECONDS = 3.0  # it confirms, and then writes all that it holds
QUIET_SECONDS = 1.5  # nothing comes any more
SESSION = {"config": {"session.timeout.ms": 3000, "heartbeat.interval.ms": 500}}  # of a member that was killed


def on(broker: Broker, name: str, partitions: int = 1) -> QueueSpec:
    """A queue of its own, whose topic is there."""
    mqtt = broker.name == "mosquitto"
    queue = QueueSpec(name, "mqtt" if mqtt else "kafka", broker.host, broker.port, fresh(), {} if mqtt else SESSION)
    return topic(queue, partitions)


def unit(folder: Path, source: QueueSpec, sink: QueueSpec, text: str = PASS, *more: QueueSpec, **props: object) -> Path:
    """A unit of one code step, in `folder`."""
    step = code_step(folder, "only", text, inputs=(source.id,), outputs=(sink.id,), **{"max_batch": 50, **props})
    return write_unit(folder, step, queues=(source, sink, *more), pipeline=fresh())


@dataclass
class Flow:
    """`worker` is the one that is to run now; `revive` starts it as supervisor would."""

    ends: str
    ledger: Ledger
    feed: Feed
    worker: Worker

    def kill(self) -> None:
        assert self.worker.process is not None
        assert self.worker.process.poll() is None, self.worker.log
        self.worker.signal(signal.SIGKILL)

    def revive(self) -> None:
        self.worker.start()

    def send(self, count: int) -> None:
        for _ in range(count):
            self.feed.send()

    def settled(self, seconds: float = 120) -> None:
        """All that was sent is confirmed."""
        settle(self.ledger, seconds)

    def finish(self, seconds: float = 120) -> Verdict:
        """All that was confirmed has come, or nothing more for so many seconds; the verdict, whatever it is."""
        self.settled(seconds)
        begun = time.monotonic()
        while self.ledger.missing() and time.monotonic() - max(begun, self.ledger.moved) < seconds:
            time.sleep(0.05)
        wait_for(lambda: time.monotonic() - self.ledger.moved > QUIET_SECONDS, 60, "it is quiet")
        return self.ledger.verdict()

    def conclude(self, fault: str, outcome: str, seconds: float = 60, kills: Collection[float] = ()) -> Verdict:
        """As `finish`, written down; nothing is lost, nothing is strange, and no key is out of order.

        `kills` are the moments at which a mosquitto was killed: what it has confirmed just before, it may not have
        written yet, and who sent it was told that it is safe (docs/guarantees.md).
        """
        verdict = self.finish(seconds)
        unwritten = set(self.ledger.missing()) & set(self.ledger.sent_before(kills, UNWRITTEN_SECONDS))
        note = f"; {len(unwritten)} confirmed by mosquitto and not written when it was killed" if unwritten else ""
        TABLE.add(fault, self.ends, verdict, outcome + note)
        lost = verdict.lost - len(unwritten)
        assert (lost, verdict.alien, verdict.disordered) == (0, 0, 0), f"{verdict}\n{self.worker.where()}"
        return verdict


@contextmanager
def flowing(folder: Path, source: QueueSpec, sink: QueueSpec, text: Text = plain, **environment: str) -> Iterator[Flow]:
    """The unit in `folder` runs between a writer of `source` and a reader of `sink`."""
    ledger = Ledger()
    with ExitStack() as stack:
        stack.enter_context(reading(sink, lambda value, _headers: ledger.deliver(value)))
        worker = stack.enter_context(running(folder, **environment))
        worker.wait_ready()
        writer = feed(source, ledger, text)
        stack.callback(writer.close)
        yield Flow(f"{source.connector} → {sink.connector}", ledger, writer, worker)


def between(mosquitto: Broker, kafka: Broker, ends: str) -> tuple[QueueSpec, QueueSpec]:
    """The queues of `ends`, "mqtt-kafka" say."""
    known = {"mqtt": mosquitto, "kafka": kafka}
    source, sink = (on(known[name], queue) for name, queue in zip(ends.split("-"), ("in", "out"), strict=True))
    return source, sink


def pause(low: float, high: float, dice: random.Random) -> None:
    """What happens next, happens at a random moment."""
    time.sleep(dice.uniform(low, high))


def same(queue: QueueSpec, name: str) -> QueueSpec:
    """The same topic under another id, as the next unit knows it."""
    return replace(queue, id=name)
