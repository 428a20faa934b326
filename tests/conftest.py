"""Brokers for the whole session, started on first use; a test that stops one starts its own (tests.lab.brokers)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab import brokers
from tests.support import missing, require


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
