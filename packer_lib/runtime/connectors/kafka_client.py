"""What the source and the sink of `kafka` share: configuration, the broker's health, and the topic; confluent-kafka."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Collection, Mapping
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic

from .. import metrics
from ..contract import ConnectionFailed
from ..manifest import QueueSpec

log = logging.getLogger("mlpacker.kafka")

CONNECT_SECONDS = 5.0
ANSWER_MS = 12_000  # how long an answer may take; librdkafka's own minute is what a dead connection waits
MAX_BYTES = 1_048_588  # Kafka's own default
STATISTICS_MS = 5_000
MENDED = {"txretries": "REPEATED", "req_timeouts": "NO_ANSWER_IN_TIME"}  # librdkafka's name → ours
LOST = {KafkaError._ALL_BROKERS_DOWN, KafkaError._AUTHENTICATION, KafkaError._SSL, KafkaError._FATAL}


def config_of(queue: QueueSpec, name: str, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Defaults under the user's own `config`. librdkafka's log is silent, for what it says arrives as errors too."""
    options = queue.options
    config: dict[str, Any] = {
        "bootstrap.servers": f"{queue.server}:{queue.port}",
        "client.id": name,
        "log_level": 0,
        "socket.timeout.ms": ANSWER_MS,
        "socket.keepalive.enable": True,
        "statistics.interval.ms": STATISTICS_MS,
        **defaults,
    }
    if options.get("tls"):
        config["security.protocol"] = "SSL"
    if options.get("username"):
        config["security.protocol"] = "SASL_SSL" if options.get("tls") else "SASL_PLAINTEXT"
        config |= {"sasl.mechanism": "PLAIN", "sasl.username": options["username"], "sasl.password": _password(queue)}
    config |= options.get("config", {})
    if "transaction.timeout.ms" in config:  # librdkafka takes no transaction that ends before an answer has to be there
        config["socket.timeout.ms"] = min(config["socket.timeout.ms"], config["transaction.timeout.ms"])
    return config


def _password(queue: QueueSpec) -> str:
    name = queue.options.get("pass_env", "")
    if name not in os.environ:
        raise ConnectionFailed(f"{place(queue)}: no password: environment variable {name!r} (pass_env) is not set")
    return os.environ[name]


def place(queue: QueueSpec) -> str:
    return f"kafka broker {queue.server}:{queue.port}"


def unreachable(queue: QueueSpec, reason: str) -> ConnectionFailed:
    return ConnectionFailed(f"cannot reach {place(queue)}: {reason} (is it running? is the address right?)")


class Health:
    """Remembers the last error after which a client is of no use; librdkafka reports it while the client is polled.

    Counts all errors of `queue`, and of those that the client mends by itself, which arrive in its statistics only, how
    often it had to.
    """

    def __init__(self, queue: str = "") -> None:
        self.error, self._since = "", 0.0
        self._queue = queue
        self._mended = dict.fromkeys(MENDED, 0)

    @property
    def callbacks(self) -> dict[str, Any]:
        """For the client's configuration."""
        return {"error_cb": self, "stats_cb": self.observe}

    def count(self, error: str, times: int = 1) -> None:
        if self._queue:
            metrics.BROKER_ERRORS.labels(self._queue, error).inc(times)

    def observe(self, statistics: str) -> None:
        brokers = json.loads(statistics)["brokers"].values()
        for kind, name in MENDED.items():
            total = sum(broker[kind] for broker in brokers)
            if total > self._mended[kind]:
                self.count(name, total - self._mended[kind])
            self._mended[kind] = total

    def __call__(self, error: KafkaError) -> None:
        self.count(error.name())
        if error.code() in LOST:
            self._since = self._since if self.error else time.monotonic()
            self.error = error.str()

    def lasts(self, seconds: float) -> bool:
        return bool(self.error) and time.monotonic() - self._since > seconds

    def clear(self) -> None:
        self.error = ""


def require_answer(client: Consumer | Producer, queue: QueueSpec, health: Health) -> None:
    """Nothing came, and `health` knows of an error: `ConnectionFailed` when the broker does not answer either. An idle
    connection that it closed looks like a broker that is down, and the error is told once, maybe among messages."""
    try:
        client.list_topics(queue.topic, timeout=2)
    except KafkaException:
        raise unreachable(queue, health.error) from None
    health.clear()


def prepare(queue: QueueSpec, config: Mapping[str, Any]) -> int:
    """The broker answers and the topic is there, made if need be; else `ConnectionFailed`.

    The size in bytes up to which the topic takes messages; the broker's default where it does not tell.
    """
    health = Health()
    admin = AdminClient({key: config[key] for key in config if key in _shared(config)} | {"error_cb": health})
    if queue.topic not in _topics(queue, admin, health):
        _create(queue, admin)
    return _max_bytes(queue, admin)


def _max_bytes(queue: QueueSpec, admin: AdminClient) -> int:
    """Known beforehand, what is too large is refused by itself; else the broker refuses a whole batch for it."""
    resource = ConfigResource(ConfigResource.Type.TOPIC, queue.topic)
    try:
        settings = admin.describe_configs([resource], request_timeout=CONNECT_SECONDS)[resource].result(CONNECT_SECONDS)
        return int(settings["max.message.bytes"].value)
    except (KafkaException, TimeoutError):
        return MAX_BYTES


def _topics(queue: QueueSpec, admin: AdminClient, health: Health) -> Collection[str]:
    """Asked in short turns, for what a refused connection means is heard only in between."""
    deadline = time.monotonic() + CONNECT_SECONDS
    while True:
        try:
            topics: Collection[str] = admin.list_topics(timeout=0.5).topics
            return topics
        except KafkaException as error:
            admin.poll(0)
            if health.error or time.monotonic() > deadline:
                raise unreachable(queue, health.error or error.args[0].str()) from None


def _shared(config: Mapping[str, Any]) -> set[str]:
    """What an admin client understands too: address, name, security."""
    kinds = ("bootstrap.", "client.", "security.", "sasl.", "ssl.", "socket.", "broker.address", "log_level")
    return {key for key in config if key.startswith(kinds)}


def _create(queue: QueueSpec, admin: AdminClient) -> None:
    remedy = f"create it: kafka-topics.sh --bootstrap-server {queue.server}:{queue.port} --create --topic {queue.topic}"
    if not queue.options.get("create_topic", True):
        raise ConnectionFailed(f"{place(queue)} has no topic {queue.topic!r}, and create_topic is false ({remedy})")
    try:
        admin.create_topics([NewTopic(queue.topic)])[queue.topic].result(CONNECT_SECONDS)
        log.info("%s had no topic %r: created with the broker's defaults", place(queue), queue.topic)
        _await_topic(queue, admin)
    except TimeoutError:
        raise unreachable(queue, f"no answer when told to make topic {queue.topic!r}") from None
    except KafkaException as error:
        if error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS:
            return
        reason = error.args[0].str()
        raise ConnectionFailed(
            f"{place(queue)} has no topic {queue.topic!r}, cannot make it: {reason} ({remedy})"
        ) from None


def _await_topic(queue: QueueSpec, admin: AdminClient) -> None:
    """The controller has made it; a moment later the broker that we talk to has heard of it."""
    deadline = time.monotonic() + CONNECT_SECONDS
    while queue.topic not in admin.list_topics(timeout=CONNECT_SECONDS).topics:
        if time.monotonic() > deadline:
            raise ConnectionFailed(f"{place(queue)} was told to make topic {queue.topic!r} and does not show it yet")
        time.sleep(0.05)
