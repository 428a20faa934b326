from __future__ import annotations

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from packer_lib.runtime.connectors.kafka import Kafka
from packer_lib.runtime.contract import Message, MessageRefused
from packer_lib.runtime.manifest import QueueSpec
from tests.contract.connectors import ConnectorSuite, Ends, fresh, take
from tests.lab.brokers import Broker

pytestmark = pytest.mark.broker


class TestKafka(ConnectorSuite):
    connector = Kafka

    @pytest.fixture
    def ends(self, kafka: Broker) -> Ends:
        queue = QueueSpec("q", "kafka", kafka.host, kafka.port, fresh())
        return queue, queue


def test_a_message_that_the_topic_is_too_small_for_is_refused_alone(kafka: Broker) -> None:
    queue = QueueSpec("q", "kafka", kafka.host, kafka.port, fresh())
    admin = AdminClient({"bootstrap.servers": kafka.address})
    admin.create_topics([NewTopic(queue.topic, config={"max.message.bytes": "2000"})])[queue.topic].result(10)
    sink, source = Kafka.sink(queue, "mlpacker.small"), Kafka.source(queue, f"mlpacker.{queue.topic}")
    sink.connect()
    source.connect()
    small = [Message(b"%d" % number * 100) for number in range(100, 160)]
    large = Message(b"x" * 3000)
    with pytest.raises(
        MessageRefused, match=r"3000 bytes, kafka topic '.*' takes 2000 \(max.message.bytes\)"
    ) as caught:
        sink.produce([*small[:30], large, *small[30:]])
    assert caught.value.message is large
    sink.produce(small[30:])
    sink.flush(10)  # more than the topic takes as one batch, in many
    assert [item.value for item in take(source, 60)] == [item.value for item in small]
    sink.close()
    source.close()
