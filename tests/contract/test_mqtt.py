from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any, ClassVar

import pytest
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from packer_lib.runtime import metrics
from packer_lib.runtime.connectors.mqtt import Mqtt
from packer_lib.runtime.connectors.mqtt_session import client_id
from packer_lib.runtime.contract import ConnectionFailed, DeliveryFailed, Message, MessageRefused, Sink, Source
from packer_lib.runtime.manifest import QueueSpec
from tests.contract.connectors import ConnectorSuite, Ends, fresh, take
from tests.lab import brokers
from tests.lab.brokers import Broker
from tests.support import require, wait_for

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


def test_a_message_that_is_too_large_for_the_broker_is_refused_alone() -> None:
    require("mosquitto", "apt-get install mosquitto")
    with brokers.mosquitto("max_packet_size 2000\n") as broker:
        queue = QueueSpec("q", "mqtt", broker.host, broker.port, fresh())
        source, sink = Mqtt.source(queue, "mlpacker.small"), Mqtt.sink(queue, "mlpacker.small")
        source.connect()
        sink.connect()
        large = Message(b"x" * 3000)
        with pytest.raises(MessageRefused, match=r"3000 bytes, mqtt broker .* takes packets of 2000") as caught:
            sink.produce([Message(b"1"), large, Message(b"2")])
        assert caught.value.message is large
        sink.produce([Message(b"2")])
        sink.flush(10)
        assert [item.value for item in take(source, 2)] == [b"1", b"2"]
        sink.close()
        source.close()


def test_a_broker_that_takes_nothing_does_not_keep_us_when_we_leave() -> None:
    """More waits to be sent than a kernel holds, and the goodbye behind it."""
    require("mosquitto", "apt-get install mosquitto")
    with brokers.mosquitto() as broker:
        config = {"config": {"keepalive": 300, "connect_timeout": 5}}
        sink = Mqtt.sink(QueueSpec("q", "mqtt", broker.host, broker.port, fresh(), config), "mlpacker.frozen")
        sink.connect()
        assert broker.process is not None
        os.killpg(broker.process.pid, signal.SIGSTOP)
        sink.produce([Message(b"x" * 1_000_000) for _ in range(20)])
        with pytest.raises(DeliveryFailed, match=r"no answer in 0\.5 s"):
            sink.flush(0.5)
        started = time.monotonic()
        sink.close()
        assert time.monotonic() - started < 10
        os.killpg(broker.process.pid, signal.SIGCONT)


@contextmanager
def joined(mosquitto: Broker, name: str, **config: object) -> Iterator[tuple[QueueSpec, Source, Sink]]:
    """A queue of its own, with both its ends connected."""
    queue = QueueSpec("q", "mqtt", mosquitto.host, mosquitto.port, fresh(), {"config": config})
    source, sink = Mqtt.source(queue, name), Mqtt.sink(queue, name)
    source.connect()
    sink.connect()
    yield queue, source, sink
    source.close()
    sink.close()


def test_a_content_type_is_mqtts_own_property(mosquitto: Broker) -> None:
    odd = {"content-type": b"\xff\x00"}
    with joined(mosquitto, "mlpacker.typed") as (queue, source, sink), subscribed(queue) as properties:
        sink.produce([Message(b"1", None, {"content-type": b"text/csv"}), Message(b"2", None, odd)])
        sink.flush(10)
        found = take(source, 2)
        assert [item.headers for item in found] == [{"content-type": b"text/csv"}, odd]
        source.ack(found)
        wait_for(lambda: len(properties) == 2)
        assert properties[0].ContentType == "text/csv"
        assert not hasattr(properties[0], "UserProperty")


def test_what_the_broker_dropped_is_told_and_is_no_message() -> None:
    """A broker that keeps few messages for who is away; who comes back can see that there were more."""
    with (
        brokers.mosquitto("max_queued_messages 10\nsys_interval 1\n") as mosquitto,
        joined(mosquitto, "mlpacker.dropping", watch_dropped=True) as (queue, source, sink),
    ):
        source.close()
        sink.produce([Message(b"%d" % number) for number in range(50)])
        sink.flush(10)
        source.connect()

        def dropped() -> float:
            return metrics.REGISTRY.get_sample_value("mlpacker_broker_dropped", {"queue": queue.id}) or 0

        found: list[Message] = []
        wait_for(lambda: found.extend(source.consume(100, 0.1)) or dropped() > 0)
        found += take(source, 10 - len(found))
        assert len(found) + dropped() == 50
        assert all(message.value.isdigit() for message in found)


