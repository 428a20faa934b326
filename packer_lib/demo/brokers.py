"""The demo's two brokers: embedded ones, started and stopped with it, or real ones where a setting names them."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from uv import find_uv_bin

from packer_lib.demo import processes
from packer_lib.errors import MLPackerError

AMQTT_LOCK = Path(__file__).with_name("amqtt.lock")
READY_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Broker:
    """Where clients connect, and `what` that is for people; `process` is None for a real broker, which is not ours."""

    host: str
    port: int
    what: str
    process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    def stop(self) -> None:
        if self.process is not None:
            processes.stop(self.process)


def find_mosquitto(env: Mapping[str, str]) -> str | None:
    """Where mosquitto is; Debian puts it into a folder that is not on every PATH."""
    return shutil.which("mosquitto", path=f"{env.get('PATH', '')}:/usr/sbin")


def mqtt(state: Path, env: Mapping[str, str], mosquitto: str | None) -> Broker:
    """`MLPACKER__DEMO__MQTT`, else the program `mosquitto`, else (None) amqtt in an environment of its own."""
    if given := env.get("MLPACKER__DEMO__MQTT"):
        return _real("MQTT", given)
    port, log = free_port(), state / "logs" / "mqtt.log"
    if mosquitto:
        argv, what = _mosquitto(state, mosquitto, port), "mosquitto, memory only, for this demo"
    else:
        argv, what = _amqtt(state, port), "amqtt (MQTT 3.1.1), memory only, for this demo"
    return _started("127.0.0.1", port, what, processes.start(argv, env, log), log)


def kafka(state: Path, env: Mapping[str, str], topics: Sequence[str]) -> Broker:
    """`MLPACKER__DEMO__KAFKA`, else librdkafka's mock cluster; either way `topics` exist."""
    if given := env.get("MLPACKER__DEMO__KAFKA"):
        broker = _real("Kafka", given)
        create_topics(broker.address, topics)
        return broker
    address, log = state / "kafka.address", state / "logs" / "kafka.log"
    address.unlink(missing_ok=True)
    argv = [sys.executable, "-m", "packer_lib.demo.kafka_broker", "--address", str(address)]
    process = processes.start([*argv, *(f"--topic={topic}" for topic in topics)], env, log)
    processes.wait_until(lambda: address.exists() or process.poll() is not None, READY_SECONDS)
    host, port = parse(address.read_text(encoding="ascii")) if address.exists() else ("127.0.0.1", 0)
    return _started(host, port, "librdkafka's mock cluster, memory only, for this demo", process, log)


def parse(address: str) -> tuple[str, int]:
    """`host:port`; `ValueError` otherwise."""
    host, _, port = address.strip().rpartition(":")
    if not host or not port.isdigit():
        raise ValueError(f"{address!r} is not host:port")
    return host, int(port)


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def listening(host: str, port: int) -> bool:
    """Whether somebody accepts connections there."""
    try:
        with socket.create_connection((host, port), timeout=2):
            return True
    except OSError:
        return False


def create_topics(address: str, topics: Sequence[str]) -> None:
    """Those of `topics` that a real broker lacks, with one partition each, so that records stay in order."""
    from confluent_kafka import KafkaError, KafkaException
    from confluent_kafka.admin import AdminClient, NewTopic

    admin = AdminClient({"bootstrap.servers": address})  # has to live as long as its futures
    wanted = [NewTopic(topic, num_partitions=1, replication_factor=1) for topic in topics]
    for topic, future in admin.create_topics(wanted, operation_timeout=10).items():
        try:
            future.result(timeout=15)
        except KafkaException as failed:
            if failed.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                reason = failed.args[0].str()
                raise MLPackerError(f"Kafka at {address} did not create topic {topic!r}: {reason}") from None


def _real(kind: str, address: str) -> Broker:
    setting = f"MLPACKER__DEMO__{kind.upper()}"
    try:
        host, port = parse(address)
    except ValueError as wrong:
        remedy = f"write {setting}=broker.example.org:1883, or leave it out"
        raise MLPackerError(f"{setting}: {wrong}", remedy) from None
    if not listening(host, port):
        remedy = "start the broker, or leave the setting out for an embedded one"
        raise MLPackerError(f"{setting}: nobody listens at {address}", remedy)
    return Broker(host, port, f"yours, from {setting}")


def _started(host: str, port: int, what: str, process: subprocess.Popen[bytes], log: Path) -> Broker:
    broker = Broker(host, port, what, process)
    processes.wait_until(lambda: process.poll() is not None or listening(host, port), READY_SECONDS)
    if process.poll() is not None or not listening(host, port):
        broker.stop()
        last = "\n  ".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-5:])
        raise MLPackerError(f"the embedded broker did not start ({what}):\n  {last}", f"see {log}")
    return broker


def _mosquitto(state: Path, program: str, port: int) -> list[str]:
    """Loopback only and anonymous; no bound on waiting messages, since the default of 1000 drops the rest silently."""
    file = state / "mosquitto.conf"
    lines = [f"listener {port} 127.0.0.1", "allow_anonymous true", "persistence false", "max_queued_messages 0"]
    if os.geteuid() == 0:  # it would change to a user that may not be there
        lines.append("user root")
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return [program, "-c", str(file)]


def _amqtt(state: Path, port: int) -> list[str]:
    """Its own environment, since it pins a library that the units need in a newer version."""
    python = state / "amqtt" / "bin" / "python"
    if not python.exists():
        _run(find_uv_bin(), "venv", "--quiet", "--clear", "--python", sys.executable, str(state / "amqtt"))
    _run(find_uv_bin(), "pip", "sync", "--quiet", "--require-hashes", "--python", str(python), str(AMQTT_LOCK))
    file = state / "amqtt.yaml"
    file.write_text(
        f"listeners: {{default: {{type: tcp, bind: '127.0.0.1:{port}'}}}}\n"
        "plugins: {amqtt.plugins.authentication.AnonymousAuthPlugin: {allow_anonymous: true}}\n",
        encoding="utf-8",
    )
    return [str(python.with_name("amqtt")), "-c", str(file)]


def _run(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        raise MLPackerError(f"{' '.join(argv[:3])} failed:\n{done.stderr.strip()}", "is the package index reachable?")
