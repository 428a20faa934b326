"""MQTT 5 with manual acknowledgement, 3.1.1 where the broker speaks no more; paho-mqtt.

Options of a queue: `qos` (default 1; 2 for sending only), `protocol` ("5" or "3.1.1"; without it 3.1.1 is the
fallback), `tls`, `username` and `pass_env`, and under `config`: `keepalive`, `session_expiry` and `connect_timeout`
(seconds), `receive_maximum` (messages taken in and not acknowledged), `max_inflight` (sent and not confirmed),
`max_packet_size` (bytes), `watch_dropped` (the source asks mosquitto how many messages it dropped, for `/metrics`).

Key and headers travel as user properties of MQTT 5, the key as `mlpacker-key`; what is not printable UTF-8 in base64
under `name;base64`; the header `content-type` is MQTT's own property of that name. MQTT 3.1.1 has no place for them.

Replicas of a unit share one subscription, `$share/<unit>/<topic>` (MQTT 5, section 4.8.2; many brokers know it in 3.1.1
too). The broker keeps what it gave to a replica for that replica until it is back, so one that is taken away for good
has to `retire`. When a unit gets replicas or loses them, the first goes on in the session it had and gives up its
former subscription: it is to be there before the others.
"""

from __future__ import annotations

import base64
import logging
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from paho.mqtt.client import MQTT_ERR_SUCCESS, Client, MQTTMessage
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from .. import metrics
from ..contract import ALONE, ConnectionFailed, DeliveryFailed, Message, MessageRefused, Replica, Sink, Source
from ..manifest import QueueSpec
from .mqtt_session import Session, client_id

log = logging.getLogger("mlpacker.mqtt")

KEY = "mlpacker-key"
CONTENT = "content-type"
HEADER_MOST = 48_000  # bytes of a value: a text in MQTT has 65 535, which may have to be base64
BASE64 = ";base64"
DROPPED = "$SYS/broker/publish/messages/dropped"  # how many of all topics; mosquitto says it when it changes


class Mqtt:
    @staticmethod
    def source(queue: QueueSpec, name: str, replica: Replica = ALONE) -> Source:
        return MqttSource(queue, name, replica)

    @staticmethod
    def sink(queue: QueueSpec, name: str, replica: Replica = ALONE) -> Sink:
        return MqttSink(queue, name, replica)


