"""The metrics agent of the demo: this machine's CPU, network and disk rates, published or recorded.

    python -m packer_lib.demo.agent --mqtt 127.0.0.1:1883/metrics --kafka 127.0.0.1:9092/metrics
    python -m packer_lib.demo.agent --record metrics.csv --seconds 600

One record is `{"timestamp", "cpu", "network_in", "disk_read", "host"}`: seconds since the epoch, percent of all cores
(0 to 100), and bytes per second since the record before, over all interfaces (loopback too) and all disks.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from packer_lib.runtime.catalogue import CONNECTORS
from packer_lib.runtime.contract import Message, Sink
from packer_lib.runtime.manifest import QueueSpec

FEATURES = ("cpu", "network_in", "disk_read")
COLUMNS = ("timestamp", *FEATURES)
RATE = 5.0
WINDOW = 30  # records; the autoencoder's window at this rate is six seconds

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Counters:
    """What the operating system has counted so far: seconds, CPU seconds (busy, all), bytes."""

    at: float
    busy: float
    total: float
    network_in: int
    disk_read: int


def read_counters(clock: Callable[[], float] = time.time) -> Counters:
    """The counters of this moment. A machine that shows no disk (some containers) has read 0 bytes."""
    times = psutil.cpu_times()._asdict()
    total = sum(seconds for name, seconds in times.items() if not name.startswith("guest"))
    idle = times["idle"] + times.get("iowait", 0.0)
    disks, network = psutil.disk_io_counters(), psutil.net_io_counters()
    received, read = network.bytes_recv if network else 0, disks.read_bytes if disks else 0
    return Counters(clock(), total - idle, total, received, read)


def record(before: Counters, after: Counters) -> Record:
    """What happened between two readings. A counter that started again (an interface came back) counts as nothing."""
    seconds = max(after.at - before.at, 1e-3)
    cpu = 100 * (after.busy - before.busy) / max(after.total - before.total, 1e-9)
    return {
        "timestamp": round(after.at, 3),
        "cpu": round(min(max(cpu, 0.0), 100.0), 1),
        "network_in": max(round((after.network_in - before.network_in) / seconds), 0),
        "disk_read": max(round((after.disk_read - before.disk_read) / seconds), 0),
    }


def records(rate: float, stop: threading.Event) -> Iterator[Record]:
    """One record every 1/`rate` seconds, on a steady beat, until `stop` is set."""
    start, before = time.monotonic(), read_counters()
    for beat in itertools.count(1):
        if stop.wait(max(start + beat / rate - time.monotonic(), 0)):
            return
        after = read_counters()
        yield record(before, after)
        before = after


def queue(connector: str, address: str) -> QueueSpec:
    """`host:port/topic` as the queue that a PADL would describe; `ValueError` when it is not one."""
    place, _, topic = address.partition("/")
    host, _, port = place.rpartition(":")
    if not (host and port.isdigit() and topic):
        raise ValueError(f"--{connector} {address!r} is not host:port/topic")
    return QueueSpec(id=topic, connector=connector, server=host, port=int(port), topic=topic)


def publish(found: Iterator[Record], sinks: list[Sink]) -> None:
    """Every record to every sink, each confirmed before the next is taken, so that a slow broker slows the agent."""
    host = socket.gethostname()
    for item in found:
        message = Message(json.dumps({**item, "host": host}).encode(), key=host.encode())
        for sink in sinks:
            sink.produce([message])
        for sink in sinks:
            sink.flush(10)


def save(found: Iterator[Record], target: Path) -> None:
    """The records as CSV with a header line, written as they come."""
    with target.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for item in found:
            writer.writerow(item)
            file.flush()


def main(argv: list[str] | None = None) -> int:
    """Runs until SIGTERM, Ctrl-C or `--seconds`."""
    options = _options(argv)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    if options.seconds:
        threading.Timer(options.seconds, stop.set).start()
    found = records(options.rate, stop)
    if options.record:
        save(found, options.record)
        return 0
    with ExitStack() as stack:
        sinks = [stack.enter_context(closing(_connect(spec))) for spec in options.queues]
        publish(found, sinks)
    return 0


def _connect(spec: QueueSpec) -> Sink:
    connector: Any = CONNECTORS[spec.connector].load()
    sink: Sink = connector.sink(spec, "mlpacker.demo.agent")
    sink.connect()
    return sink


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m packer_lib.demo.agent", description="Samples this machine.")
    parser.add_argument("--rate", type=float, default=RATE, help="records a second (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=0, help="stop by itself after so long")
    parser.add_argument("--record", type=Path, metavar="FILE", help="write CSV instead of publishing")
    for name in ("mqtt", "kafka"):
        parser.add_argument(f"--{name}", action="append", default=[], metavar="HOST:PORT/TOPIC", help="publish there")
    options = parser.parse_args(argv)
    try:
        options.queues = [queue(name, address) for name in ("mqtt", "kafka") for address in getattr(options, name)]
    except ValueError as wrong:
        parser.error(str(wrong))
    if not (options.queues or options.record):
        parser.error("nowhere to write: give --mqtt, --kafka or --record")
    return options


if __name__ == "__main__":
    sys.exit(main())
