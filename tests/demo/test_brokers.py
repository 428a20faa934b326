"""The embedded brokers: real clients against each of them, and the settings that name real ones."""

from __future__ import annotations

import os
import queue
import uuid
from collections.abc import Iterator
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient

from packer_lib.demo import brokers
from packer_lib.demo.brokers import Broker
from packer_lib.errors import MLPackerError
from tests.lab import brokers as lab
from tests.support import require, wait_for

ENV = {name: value for name, value in os.environ.items() if not name.startswith("MLPACKER__DEMO__")}


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Broker]:
    broker = brokers.kafka(tmp_path, ENV, ["metrics", "anomalies"])
    yield broker
    broker.stop()


def mqtt_round_trip(broker: Broker) -> bytes:
    """What a subscriber gets of one message at QoS 1."""
    arrived: queue.Queue[bytes] = queue.Queue()
    subscribed: queue.Queue[int] = queue.Queue()
    client = paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=paho.MQTTv311)
    client.on_message = lambda _client, _data, message: arrived.put(message.payload)
    client.on_subscribe = lambda _client, _data, mid, _codes, _properties: subscribed.put(mid)
    client.connect(broker.host, broker.port)
    client.loop_start()
    try:
        client.subscribe("metrics", qos=1)
        subscribed.get(timeout=20)
        client.publish("metrics", b"hello", qos=1)
        return arrived.get(timeout=20)
    finally:
        client.disconnect()
        client.loop_stop()


def test_mosquitto_serves_mqtt_on_loopback(tmp_path: Path) -> None:
    require("mosquitto", "apt-get install mosquitto")
    broker = brokers.mqtt(tmp_path, ENV, brokers.find_mosquitto(ENV))
    try:
        assert "mosquitto" in broker.what
        assert mqtt_round_trip(broker) == b"hello"
    finally:
        broker.stop()
    assert not brokers.listening(broker.host, broker.port)


@pytest.mark.native
def test_amqtt_serves_mqtt_where_there_is_no_mosquitto(tmp_path: Path) -> None:
    broker = brokers.mqtt(tmp_path, ENV, mosquitto=None)
    try:
        assert "amqtt" in broker.what
        assert mqtt_round_trip(broker) == b"hello"
    finally:
        broker.stop()


def test_the_mock_cluster_keeps_records_in_order_for_a_group(cluster: Broker) -> None:
    producer = Producer({"bootstrap.servers": cluster.address})
    for number in range(100):
        producer.produce("metrics", str(number).encode())
    assert producer.flush(20) == 0
    settings = {"bootstrap.servers": cluster.address, "group.id": "test", "auto.offset.reset": "earliest"}
    consumer = Consumer(settings)
    consumer.subscribe(["metrics"])
    got = []
    try:
        while len(got) < 100:
            message = consumer.poll(20)
            assert message is not None, "the records did not come"
            assert message.error() is None
            got.append(int(message.value()))
    finally:
        consumer.close()
    assert got == list(range(100))


def test_a_stopped_kafka_broker_has_left_its_port(tmp_path: Path) -> None:
    broker = brokers.kafka(tmp_path, ENV, [])
    assert brokers.listening(broker.host, broker.port)
    broker.stop()
    assert not brokers.listening(broker.host, broker.port)
    assert broker.process is not None
    assert broker.process.returncode == 0


def test_a_real_broker_is_used_and_left_alone(tmp_path: Path, cluster: Broker) -> None:
    found = brokers.mqtt(tmp_path, {"MLPACKER__DEMO__MQTT": cluster.address}, None)
    assert found.address == cluster.address
    assert found.process is None
    found.stop()
    assert brokers.listening(cluster.host, cluster.port)


@pytest.mark.broker
def test_a_real_kafka_gets_the_topics_it_lacks(tmp_path: Path, kafka: lab.Broker) -> None:
    env = {"MLPACKER__DEMO__KAFKA": kafka.address}
    topics = [f"demo-{uuid.uuid4().hex}" for _ in range(2)]
    brokers.kafka(tmp_path, env, topics[:1])
    brokers.kafka(tmp_path, env, topics)
    admin = AdminClient({"bootstrap.servers": kafka.address})

    def partitions() -> list[int]:
        found = admin.list_topics(timeout=20).topics
        return [len(found[topic].partitions) for topic in topics if topic in found]

    wait_for(lambda: partitions() == [1, 1], 20, "both topics with one partition each")


def test_a_real_broker_that_is_down_is_named_with_its_setting(tmp_path: Path) -> None:
    address = f"127.0.0.1:{brokers.free_port()}"
    with pytest.raises(MLPackerError, match=f"MLPACKER__DEMO__KAFKA: nobody listens at {address}"):
        brokers.kafka(tmp_path, {"MLPACKER__DEMO__KAFKA": address}, [])


def test_an_address_without_a_port_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MLPackerError, match="MLPACKER__DEMO__MQTT: 'broker' is not host:port"):
        brokers.mqtt(tmp_path, {"MLPACKER__DEMO__MQTT": "broker"}, None)


def test_a_broker_that_ends_at_once_is_reported_with_its_last_words(tmp_path: Path) -> None:
    program = tmp_path / "mosquitto"
    program.write_text("#!/bin/sh\necho out of luck >&2\nexit 3\n")
    program.chmod(0o755)
    with pytest.raises(MLPackerError, match="out of luck"):
        brokers.mqtt(tmp_path, ENV, mosquitto=str(program))


def test_mosquitto_is_found_where_debian_puts_it() -> None:
    found = require("mosquitto", "apt-get install mosquitto")
    assert brokers.find_mosquitto({"PATH": "/nowhere"}) == "/usr/sbin/mosquitto" or not found.startswith("/usr/sbin")
