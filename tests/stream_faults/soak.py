"""`make soak`: two units under a steady load for half an hour; what they hold must not grow (R28).

ARGS="--minutes 5" for less. Writes its figures into docs/stream-faults.md; ends with 1 when something grows.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from tests.lab import brokers
from tests.lab.brokers import Broker
from tests.runtime.workers import Worker
from tests.stream_faults.flow import Flow, between, flowing, unit
from tests.stream_faults.ledger import Verdict
from tests.stream_faults.outside import traffic
from tests.stream_faults.table import replaced, rewrite, run

RATES = {"kafka-kafka": 500.0, "mqtt-mqtt": 100.0}  # messages a second; mosquitto writes all it holds at every change
EVERY = 10.0  # seconds between two looks
WARM_UP = 0.2  # of the whole time, in which caches and pools may fill
MOST_GROWTH = 1.0  # MB in ten minutes
BEGIN, END = "<!-- soak -->\n", "<!-- /soak -->\n"
HEAD = (
    "| unit | minutes | messages | lost | doubled | p99, s | slowest, s "
    "| memory at first, MB | at last, MB | growth, MB in 10 min | files | threads | most lag | run |\n"
    f"|---|{'--:|' * 12}---|\n"
)


@dataclass(frozen=True, slots=True)
class Look:
    """At `at` seconds: bytes in memory, open files, threads, and messages that wait."""

    at: float
    memory: int
    files: int
    threads: int
    lag: float


def look(worker: Worker, since: float) -> Look:
    assert worker.process is not None
    process = Path(f"/proc/{worker.process.pid}")
    memory = int((process / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    files, threads = (len(list((process / kind).iterdir())) for kind in ("fd", "task"))
    return Look(time.monotonic() - since, memory, files, threads, worker.metric('mlpacker_lag{queue="in"}'))


def slope(points: list[tuple[float, float]]) -> float:
    """Of the straight line with the least squares through `points`, per unit of the first number."""
    count = len(points)
    mean_x, mean_y = (sum(point[axis] for point in points) / count for axis in (0, 1))
    across = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / across if across else 0.0


@dataclass
class Account:
    """All looks at one unit."""

    flow: Flow
    looks: list[Look] = field(default_factory=list)

    @property
    def warm(self) -> list[Look]:
        return self.looks[int(len(self.looks) * WARM_UP) :]

    @property
    def growth(self) -> float:
        """MB in ten minutes, after warming up."""
        return slope([(item.at, item.memory) for item in self.warm]) * 600 / 1e6

    @property
    def growing(self) -> list[str]:
        """What is not as it was."""
        warm = self.warm
        found = {
            f"memory by {self.growth:.2f} MB in 10 min": self.growth > MOST_GROWTH,
            "open files": warm[-1].files > warm[0].files + 1,
            "threads": warm[-1].threads > warm[0].threads + 1,
        }
        return [what for what, grows in found.items() if grows]

    def row(self, verdict: Verdict) -> str:
        first, last = self.warm[0], self.warm[-1]
        cells = (
            *(self.flow.ends, f"{self.looks[-1].at / 60:.0f}", verdict.sent, verdict.lost, verdict.doubled),
            *(f"{verdict.p99:.3f}", f"{verdict.slowest:.2f}", f"{first.memory / 1e6:.1f}", f"{last.memory / 1e6:.1f}"),
            *(f"{self.growth:+.2f}", f"{first.files} … {last.files}", f"{first.threads} … {last.threads}"),
            *(f"{max(item.lag for item in self.warm):.0f}", run()),
        )
        return f"| {' | '.join(map(str, cells))} |"


def soak(minutes: float, stack: ExitStack) -> list[Account]:
    """The accounts of both units after `minutes` of their loads."""
    mosquitto, kafka = (stack.enter_context(start()) for start in (brokers.mosquitto, brokers.kafka))
    accounts = [Account(_flow(ends, mosquitto, kafka, stack)) for ends in RATES]
    with ExitStack() as load:
        for account, rate in zip(accounts, RATES.values(), strict=True):
            load.enter_context(traffic(account.flow.feed, rate))
        since = time.monotonic()
        while time.monotonic() - since < minutes * 60:
            time.sleep(EVERY)
            for account in accounts:
                account.looks.append(look(account.flow.worker, since))
            print(*(f"{item.flow.ends}: {item.looks[-1]}" for item in accounts), sep="\n", flush=True)
    return accounts


def _flow(ends: str, mosquitto: Broker, kafka: Broker, stack: ExitStack) -> Flow:
    source, sink = between(mosquitto, kafka, ends)
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mlpacker-soak-")))
    return stack.enter_context(flowing(unit(folder, source, sink), source, sink))


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="make soak")
    parser.add_argument("--minutes", type=float, default=30)
    given = parser.parse_args(arguments)
    run()  # remembers the commit that it begins with
    with ExitStack() as stack:
        accounts = soak(given.minutes, stack)
        verdicts = [account.flow.finish() for account in accounts]
        rows = "".join(f"{item.row(verdict)}\n" for item, verdict in zip(accounts, verdicts, strict=True))
    rewrite(lambda page: replaced(page, BEGIN, END, HEAD + rows))
    print(rows)
    wrong = [f"{item.flow.ends}: {what}" for item in accounts for what in item.growing]
    wrong += [str(verdict) for verdict in verdicts if verdict.lost or verdict.doubled or verdict.disordered]
    print(*(wrong or ["Nothing grows and nothing is lost."]), sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
