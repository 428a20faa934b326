"""Fault → requests sent, lost; printed by every run, and written to docs/faults.md by `make faults`."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.faults.users import RATE, Account
from tests.support import ROOT

PAGE = ROOT / "docs" / "faults.md"
HEAD = f"""\
# What goes wrong, and what users notice

Written by `make faults`: every row is a test on real machines with engines of their own (tests/faults), during which
the release before answers {RATE:g} requests a second. Half of them come on connections of their own, half on
connections that stay open; nothing is asked twice. Lost is every request that is refused, reset, not answered within
10 s, or answered with another status than 200.

"""


@dataclass(frozen=True, slots=True)
class Row:
    fault: str
    where: str
    sent: int
    lost: int
    slowest: float
    outcome: str


@dataclass
class Table:
    rows: list[Row] = field(default_factory=list)

    def add(self, fault: str, where: str, account: Account, outcome: str) -> None:
        self.rows.append(Row(fault, where, account.sent, account.lost, account.slowest, outcome))

    def __str__(self) -> str:
        lines = ["| fault | where | sent | lost | slowest answer | what follows |", "|---|---|--:|--:|--:|---|"]
        for row in self.rows:
            cells = (row.fault, row.where, f"{row.sent}", f"{row.lost}", f"{row.slowest * 1000:.0f} ms", row.outcome)
            lines.append(f"| {' | '.join(cells)} |")
        return "\n".join(lines) + "\n"

    def write(self) -> None:
        sent, lost = sum(row.sent for row in self.rows), sum(row.lost for row in self.rows)
        PAGE.write_text(f"{HEAD}{self}\n{len(self.rows)} faults, {sent} requests, {lost} lost.\n", encoding="utf-8")


TABLE = Table()