class MqttSource(Source):
    """A session that the broker keeps: what is not acknowledged comes again, in order, when it is taken up anew."""

    def __init__(self, queue: QueueSpec, name: str, replica: Replica) -> None:
        self._queue = queue
        shared = f"$share/{_group(name)}/{queue.topic}"
        self._topic, self._former = (shared, queue.topic) if replica.of > 1 else (queue.topic, shared)
        self._session = Session(queue, client_id(queue, name, "in" + replica.suffix), keep=True)
        self._inbox: deque[Message] = deque()
        self._granted: list[ReasonCode] = []
        self._acked = False

    def connect(self) -> None:
        self._inbox.clear()
        self._granted = []
        self._session.open(self._prepare)
        self._subscribe()

    def _prepare(self, client: Client) -> None:
        client.on_message, client.on_subscribe = self._on_message, self._on_subscribe

    def _subscribe(self) -> None:
        """A retained message comes with the first subscription only (`retainHandling` 1), not with every reconnect.

        Never with QoS 2: there a message is the client's to keep before it is done, and a killed client keeps nothing.
        MQTT has no step from one subscription to another: what comes while both are there comes twice. So the former is
        given up in the same breath, not an answer later; where the broker refuses the new one, it is asked for again.
        """
        session, qos = self._session, min(1, self._queue.options.get("qos", 1))
        options = SubscribeOptions(qos, retainHandling=1) if session.v5 else qos
        wanted: list[Any] = [(self._topic, options)]
        if session.options["watch_dropped"]:
            wanted.append((DROPPED, SubscribeOptions() if session.v5 else 0))
        if self._topic.startswith("$share/") and not session.shares:
            raise ConnectionFailed(f"{session.place} knows no shared subscriptions (take 'replicas' out)")
        with session.turn:
            session.client.subscribe(wanted)
            if session.known:
                session.client.unsubscribe(self._former)
        session.wait(lambda: self._granted, session.options["connect_timeout"])
        if not self._granted or self._granted[0].is_failure:
            reason = self._granted[0] if self._granted else session.lost or "no answer"
            if session.known and not session.lost:
                with session.turn:
                    session.client.subscribe([(self._former, options)])
            raise ConnectionFailed(f"{session.place} refuses topic {self._topic!r}: {reason} (look at its ACL)")
        if self._granted[0].value < qos:
            log.warning("%s grants QoS %d, not %d: messages may be lost", session.place, self._granted[0].value, qos)

    def _on_subscribe(
        self, _client: Client, _data: Any, _mid: int, granted: list[ReasonCode], _properties: Properties | None
    ) -> None:
        self._granted = granted

    def _on_message(self, _client: Client, _data: Any, message: MQTTMessage) -> None:
        """Paho's own message goes at once: kept until its batch is done, its properties alone, some 5 kB of small
        objects each, took longer than the rest, for then every message gets memory that no cache holds."""
        if message.topic == DROPPED:
            metrics.BROKER_DROPPED.labels(self._queue.id).set(float(message.payload))
            return
        self._inbox.append(_message(message))

    def consume(self, max_items: int, timeout: float) -> list[Message]:
        """What came before the connection was lost is not handed out: it could not be acknowledged any more."""
        session, inbox = self._session, self._inbox
        session.wait(lambda: inbox, timeout)
        session.client  # noqa: B018 - raises once the connection is lost
        return [inbox.popleft() for _ in range(min(max_items, len(inbox)))]

    def ack(self, messages: Sequence[Message]) -> None:
        client = self._session.client
        with self._session.turn:
            for message in messages:
                mid, qos = message.token
                if client.ack(mid, qos) != MQTT_ERR_SUCCESS:
                    raise ConnectionFailed(f"{self._session.place}: connection lost while acknowledging")
        self._acked = bool(messages)

    def lag(self) -> int:
        """Messages that were taken in; how many more the broker holds it does not say."""
        return len(self._inbox)

    def retire(self) -> bool:
        with self._session.turn:
            self._session.client.unsubscribe(self._topic)
        self._session.settle()
        self._session.ends = True
        return True

    def close(self) -> None:
        """A broker drops what it has not read yet when the same client comes back: so its answer is waited for."""
        if self._acked:
            self._session.settle()
        self._acked = False
        self._session.close()


def _group(name: str) -> str:
    """A share's name must not have what means something in a topic (MQTT 5, section 4.8.2)."""
    return name.translate(str.maketrans("/+#", "___"))


def _message(item: MQTTMessage) -> Message:
    headers = _headers(getattr(item.properties, "UserProperty", ()))
    if content := getattr(item.properties, "ContentType", ""):
        headers[CONTENT] = content.encode()
    return Message(
        bytes(item.payload), headers.pop(KEY, None), headers, f"{item.topic} #{item.mid}", (item.mid, item.qos)
    )


def _headers(properties: Sequence[tuple[str, str]]) -> dict[str, bytes]:
    return dict(_header(name, value) for name, value in properties)


def _header(name: str, value: str) -> tuple[str, bytes]:
    """What somebody else called `…;base64` though it is none stays as it came."""
    if name.endswith(BASE64):
        with suppress(ValueError):
            return name.removesuffix(BASE64), base64.b64decode(value, validate=True)
    return name, value.encode()


