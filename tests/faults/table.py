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
    slowest: str
    outcome: str

    def __str__(self) -> str:
        return f"| {self.fault} | {self.where} | {self.sent} | {self.lost} | {self.slowest} | {self.outcome} |"


def parse(line: str) -> Row:
    """A row of the page, as it was written there."""
    fault, where, sent, lost, slowest, outcome = (cell.strip() for cell in line.strip("|\n").split("|"))
    return Row(fault, where, int(sent), int(lost), slowest, outcome)


@dataclass
class Table:
    rows: list[Row] = field(default_factory=list)

    def add(self, fault: str, where: str, account: Account, outcome: str) -> None:
        slowest = f"{account.slowest * 1000:.0f} ms"
        self.rows.append(Row(fault, where, account.sent, account.lost, slowest, outcome))

    def __str__(self) -> str:
        head = "| fault | where | sent | lost | slowest answer | what follows |\n|---|---|--:|--:|--:|---|\n"
        return head + "".join(f"{row}\n" for row in self.rows)

    def join(self) -> None:
        """The page's other rows, for a run that did some of the faults."""
        mine = {(row.fault, row.where): row for row in self.rows}
        lines = PAGE.read_text(encoding="utf-8").splitlines() if PAGE.exists() else []
        former = {
            (row.fault, row.where): row for row in map(parse, [line for line in lines if line.startswith("| ")][1:])
        }
        self.rows = list({**former, **mine}.values())

    def write(self) -> None:
        sent, lost = sum(row.sent for row in self.rows), sum(row.lost for row in self.rows)
        PAGE.write_text(f"{HEAD}{self}\n{len(self.rows)} faults, {sent} requests, {lost} lost.\n", encoding="utf-8")


TABLE = Table()
