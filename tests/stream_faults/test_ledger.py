"""The ledger's verdict and the page's table, which all fault tests stand on."""

from __future__ import annotations

from tests.stream_faults import table
from tests.stream_faults.ledger import Ledger
from tests.stream_faults.soak import slope
from tests.stream_faults.table import BEGIN, END, Table

PAGE = f"# Title\n\n{BEGIN}{END}\nafter\n"


def sent(count: int, keys: int = 2) -> tuple[Ledger, list[bytes]]:
    """A ledger of so many messages, all but the last confirmed, and their values."""
    ledger = Ledger(keys)
    values = [ledger.send()[2] for _ in range(count)]
    for number in range(count - 1):
        ledger.confirm(number)
    return ledger, values


def test_lost_is_what_was_confirmed_and_never_came() -> None:
    ledger, values = sent(6)
    for value in values[:3]:
        ledger.deliver(value)
    verdict = ledger.verdict()
    assert (verdict.sent, verdict.confirmed, verdict.lost) == (6, 5, 2)
    assert ledger.missing() == {3, 4}
    assert ledger.unconfirmed() == 1


def test_what_comes_again_is_doubled_and_never_out_of_order() -> None:
    ledger, values = sent(4)
    for number in (0, 1, 2, 0, 1, 3):
        ledger.deliver(values[number])
    verdict = ledger.verdict()
    assert (verdict.doubled, verdict.disordered, verdict.lost, verdict.alien) == (2, 0, 0, 0)


def test_order_is_within_a_key_and_of_first_arrivals() -> None:
    ledger, values = sent(6)
    for number in (1, 0, 3, 4, 2, 5):  # keys 1 0 1 0 0 1: only 2 comes behind 4 of its key
        ledger.deliver(values[number])
    assert ledger.verdict().disordered == 1
    other, values = sent(6)
    for number in (4, 2):
        other.deliver(values[number], ordered=False)
    assert other.verdict().disordered == 0


def test_what_nobody_sent_is_alien() -> None:
    ledger, _ = sent(2)
    for value in (b"no json", b'{"id": 7, "key": "k1", "seq": 3}', b'{"id": 0, "key": "k1", "seq": 0}', b"[]"):
        ledger.deliver(value)
    assert ledger.verdict().alien == 4


def test_a_run_of_one_part_writes_its_own_rows_anew_and_leaves_the_others() -> None:
    table.run.cache_clear()
    ledger, values = sent(3)
    for value in values:
        ledger.deliver(value)
    first, second = Table(), Table()
    for fault in ("a", "b"):
        first.add(fault, "x → y", ledger.verdict(), "as before")
    second.add("b", "x → y", ledger.verdict(), "anew")
    page = second.written(first.written(PAGE))
    assert [row.outcome for row in first.rows] == ["as before", "as before"]
    lines = [line for line in page.splitlines() if line.startswith("| ")]
    assert [line.split(" | ")[0:2] + line.split(" | ")[7:8] for line in lines[1:]] == [
        ["| a", "x → y", "as before"],
        ["| b", "x → y", "anew"],
    ]
    assert page.startswith("# Title")
    assert page.endswith("after\n")


def test_the_slope_of_a_line_is_its_own() -> None:
    assert slope([(0, 5.0), (1, 7.0), (2, 9.0)]) == 2
    assert slope([(3, 5.0)]) == 0