class Packed(Properties):
    """Properties that are turned into bytes once, for all the messages that share them."""

    def __init__(self, properties: Properties) -> None:
        super().__init__(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        packed = properties.pack()  # type: ignore[no-untyped-call]
        object.__setattr__(self, "pack", lambda: packed)  # it takes no other attributes than MQTT's


def _user_properties(key: bytes | None, headers: Mapping[str, bytes]) -> Properties:
    """Brokers hang up on control characters in a text (MQTT 5, section 1.5.4), so that these travel in base64."""
    pairs = []
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    for name, value in [*headers.items(), *([(KEY, key)] if key is not None else [])]:
        text = value.decode("utf-8", "replace")
        if name == CONTENT and text.isascii() and text.isprintable():
            properties.ContentType = text
        elif text.isprintable() and text.encode() == value:
            pairs.append((name, text))
        else:
            pairs.append((name + BASE64, base64.b64encode(value).decode()))
    if pairs:
        properties.UserProperty = pairs
    return Packed(properties)


class MqttSink(Sink):
    """`flush` returns when the broker has confirmed every message (PUBACK; PUBCOMP for QoS 2; QoS 0: when sent)."""

    def __init__(self, queue: QueueSpec, name: str, replica: Replica) -> None:
        self._queue, self._qos = queue, queue.options.get("qos", 1)
        self._session = Session(queue, client_id(queue, name, "out" + replica.suffix), keep=False)
        self._open, self._refused = 0, ""
        self._last: tuple[Mapping[str, bytes] | None, Properties | None] = None, None

    def connect(self) -> None:
        self._open, self._refused = 0, ""
        self._session.open(self._prepare)

    def _prepare(self, client: Client) -> None:
        client.on_publish = self._on_publish

    def _on_publish(
        self, _client: Client, _data: Any, _mid: int, reason: ReasonCode, _properties: Properties | None
    ) -> None:
        self._open -= 1
        if reason.is_failure:
            self._refused = str(reason)

    def produce(self, messages: Sequence[Message]) -> None:
        try:
            client = self._session.client
        except ConnectionFailed as error:
            raise DeliveryFailed(str(error)) from None
        topic, qos, window = self._queue.topic, self._qos, self._session.window
        with self._session.turn:
            for message in messages:
                self._check_size(message)
                if self._open >= window:  # then half of it is waited for, as each waiting costs the same
                    self._wait(window // 2, None)
                self._open += 1
                if client.publish(topic, message.value, qos, properties=self._properties(message)).rc:
                    raise self._failure("connection lost")

    def _properties(self, message: Message) -> Properties | None:
        """Made once for messages that share their headers, as those of a batch do."""
        if not self._session.v5 or not (message.headers or message.key is not None):
            return None
        if message.key is not None:
            return _user_properties(message.key, message.headers)
        headers, properties = self._last
        if headers is not message.headers:
            properties = _user_properties(None, message.headers)
            self._last = message.headers, properties
        return properties

    def _check_size(self, message: Message) -> None:
        """A broker hangs up on a packet that is too large; key and headers are counted in by their text."""
        if self._session.v5:
            for name, value in {**message.headers, KEY: message.key or b""}.items():
                if len(value) > HEADER_MOST or not name.isprintable():
                    text = f"header {name[:80]!r} of {len(value)} bytes; MQTT carries {HEADER_MOST}, by printable names"
                    raise MessageRefused(message, text)
        extra = sum(len(name) + len(value) for name, value in message.headers.items()) + len(message.key or b"")
        if len(message.value) + len(self._queue.topic) + extra + 32 > self._session.max_packet:
            text = f"{len(message.value)} bytes, {self._session.place} takes packets of {self._session.max_packet}"
            raise MessageRefused(message, text)

    def flush(self, timeout: float) -> None:
        self._wait(0, timeout)

    def _wait(self, most: int, timeout: float | None) -> None:
        """Until at most `most` messages are unconfirmed."""
        session = self._session
        if not session.wait(lambda: self._open <= most or self._refused, timeout) or self._refused:
            raise self._failure(self._refused or session.lost or f"no answer in {timeout} s")

    def _failure(self, reason: str) -> DeliveryFailed:
        return DeliveryFailed(f"not delivered to {self._session.place}, topic {self._queue.topic!r}: {reason}")

    def close(self) -> None:
        self._session.close()
