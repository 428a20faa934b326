"""How the tests talk to a pipeline that is live: over HTTP, MQTT and Kafka, as its users do."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from typing import Any
from urllib.request import Request, urlopen

import paho.mqtt.client as mqtt
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from tests.support import wait_for

PATIENCE = 90.0


def predict(endpoint: str, values: Sequence[Any]) -> Any:
    request = Request(
        f"{endpoint}/predict", json.dumps({"data": list(values)}).encode(), {"Content-Type": "application/json"}
    )
    with urlopen(request, timeout=60) as answer:
        return json.load(answer)["predictions"]


class Topics:
    """One MQTT session: publishes and keeps what comes to the topics it listens to."""

    def __init__(self, host: str, port: int = 1883) -> None:
        self.came: dict[str, list[Any]] = {}
        self._client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=uuid.uuid4().hex)
        self._granted: set[int] = set()
        self._client.on_message = lambda _c, _u, message: self.came[message.topic].append(json.loads(message.payload))
        self._client.on_subscribe = lambda _c, _u, mid, _codes, _p: self._granted.add(mid)
        self._client.connect(host, port)
        self._client.loop_start()

    def listen(self, topic: str) -> None:
        """From here on nothing that comes there is missed."""
        self.came[topic] = []
        _, mid = self._client.subscribe(topic, qos=1)
        wait_for(lambda: mid in self._granted, what=f"the subscription of {topic}")

    def send(self, topic: str, values: Sequence[Any]) -> None:
        for value in values:
            self._client.publish(topic, json.dumps(value), qos=1).wait_for_publish(30)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def make_topics(server: str, *names: str) -> None:
    """Kafka topics that are there and empty when this returns."""
    remove_topics(server, *names)
    if names:
        admin = AdminClient({"bootstrap.servers": server})
        for future in admin.create_topics([NewTopic(name, 1, 1) for name in names]).values():
            future.result(60)
        wait_for(lambda: {*names} <= set(admin.list_topics(timeout=10).topics), what="the topics")


def remove_topics(server: str, *names: str) -> None:
    """None of them is there when this returns."""
    if not names:
        return
    admin = AdminClient({"bootstrap.servers": server})
    for future in admin.delete_topics(list(names)).values():
        future.exception(60)
    wait_for(lambda: not {*names} & set(admin.list_topics(timeout=10).topics), what="the topics are gone")


def produce(server: str, topic: str, values: Sequence[Any]) -> None:
    producer = Producer({"bootstrap.servers": server})
    for value in values:
        producer.produce(topic, json.dumps(value))
    assert producer.flush(60) == 0


def consume(server: str, topic: str, number: int, seconds: float = PATIENCE) -> list[Any]:
    """The first `number` messages of the topic's one partition."""
    consumer = Consumer({"bootstrap.servers": server, "group.id": uuid.uuid4().hex, "enable.auto.commit": False})
    consumer.assign([TopicPartition(topic, 0, 0)])
    came: list[Any] = []

    def more() -> bool:
        if (message := consumer.poll(0.2)) and not message.error():
            came.append(json.loads(message.value()))
        return len(came) >= number

    try:
        wait_for(more, seconds, f"{number} messages of {topic}, there are {len(came)}")
    finally:
        consumer.close()
    return came
