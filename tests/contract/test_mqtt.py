from __future__ import annotations

from typing import ClassVar

import pytest

from packer_lib.runtime.connectors.mqtt import Mqtt
from packer_lib.runtime.manifest import QueueSpec
from tests.contract.connectors import ConnectorSuite, Ends, fresh
from tests.lab.brokers import Broker

pytestmark = pytest.mark.broker


class TestMqtt(ConnectorSuite):
    connector = Mqtt
    options: ClassVar[dict[str, object]] = {}

    @pytest.fixture
    def ends(self, mosquitto: Broker) -> Ends:
        queue = QueueSpec("q", "mqtt", mosquitto.host, mosquitto.port, fresh(), self.options)
        return queue, queue


class TestMqttOfVersion311(TestMqtt):
    options: ClassVar = {"protocol": "3.1.1"}
    headers_travel = False
    key_travels = False


class TestMqttWithQosTwo(TestMqtt):
    options: ClassVar = {"qos": 2}
