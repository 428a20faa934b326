"""Sites, which tests share, and the table that the run ends with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.faults.site import Site, site
from tests.faults.table import TABLE
from tests.lab import lab

Places = Callable[..., Site]


@pytest.fixture(scope="session")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Places]:
    made: dict[object, Site] = {}
    with ExitStack() as stack:

        def place(*machines: str, containerized: bool = True, alone: bool = False) -> Site:
            name = f"faults-{len(made) + 1}"
            key = name if alone else (machines, containerized)
            if key not in made:
                folder = tmp_path_factory.mktemp("site")  # not by its name: whatever has that is looked for
                made[key] = stack.enter_context(site(folder, name, machines, containerized=containerized))
            return made[key]

        yield place


@pytest.fixture
def place(sites: Places) -> Iterator[Places]:
    """`place(*machines, containerized=…)`: a site, the same one for the same words unless it is to be `alone`.

    Whatever a test did to it, its next version goes live: that is what is tested here.
    """
    for machine in lab.machines():
        machine.restore()  # of a run that was killed in the middle of a fault
    yield sites
    for machine in lab.machines():
        machine.restore()


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if TABLE.rows:
        terminalreporter.section("faults")
        terminalreporter.write(str(TABLE))
