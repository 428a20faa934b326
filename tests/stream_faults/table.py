"""Fault → sent, lost, doubled, out of order; printed by every run, and written to docs/stream-faults.md by
`make stream-faults`."""

from __future__ import annotations

import fcntl
import subprocess
from collections.abc import Callable
from dataclasses import astuple, dataclass, field
from datetime import UTC, datetime
from functools import cache

from tests.stream_faults.extent import FULL
from tests.stream_faults.ledger import Verdict
from tests.support import ROOT

PAGE = ROOT / "docs" / "stream-faults.md"
BEGIN, END = "<!-- faults -->\n", "<!-- /faults -->\n"
COLUMNS = "| fault | from → to | sent | lost | doubled | out of order | slowest, s | what follows | run |\n"
RULE = "|---|---|--:|--:|--:|--:|--:|---|---|\n"


@dataclass(frozen=True, slots=True)
class Row:
    fault: str
    ends: str
    sent: str
    lost: str
    doubled: str
    disordered: str
    slowest: str
    outcome: str
    run: str

    def __str__(self) -> str:
        return f"| {' | '.join(astuple(self))} |"

    @property
    def key(self) -> tuple[str, str]:
        return self.fault, self.ends


def parse(line: str) -> Row:
    """A row of the page, as it was written there."""
    return Row(*(cell.strip() for cell in line.strip().strip("|").split("|")))


def replaced(page: str, begin: str, end: str, text: str) -> str:
    """`page` with `text` between the two marks, which are there."""
    before, _, rest = page.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}{text}{end}{after}"


def rewrite(change: Callable[[str], str]) -> None:
    """The page is what `change` makes of it; several runs may do this at a time."""
    with PAGE.open("r+", encoding="utf-8") as page:
        fcntl.flock(page, fcntl.LOCK_EX)
        text = change(page.read())
        page.seek(0)
        page.write(text)
        page.truncate()


@cache
def run() -> str:
    """The day, and the commit that was measured."""
    words = ("git", "rev-parse", "--short", "HEAD")
    commit = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    return f"{datetime.now(UTC):%Y-%m-%d} {commit}"


@dataclass
class Table:
    """One that is `lasting` is the page's."""

    lasting: bool = False
    rows: list[Row] = field(default_factory=list)

    def add(self, fault: str, ends: str, verdict: Verdict, outcome: str) -> None:
        """Writes down what happened, whether it is as it should be or not."""
        counts = (verdict.sent, verdict.lost, verdict.doubled, verdict.disordered)
        row = Row(fault, ends, *map(str, counts), f"{verdict.slowest:.1f}", outcome, run())
        self.rows = [*(former for former in self.rows if former.key != row.key), row]
        print(f"{row}\n  {verdict}")
        if self.lasting:
            self.write()

    def written(self, page: str) -> str:
        """`page` with these rows in the place of those of the same faults, the others as they are."""
        former = page.partition(BEGIN)[2].partition(END)[0]
        rows = {row.key: row for row in map(parse, [line for line in former.splitlines() if line.startswith("| ")][1:])}
        rows |= {row.key: row for row in self.rows}
        table = "".join(f"{row}\n" for row in rows.values())
        return replaced(page, BEGIN, END, COLUMNS + RULE + table)

    def write(self) -> None:
        """At once, so that a run that is cut short has not measured for nothing."""
        rewrite(self.written)


TABLE = Table(FULL)
