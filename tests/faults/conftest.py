"""Sites, and the table that the run ends with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.faults.site import Site, site
from tests.faults.table import TABLE
from tests.lab import lab


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Callable[..., Site]]:
    """`place(id, *machines, containerized=…, registry=…)`: a site that is undeployed in the end."""
    for machine in lab.machines():
        machine.restore()  # of a run that was killed in the middle of a fault
    with ExitStack() as stack:
        yield lambda name, *machines, **how: stack.enter_context(site(tmp_path, name, machines, **how))
        for machine in lab.machines():
            machine.restore()


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if TABLE.rows:
        terminalreporter.section("faults")
        terminalreporter.write(str(TABLE))
