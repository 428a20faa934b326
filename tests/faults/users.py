"""`asking(…)`: users of a unit for as long as a block runs, and the account of what they got."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.support import ROOT

RATE = 50.0  # requests a second


@dataclass
class Account:
    """Filled when the block ends. `predictions` are the different answers that came, each with its number."""

    sent: int = 0
    lost: int = 0
    slowest: float = 0.0
    losses: list[Any] = field(default_factory=list)
    predictions: dict[str, int] = field(default_factory=dict)

    def all_among(self, *allowed: Any) -> bool:
        """Whether nothing but `allowed` was ever answered."""
        return set(self.predictions) <= {json.dumps(value) for value in allowed}

    def __str__(self) -> str:
        return f"{self.sent} sent, {self.lost} lost, slowest {self.slowest:.2f} s, {self.predictions}, {self.losses}"


@contextmanager
def asking(endpoint: str, values: Sequence[Any], rate: float = RATE) -> Iterator[Account]:
    """Asks `endpoint` for predictions of `values`; the account is complete after the block."""
    argv = (sys.executable, "-m", "tests.faults.prober", f"{endpoint}/predict", json.dumps({"data": values}), str(rate))
    process = subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    account = Account()
    try:
        yield account
    finally:
        out, _ = process.communicate(timeout=60)
        _fill(account, json.loads(out))


def _fill(account: Account, told: dict[str, Any]) -> None:
    account.sent, account.lost = told["sent"], told["lost"]
    account.slowest, account.losses = told["slowest"], told["losses"]
    for body, number in told["answers"].items():
        prediction = json.dumps(json.loads(body).get("predictions"))
        account.predictions[prediction] = account.predictions.get(prediction, 0) + number


def total(accounts: Collection[Account]) -> Account:
    """Several accounts as one, for a sweep."""
    whole = Account()
    for one in accounts:
        whole.sent, whole.lost = whole.sent + one.sent, whole.lost + one.lost
        whole.slowest, whole.losses = max(whole.slowest, one.slowest), [*whole.losses, *one.losses]
        for answer, number in one.predictions.items():
            whole.predictions[answer] = whole.predictions.get(answer, 0) + number
    return whole
