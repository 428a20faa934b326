"""R18: the task is killed at every call it makes of a machine. Users notice nothing, and the next run puts all right.

Two versions take turns: each is deployed, killed, deployed again. `make faults` kills at every call, in three ways;
otherwise a few calls of every phase are enough.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.extent import ALL, sampled
from tests.faults.site import Site
from tests.faults.table import TABLE
from tests.faults.users import Account, asking, total

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(7200)]
WAYS = ("before", "during", "after")


PLACES = {"container, edge_node": ("edge_node",), "process, this machine": ()}


@pytest.mark.parametrize("where", PLACES if ALL else ["container, edge_node"])
def test_a_task_that_is_killed_anywhere(place: Callable[..., Site], tmp_path: Path, where: str) -> None:
    site = place(*PLACES[where], containerized=bool(PLACES[where]))
    endpoint = site.live(3)
    site.live(2)
    calls = _calls(site, tmp_path)
    accounts: list[Account] = []
    for turn, (number, way) in enumerate(_points(calls)):
        factor = 2 + turn % 2
        site.write(factor)
        with asking(endpoint, [7]) as users:
            code = site.killed(number, way, tmp_path / "log")
            done = site.deploy()
        accounts.append(users)
        what = f"call {number} {way}: {calls[number - 1]}"
        assert done.returncode == 0, f"{what}\n{done.stderr}"
        assert code in (-9, 0), f"{what}: {code}"
        assert users.lost == 0, f"{what}: {users}"
        assert users.all_among(site.answer(2), site.answer(3)), f"{what}: {users}"
        _converged(site, factor, what)
    whole = total(accounts)
    TABLE.add(f"kill -9 at {len(accounts)} places of {3 * len(calls)}", where, whole, "the next run puts all right")


def _calls(site: Site, folder: Path) -> list[str]:
    """The calls of a release that replaces another, of which everything has been built before."""
    site.write(3)
    assert site.killed(0, "never", folder / "calls") == 0
    calls = (folder / "calls").read_text().splitlines()
    site.live(2)
    return calls


def _points(calls: list[str]) -> list[tuple[int, str]]:
    numbers = range(1, len(calls) + 1)
    if ALL:
        return [(number, way) for number in numbers for way in WAYS]
    return list(zip(sampled(numbers), itertools.cycle(WAYS), strict=False))


def _converged(site: Site, factor: int, what: str) -> None:
    """Every unit once, beside its door; nothing held, nothing half."""
    for machine, lines in site.processes().items():
        expected = 2 if site.containerized else 1
        assert len(lines) == expected, f"{what}: {machine}: {lines}"
    assert site.locks() == [], what
    assert {unit["state"] for unit in site.units()} == {"running"}, what
    with asking(site.endpoint, [7], rate=20) as users:
        pass
    assert users.all_among(site.answer(factor)), f"{what}: {users}"
