"""Who writes the queues of a unit and who reads them: the brokers' plain clients, none of our connectors."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from threading import Event, Lock, Thread
from typing import Any, Protocol

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from packer_lib.runtime.manifest import QueueSpec
from tests.stream_faults.ledger import Ledger
from tests.support import beside, wait_for

FRANTIC = {"reconnect.backoff.ms": 50, "reconnect.backoff.max.ms": 500, "log_level": 0}
Text = Callable[[int, bytes], bytes]


def plain(_number: int, value: bytes) -> bytes:
    return value


class Feed(Protocol):
    """Writes the ledger's messages to a queue; a broker that is away is waited for."""

    def send(self) -> None: ...

    def close(self) -> None: ...


class KafkaFeed:
    def __init__(self, queue: QueueSpec, ledger: Ledger, text: Text = plain) -> None:
        self._topic, self._ledger, self._text = queue.topic, ledger, text
        servers = f"{queue.server}:{queue.port}"
        self._producer = Producer(
            {
                "bootstrap.servers": servers,
                "enable.idempotence": True,
                "linger.ms": 5,
                "partitioner": "murmur2",
                **FRANTIC,
            }
        )
        self._stop = Event()
        self._hearing = Thread(target=self._hear, name="feed", daemon=True)
        self._hearing.start()

    def _hear(self) -> None:
        """Confirmations come while somebody polls."""
        while not self._stop.is_set():
            self._producer.poll(0.05)

    def send(self) -> None:
        number, key, value = self._ledger.send()

        def confirmed(error: KafkaError | None, _message: Any) -> None:
            if error is None:
                self._ledger.confirm(number)

        while True:
            try:
                self._producer.produce(self._topic, self._text(number, value), key, on_delivery=confirmed)
                break
            except BufferError:
                time.sleep(0.05)

    def close(self) -> None:
        self._stop.set()
        self._hearing.join()
        self._producer.purge()


class MqttFeed:
    def __init__(self, queue: QueueSpec, ledger: Ledger, text: Text = plain) -> None:
        self._topic, self._ledger, self._text = queue.topic, ledger, text
        self._lock = Lock()  # never held while paho is called, which calls back under locks of its own
        self._numbers: dict[int, int] = {}  # mid → id
        self._early: set[int] = set()  # mids that were confirmed before we knew whose they are
        self._calm = Event()  # no connection was lost with messages on it that are not confirmed yet
        self._calm.set()
        self._client = _mqtt("feed")
        self._client.on_disconnect = lambda *_: self._calm.clear()
        self._client.max_inflight_messages_set(200)
        self._client.on_publish = self._published
        _connect(self._client, queue)

    def _published(self, _client: Client, _data: Any, mid: int, reason: Any, _properties: Any) -> None:
        with self._lock:
            if mid not in self._numbers:
                self._early.add(mid)
                return
            number = self._numbers.pop(mid)
            if not self._numbers:
                self._calm.set()
        if not reason.is_failure:
            self._ledger.confirm(number)

    def send(self) -> None:
        """After a connection was lost it waits for what was under way: paho would send it behind what is new."""
        while self._numbers and not self._calm.wait(0.1):
            pass
        number, key, value = self._ledger.send()
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        properties.UserProperty = [("mlpacker-key", key.decode())]
        mid = self._client.publish(self._topic, self._text(number, value), 1, properties=properties).mid
        with self._lock:
            if mid not in self._early:
                self._numbers[mid] = number
                return
            self._early.remove(mid)
        self._ledger.confirm(number)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def feed(queue: QueueSpec, ledger: Ledger, text: Text = plain) -> Feed:
    return (MqttFeed if queue.connector == "mqtt" else KafkaFeed)(queue, ledger, text)


def settle(ledger: Ledger, seconds: float = 120) -> None:
    """Returns when a broker has confirmed all that was sent."""
    wait_for(lambda: ledger.unconfirmed() == 0, seconds, f"{ledger.unconfirmed()} are not confirmed")


@contextmanager
def traffic(feed: Feed, rate: float) -> Iterator[None]:
    """`rate` messages a second while the block runs."""

    def send(stop: Event) -> None:
        due = time.monotonic()
        while not stop.wait(max(0.0, due - time.monotonic())):
            feed.send()
            due = max(due + 1 / rate, time.monotonic() - 0.5)

    with beside(send):
        yield


def _mqtt(role: str) -> Client:
    client = Client(CallbackAPIVersion.VERSION2, f"{role}-{uuid.uuid4().hex[:12]}", protocol=MQTTProtocolVersion.MQTTv5)
    client.reconnect_delay_set(0.1, 0.5)
    return client


def _connect(client: Client, queue: QueueSpec) -> None:
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.SessionExpiryInterval = 3600
    client.connect(queue.server, queue.port, 10, clean_start=False, properties=properties)
    client.loop_start()


Take = Callable[[bytes, dict[str, bytes]], None]


@contextmanager
def read_mqtt(queue: QueueSpec, take: Take) -> Iterator[None]:
    """Confirms what it was given after `take` has it; there before the block begins."""
    client, subscribed = _mqtt("reader"), Event()
    client.on_connect = lambda *_: client.subscribe(queue.topic, 1)
    client.on_subscribe = lambda *_: subscribed.set()
    client.on_message = lambda _client, _data, message: take(message.payload, _headers(message))
    _connect(client, queue)
    assert subscribed.wait(10)
    try:
        yield
    finally:
        client.disconnect()
        client.loop_stop()


def _headers(message: Any) -> dict[str, bytes]:
    return {name: value.encode() for name, value in getattr(message.properties, "UserProperty", ())}


@contextmanager
def read_kafka(queue: QueueSpec, take: Take) -> Iterator[None]:
    """All partitions from their beginning, in no group; committed messages only."""
    servers = f"{queue.server}:{queue.port}"
    consumer = Consumer(
        {
            "bootstrap.servers": servers,
            "group.id": "none",
            "enable.auto.commit": False,
            "fetch.wait.max.ms": 50,
            **FRANTIC,
        }
    )
    found = wait_for(lambda: consumer.list_topics(queue.topic, 30).topics[queue.topic].partitions, 30, queue.topic)
    consumer.assign([TopicPartition(queue.topic, partition, OFFSET_BEGINNING) for partition in found])

    def read(stop: Event) -> None:
        while not stop.is_set():
            for message in consumer.consume(1000, 0.1):
                if not message.error():
                    take(message.value(), dict(message.headers() or ()))

    with closing(consumer), beside(read):
        yield


@contextmanager
def reading(queue: QueueSpec, take: Take) -> Iterator[None]:
    with (read_mqtt if queue.connector == "mqtt" else read_kafka)(queue, take):
        yield


def topic(queue: QueueSpec, partitions: int = 1) -> QueueSpec:
    """`queue`, whose topic is there now."""
    if queue.connector == "kafka":
        admin = AdminClient({"bootstrap.servers": f"{queue.server}:{queue.port}", "log_level": 0})
        admin.create_topics([NewTopic(queue.topic, partitions)])[queue.topic].result(20)
    return queue
