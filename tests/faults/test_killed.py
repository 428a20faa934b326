"""R18: the task is killed at every call that it makes of a machine and that changes something there. Users notice
nothing, and the next run puts all right.

Every version is new: it is built, checked, brought there, staged, switched to. A call that only looks is no point of
its own: to die there is to die before the next one. `make faults` takes every call, and kills it before it, during it
and after it in turn; otherwise a few are enough.
"""

from __future__ import annotations

import itertools
import re
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
LOOKS = re.compile(
    r"(cat|ls|stat|test|tail|grep|readlink|date) "
    r"|\S*docker (container (ls|inspect)|image (ls|inspect)|network inspect|version|logs)"
    r"|\S*docker exec \S+ \S+ -I -S \S+ ask \S+ status"
    r"|\S+ -I -S \S+/toolbox.py (http|ready|port|free|programs)"
    r"|\S+ -I -S \S+/door ask \S+ status"
)
FIRST = 2  # version; of the ones that follow none has been there before


@pytest.mark.parametrize("where", PLACES if ALL else ["container, edge_node"])
def test_a_task_that_is_killed_anywhere(place: Callable[..., Site], tmp_path: Path, where: str) -> None:
    site = place(*PLACES[where], containerized=bool(PLACES[where]))
    endpoint = site.live(FIRST)
    calls = _calls(site, tmp_path)
    accounts: list[Account] = []
    for version, (number, way) in enumerate(zip(sampled(list(calls)), itertools.cycle(WAYS), strict=False), FIRST + 2):
        site.write(version)
        with asking(endpoint, [7]) as users:
            code = site.killed(number, way, tmp_path / "log")
            done = site.deploy()
        accounts.append(users)
        what = f"call {number} {way}: {calls[number]}"
        assert done.returncode == 0, f"{what}\n{done.stderr}"
        assert code in (-9, 0), f"{what}: {code}"
        assert users.lost == 0, f"{what}: {users}"
        assert users.all_among(site.answer(version - 1), site.answer(version)), f"{what}: {users}"
        _converged(site, version, what)
    whole = total(accounts)
    TABLE.add(f"kill -9 at {len(accounts)} of {len(calls)} places", where, whole, "the next run puts all right")


def _calls(site: Site, folder: Path) -> dict[int, str]:
    """The calls of a release that replaces another and that change something, by their number."""
    site.write(FIRST + 1)
    assert site.killed(0, "never", folder / "calls") == 0
    calls = enumerate((folder / "calls").read_text().splitlines(), 1)
    return {number: call for number, call in calls if not LOOKS.match(call.partition("'")[2])}


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