@contextmanager
def subscribed(queue: QueueSpec) -> Iterator[list[Any]]:
    """The properties of what comes to somebody who is not us."""
    found: list[Any] = []
    client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
    client.on_message = lambda _client, _data, message: found.append(message.properties)
    there = Event()
    client.on_subscribe = lambda *_: there.set()
    client.connect(queue.server, queue.port)
    client.subscribe(queue.topic, 1)
    client.loop_start()
    assert there.wait(10)
    yield found
    client.disconnect()
    client.loop_stop()


def test_who_is_busy_for_long_keeps_its_connections(mosquitto: Broker) -> None:
    """A broker parts from a client that it has not heard of for one and a half times `keepalive`."""
    with joined(mosquitto, "mlpacker.busy", keepalive=1) as (_, source, sink):
        sink.produce([Message(b"1"), Message(b"2")])
        sink.flush(10)
        found = take(source, 2)
        time.sleep(4)
        sink.produce(found)
        sink.flush(10)
        source.ack(found)
        source.ack(take(source, 2))


def test_headers_that_mqtt_cannot_carry_as_text_do_not_cost_the_connection(mosquitto: Broker) -> None:
    odd = {
        "of-others;base64": b"a",
        "nul": b"a\0b",
        "line": b"a\nb",
        "c1": "\x85".encode(),
        "noncharacter": "\ufffe".encode(),
    }
    with joined(mosquitto, "mlpacker.odd") as (_, source, sink):
        sink.produce([Message(b"1", b"k\0", odd)])
        sink.flush(10)
        (found,) = take(source, 1)
        assert (found.key, found.headers) == (b"k\0", odd)
        with pytest.raises(MessageRefused, match=r"header 'large' of 70000 bytes; MQTT carries 48000"):
            sink.produce([Message(b"1", None, {"large": b"x" * 70_000})])
        source.ack([found])


def test_who_loses_its_connection_to_another_of_its_name_is_told_to_look_for_it(mosquitto: Broker) -> None:
    queue = QueueSpec("q", "mqtt", mosquitto.host, mosquitto.port, fresh())
    first, second = Mqtt.source(queue, "mlpacker.same"), Mqtt.source(queue, "mlpacker.same")
    first.connect()
    second.connect()
    with pytest.raises(ConnectionFailed, match=r"connection lost: .* another client come as mlp-same-"):
        first.consume(1, 5)
    first.close()
    second.close()


def test_a_wrong_password_is_told_apart_from_a_broker_that_is_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for program in ("mosquitto", "mosquitto_passwd"):
        require(program, "apt-get install mosquitto")
    passwords = tmp_path / "passwords"
    passwords.touch(0o600)
    subprocess.run(("mosquitto_passwd", "-b", str(passwords), "plant", "secret"), check=True)
    with brokers.mosquitto(f"allow_anonymous false\npassword_file {passwords}\n") as broker:
        options = {"username": "plant", "pass_env": "PLANT_PASSWORD"}
        queue = QueueSpec("q", "mqtt", broker.host, broker.port, fresh(), options)
        with pytest.raises(ConnectionFailed, match=r"environment variable 'PLANT_PASSWORD' \(pass_env\) is not set"):
            Mqtt.sink(queue, "mlpacker.x").connect()
        monkeypatch.setenv("PLANT_PASSWORD", "wrong")
        with pytest.raises(ConnectionFailed, match=r"refuses us: Not authorized \(look at username and pass_env\)"):
            Mqtt.sink(queue, "mlpacker.x").connect()
        monkeypatch.setenv("PLANT_PASSWORD", "secret")
        sink = Mqtt.sink(queue, "mlpacker.x")
        sink.connect()
        sink.close()


def test_a_client_id_is_stable_short_and_of_its_topic() -> None:
    queue = QueueSpec("q", "mqtt", "h", 1883, "plant/readings")
    name = "mlpacker.a-pipeline-with-a-long-name.preparation"
    assert client_id(queue, name, "in") == client_id(queue, name, "in")
    assert re.fullmatch("mlp-preparat-[0-9a-f]{10}", client_id(queue, name, "in"))
    others = {client_id(replace(queue, topic="t"), name, "in"), client_id(queue, name, "out")}
    assert len(others | {client_id(queue, name, "in")}) == 3
