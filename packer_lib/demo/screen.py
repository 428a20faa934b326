"""What the demo shows: its phases with their times, and the live table; plain lines without a terminal."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from packer_lib.demo.watch import Row

Tell = Callable[[str], None]
PLAIN_EVERY = 5.0
COLOURS = {"running": "green", "starting": "yellow", "failed": "red", "stopped": "dim"}


@dataclass(slots=True)
class Screen:
    """Phases may run at the same time, each on its own thread. `times` keeps how long each took, in seconds."""

    console: Console
    times: list[tuple[str, float, float]] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def now(self) -> float:
        """Seconds since the demo began."""
        return time.monotonic() - self.began

    def say(self, text: str) -> None:
        self.console.print(text, highlight=False, soft_wrap=True)

    @contextmanager
    def phase(self, title: str, progress: Progress | None = None) -> Iterator[Tell]:
        """One phase; what it is doing right now goes to the function that this yields."""
        start = self.now()
        task = progress.add_task(f"{title} …", total=1) if progress else None
        if not self.console.is_terminal:
            self.say(f"{start:6.1f} s  {title} …")

        def tell(what: str) -> None:
            if progress and task is not None:
                progress.update(task, description=f"{title}: [dim]{escape(what)}")

        yield tell
        if progress and task is not None:
            progress.update(task, description=title, completed=1)
        with self._lock:
            self.times.append((title, start, self.now()))

    def progress(self) -> Progress:
        """Spinners with elapsed times, one line per phase; silent without a terminal, where `phase` writes lines."""
        columns = (SpinnerColumn(finished_text="[green]✓"), TextColumn("{task.description}"), TimeElapsedColumn())
        return Progress(*columns, console=self.console, disable=not self.console.is_terminal)

    def timeline(self) -> Table:
        """Every phase: when it began, and how long it took."""
        table = Table(title="Where the time went", title_justify="left", box=None, header_style="dim")
        for name in ("began", "took"):
            table.add_column(name, justify="right")
        table.add_column("phase")
        for title, start, end in sorted(self.times, key=lambda entry: entry[1]):
            table.add_row(f"{start:.1f} s", f"{end - start:.1f} s", title)
        return table


class LiveTable:
    """The table of units, redrawn in place on a terminal, a line per unit every five seconds elsewhere."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._live = Live(console=screen.console, auto_refresh=False) if screen.console.is_terminal else None
        self._printed = -PLAIN_EVERY

    def __enter__(self) -> LiveTable:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def show(self, rows: Sequence[Row], anomalies: Mapping[str, int], caption: str) -> None:
        """`anomalies` by pipeline: what the demo itself has heard of."""
        if self._live:
            self._live.update(table(rows, anomalies, caption), refresh=True)
        elif self._screen.now() - self._printed >= PLAIN_EVERY:
            self._printed = self._screen.now()
            self._screen.say(f"{self._printed:6.1f} s  {escape(caption)}")
            for row in rows:
                self._screen.say("          " + escape("  ".join(cells(row, anomalies))))


HEADINGS = ("pipeline", "unit", "state", "in", "out", "anomalies", "p50 latency")


def table(rows: Sequence[Row], anomalies: Mapping[str, int], caption: str) -> Table:
    """The units as a rich table."""
    found = Table(caption=caption, caption_justify="left")
    for number, heading in enumerate(HEADINGS):
        found.add_column(heading, justify="left" if number < 3 else "right", no_wrap=True)
    for row in rows:
        pipeline, unit, state, *rest = cells(row, anomalies)
        colour = "bold red" if anomalies.get(row.pipeline) else "dim"
        rest[2] = f"[{colour}]{rest[2]}"
        found.add_row(pipeline, unit, f"[{COLOURS.get(state, 'white')}]{state}", *rest)
    return found


def cells(row: Row, anomalies: Mapping[str, int]) -> list[str]:
    """One row as text, in the order of `HEADINGS`. Anomalies stand at the pipeline's last unit, where they come out."""
    numbers = row.numbers
    latency = "–" if numbers.latency is None else f"{numbers.latency * 1000:.1f} ms"
    found = str(anomalies.get(row.pipeline, 0)) if row.last else ""
    return [row.pipeline, row.unit, row.state, str(numbers.came), str(numbers.went), found, latency]
