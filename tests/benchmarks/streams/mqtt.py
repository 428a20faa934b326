"""MQTT → MQTT, QoS 1 both ways, beside a paho loop that only echoes."""

from __future__ import annotations

import json
import sys
import threading
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from tests.benchmarks.common import PEERS, train
from tests.benchmarks.streams.common import Found, medians, our_bundle, queue, running
from tests.lab import brokers
from tests.support import wait_for

COUNT = 30_000
# The lab's broker writes all that it holds to its disk with every change; with so much waiting that is all it did.
IN_MEMORY = "autosave_on_changes false\nautosave_interval 0\nset_tcp_nodelay true\nmax_inflight_messages 1000\n"


def measure(folder: Path, rounds: int) -> Found:
    """Messages per second of both."""
    model, row = train(folder)
    payload = json.dumps(row).encode()
    with brokers.mosquitto(IN_MEMORY) as broker:
        measures = {
            "mqtt_bare_loop": lambda: throughput(folder, broker, payload, None),
            "mqtt_ours": lambda: throughput(folder, broker, payload, model),
        }
        rates = medians(measures, rounds)
    return Found(rates, {"mqtt_vs_bare_loop": rates["mqtt_ours"] / rates["mqtt_bare_loop"]})


def throughput(folder: Path, broker: brokers.Broker, payload: bytes, model: Path | None) -> float:
    """Who is measured subscribes and goes; the messages then wait in its session, and it comes back."""
    names = {"SOURCE": f"in/{uuid.uuid4().hex[:8]}", "SINK": f"out/{uuid.uuid4().hex[:8]}"}
    command = _command(folder, broker, names, model)
    client = _connected(broker)
    with running(command, folder):
        _wait_subscribed(client, names)
    _fill(client, names["SOURCE"], payload)
    client.disconnect()
    client.loop_stop()
    reader = Reader(broker, names["SINK"])
    with running(command, folder):
        return reader.rate()


def _command(folder: Path, broker: brokers.Broker, names: dict[str, str], model: Path | None) -> Sequence[str]:
    if model is None:
        echo = str(PEERS / "mqtt_echo.py")
        return [sys.executable, echo, broker.host, str(broker.port), names["SOURCE"], names["SINK"]]
    ends = (queue("mqtt", broker.host, broker.port, topic) for topic in names.values())
    return [sys.executable, str(our_bundle(folder, model, *ends) / "main.py")]


def _wait_subscribed(client: Client, names: dict[str, str]) -> None:
    """One message goes through: it is there, and its broker knows it."""
    came = threading.Event()
    client.on_message = lambda *_: came.set()
    client.subscribe(names["SINK"], 0)

    def through() -> bool:
        client.publish(names["SOURCE"], b"[" + b",".join([b"1"] * 30) + b"]", 1)
        return came.wait(0.2)

    wait_for(through, 60, "a first answer")
    client.unsubscribe(names["SINK"])


def _fill(client: Client, topic: str, payload: bytes) -> None:
    for number in range(COUNT):
        sent = client.publish(topic, payload, 1)
        if number % 500 == 499:
            sent.wait_for_publish(30)
    sent.wait_for_publish(30)


class Reader:
    """Counts what comes; QoS 0, so that it costs the broker little."""

    def __init__(self, broker: brokers.Broker, topic: str) -> None:
        self._times: list[float] = []
        self._client = _connected(broker)
        self._client.on_message = lambda *_: self._times.append(time.monotonic())
        self._client.subscribe(topic, 0)

    def rate(self) -> float:
        """Between the tenth and the ninetieth hundredth of the messages."""
        wait_for(lambda: len(self._times) >= COUNT, 240, f"{COUNT} answers")
        self._client.disconnect()
        self._client.loop_stop()
        low, high = COUNT // 10, COUNT * 9 // 10
        return (high - low) / (self._times[high] - self._times[low])


def _connected(broker: brokers.Broker) -> Client:
    client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
    client.max_queued_messages_set(0)
    client.connect(broker.host, broker.port)
    client.loop_start()
    wait_for(client.is_connected, 10, "connected")
    return client
