from __future__ import annotations

import pytest

from packer_lib.runtime.connectors.kafka import Kafka
from packer_lib.runtime.manifest import QueueSpec
from tests.contract.connectors import ConnectorSuite, Ends, fresh
from tests.lab.brokers import Broker

pytestmark = pytest.mark.broker


class TestKafka(ConnectorSuite):
    connector = Kafka

    @pytest.fixture
    def ends(self, kafka: Broker) -> Ends:
        queue = QueueSpec("q", "kafka", kafka.host, kafka.port, fresh())
        return queue, queue
