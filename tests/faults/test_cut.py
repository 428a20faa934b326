"""R21, R22: machines that cannot be reached, before a release or in the middle of it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest

from tests.faults.extent import ALL
from tests.faults.failing import fails
from tests.faults.site import Site
from tests.faults.table import TABLE
from tests.faults.users import asking
from tests.lab import lab
from tests.support import wait_for

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(900)]
MACHINES = ("edge_node", "cloud_1", "cloud_2")
HEAVY = 60_000_000  # bytes: the upload takes long enough to be seen


def test_machine_2_of_3_cannot_be_reached(place: Callable[..., Site]) -> None:
    site, gone = place(*MACHINES), lab.machine("cloud_1").cut_off(ssh_only=True)
    site.live(2)
    site.write(3)
    what = "machine 2 of 3 unreachable from the start"
    fails(site, what, "container, 3 machines", code=7, says=("cloud_1",), during=gone)


@pytest.mark.skipif(not ALL, reason="done by make faults")
def test_machine_2_of_3_goes_away_while_the_new_release_is_watched(place: Callable[..., Site]) -> None:
    site, machine = place(*MACHINES), lab.machine("cloud_1")
    endpoint = site.live(2)
    site.write(3)
    with asking(endpoint, [7]) as users:
        process = site.start(MLPACKER__DEPLOY__WATCH_SECONDS="5")
        wait_for(lambda: _twins(site, "cloud_2"), 240, "the new release beside the old one")
        with machine.cut_off(ssh_only=True):
            _, said = process.communicate(timeout=400)
        again = site.deploy()
    TABLE.add(
        "machine 2 of 3 goes away before the switch",
        "container, 3 machines",
        users,
        f"exit {process.returncode}, then again: 0",
    )
    assert process.returncode in (7, 8), said
    assert "cloud_1" in said
    assert again.returncode == 0, again.stderr
    assert users.lost == 0, users
    assert {unit["state"] for unit in site.units()} == {"running"}
    assert all(len(lines) == 2 for lines in site.processes().values()), site.processes()


@pytest.mark.parametrize("moment", ["upload", "command"])
def test_ssh_is_cut(place: Callable[..., Site], moment: str) -> None:
    site, machine = place("edge_node"), lab.machine("edge_node")
    endpoint = site.live(2)
    site.write(3, weight=HEAVY if moment == "upload" else 0)
    seen = (lambda: _uploading(machine)) if moment == "upload" else (lambda: _twins(site, "edge_node"))
    with asking(endpoint, [7]) as users:
        process = site.start(MLPACKER__DEPLOY__WATCH_SECONDS="5")
        wait_for(lambda: seen() or process.poll() is not None, 240, moment)
        assert process.poll() is None, process.communicate()
        machine.hang_up()
        _, said = process.communicate(timeout=400)
        again = site.deploy()
    TABLE.add(f"SSH is cut in {moment}", "container, edge_node", users, f"exit {process.returncode}, then again: 0")
    assert process.returncode in (0, 7), said
    assert again.returncode == 0, again.stderr
    assert users.lost == 0, users
    assert users.all_among(site.answer(2), site.answer(3)), users
    assert len(site.processes()["edge_node"]) == 2, site.processes()
    assert site.locks() == []
    assert (
        machine.exec("sh", "-c", "ls -A /home/vagrant/.mlpacker | grep -e '^.put-' -e '^.docker-'", check=False) == ""
    )


def _uploading(machine: lab.Machine) -> bool:
    return bool(machine.exec("pgrep", "-f", "docker image[ ]load", check=False))


def _twins(site: Site, machine: str) -> bool:
    """Two releases of the unit run there, beside its door."""
    return len(site.processes()[machine]) > 2


def test_a_deploy_that_waits_for_the_lock_is_told_who_has_it(place: Callable[..., Site]) -> None:
    """R20: of two releases at once one proceeds, and the other ends with 75 and the holder's name."""
    site = place("edge_node")
    endpoint = site.live(2)
    site.write(3)
    with asking(endpoint, [7]) as users:
        first: subprocess.Popen[str] = site.start()
        wait_for(site.locks, 120, "the lock")
        second = site.deploy()
        _, said = first.communicate(timeout=400)
    TABLE.add(
        "two releases at once", "container, edge_node", users, f"exits {first.returncode} and {second.returncode}"
    )
    assert first.returncode == 0, said
    assert second.returncode == 75, second.stderr
    assert f"process {first.pid}" in second.stderr
    assert users.lost == 0, users
    assert site.locks() == []
    again = site.processes()
    assert site.deploy().returncode == 0  # R19: nothing to do changes nothing
    assert site.processes() == again
