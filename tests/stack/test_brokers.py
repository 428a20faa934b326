"""The stack's brokers: MQTT keeps what it confirmed over kill -9, Kafka answers, the demo's feed arrives."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import paho.mqtt.client as mqtt
import pytest
from confluent_kafka import Consumer, Producer
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from tests.lab.place import docker
from tests.stack.stack import Stack
from tests.support import wait_for

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1800)]
MANY = 1500  # more than the 1000 beyond which mosquitto's default drops


def test_mosquitto_refuses_strangers(stack: Stack) -> None:
    with _client(stack, "stranger", password="wrong") as (client, codes):
        wait_for(lambda: codes, 60, "an answer to CONNECT")
        assert codes[0] == "Not authorized"
        assert not client.is_connected()


def test_mosquitto_keeps_what_it_confirmed_over_a_kill(stack: Stack) -> None:
    """A subscriber is away, 1500 messages are confirmed, the broker is killed: all of them come, in order."""
    with _client(stack, "reader") as (reader, codes):
        wait_for(lambda: codes, 60, "connected")
        reader.subscribe("stack/kept", qos=1)
        wait_for(lambda: getattr(reader, "subscribed", False), 60, "subscribed")
    with _client(stack, "writer") as (writer, codes):
        wait_for(lambda: codes, 60, "connected")
        sent = [writer.publish("stack/kept", str(number), qos=1) for number in range(MANY)]
        for confirmed in sent:
            confirmed.wait_for_publish(60)
    # It saves after it confirms: what came in the last moment may not be on disk yet.
    on_disk = ("sh", "-c", "grep -ao stack/kept /srv/mqtt/mosquitto.db | wc -l")
    wait_for(lambda: int(stack.exec("mosquitto", *on_disk)) >= MANY, 60, "all on disk", every=0.5)
    docker("kill", "-s", "KILL", stack.container("mosquitto"))
    docker("start", stack.container("mosquitto"))
    wait_for(lambda: _listens(stack.ports["MQTT"]), 60, "mosquitto again")
    with _client(stack, "reader") as (reader, _):
        wait_for(lambda: len(reader.received) == MANY, 60, "all messages")  # type: ignore[attr-defined]
        assert reader.received == [str(number) for number in range(MANY)]  # type: ignore[attr-defined]


def test_kafka_answers(stack: Stack) -> None:
    address = f"127.0.0.1:{stack.ports['KAFKA']}"
    producer = Producer({"bootstrap.servers": address})
    producer.produce("stack", b"hello", key=b"k")
    assert producer.flush(60) == 0
    consumer = Consumer({"bootstrap.servers": address, "group.id": "stack", "auto.offset.reset": "earliest"})
    consumer.subscribe(["stack"])
    try:
        message = wait_for(lambda: consumer.poll(1.0), 60, "the message")
        assert (message.error(), message.key(), message.value()) == (None, b"k", b"hello")
    finally:
        consumer.close()


def test_the_demo_s_feed_arrives(stack: Stack) -> None:
    with _client(stack, "watcher") as (client, codes):
        wait_for(lambda: codes, 60, "connected")
        client.subscribe("metrics", qos=1)
        wait_for(lambda: client.received, 30, "a record")  # type: ignore[attr-defined]
        assert {"timestamp", "cpu", "network_in", "disk_read", "host"} == json.loads(client.received[0]).keys()  # type: ignore[attr-defined]


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 5) as there:
        there.sendall(b"\x10")  # docker's proxy takes a connection before the broker does; this one stays open
        there.settimeout(0.5)
        try:
            return there.recv(1) != b""
        except TimeoutError:
            return True
    return False


@contextmanager
def _client(stack: Stack, name: str, password: str = "") -> Iterator[tuple[mqtt.Client, list[str]]]:
    """A client of the broker with a session that stays; `.received` are the payloads, in order."""
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=name, protocol=mqtt.MQTTv5)
    client.username_pw_set("mlpacker", password or stack.exec("airflow-worker", "cat", "/run/secrets/mqtt_password"))
    codes: list[str] = []
    client.received = []  # type: ignore[attr-defined]
    client.on_connect = lambda _c, _u, _f, code, _p: codes.append(str(code))
    client.on_subscribe = lambda *_: setattr(client, "subscribed", True)
    client.on_message = lambda _c, _u, message: client.received.append(message.payload.decode())  # type: ignore[attr-defined]
    stays = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    stays.SessionExpiryInterval = 3600
    client.connect("127.0.0.1", stack.ports["MQTT"], clean_start=False, properties=stays)
    client.loop_start()
    try:
        yield client, codes
    finally:
        client.disconnect()
        client.loop_stop()
