"""Brokers for the whole session, started on first use; a test that stops one starts its own (tests.lab.brokers).

Tests marked `lab` need what `make lab` starts: without it they are skipped on a laptop, with one closing line that says
how many and what adds them, and fail in CI.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings
from xdist.scheduler import LoadFileScheduling

from tests.lab import brokers, lab
from tests.support import ROOT, missing, require

settings.register_profile("mlpacker", deadline=None)  # that a machine is busy says nothing of an example
settings.load_profile("mlpacker")

LAB_UP = functools.cache(lab.is_up)
LAB = "the lab of engine, registry and SSH machines"


class Lanes(LoadFileScheduling):
    """Of `-n 2 --dist loadfile`: files that use the lab's machines one after another, beside them all others."""

    def _split_scope(self, nodeid: str) -> str:
        file: str = super()._split_scope(nodeid)
        return "lab" if _uses_the_lab(file) else file


@functools.cache
def _uses_the_lab(file: str) -> bool:
    return "pytest.mark.lab" in (ROOT / file).read_text()


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Lanes | None:
    return Lanes(config, log) if config.getvalue("dist") == "loadfile" else None


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("lab") and not LAB_UP():
        missing(LAB, "make lab")


def pytest_unconfigure(config: pytest.Config) -> None:
    """How many were skipped for the lab, as the last thing on the screen."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter else []
    count = sum(isinstance(one.longrepr, tuple) and LAB in one.longrepr[2] for one in skipped)
    if count:
        print(f"{count} skipped for {LAB}: 'make lab' adds it (as root on Debian it installs an engine).")


@pytest.fixture(scope="session")
def mosquitto() -> Iterator[brokers.Broker]:
    require("mosquitto", "apt-get install mosquitto")
    with brokers.mosquitto() as broker:
        yield broker


@pytest.fixture(scope="session")
def kafka() -> Iterator[brokers.Broker]:
    if not brokers.kafka_fetched():
        missing("Kafka", "python -m tests.lab.brokers fetch (needs Java 17 and Maven)")
    with brokers.kafka() as broker:
        yield broker
