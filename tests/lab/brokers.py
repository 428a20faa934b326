"""Real brokers for tests, benchmarks and by hand: mosquitto, and Kafka from Maven's jars; each its own process group.

python -m tests.lab.brokers fetch      the jars of Kafka into .lab/kafka/libs (43 MB, once)
python -m tests.lab.brokers            starts both, prints their addresses, stops them on Ctrl-C
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from string import Template

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent / "kafka"
LIBS = ROOT / ".lab" / "kafka" / "libs"
SETUP = "as root on Debian `make test` installs it; else apt-get install"

MOSQUITTO = """\
listener {port} 127.0.0.1
allow_anonymous true
persistence true
persistence_location {folder}/
autosave_interval 1
autosave_on_changes true
max_queued_messages 0
max_queued_bytes 268435456
max_inflight_messages 100
log_dest stderr
"""

# Of two lines for one setting the later one counts. A killed broker is let in again when its session is over.
TWO_DOORS = """
listeners=PLAINTEXT://127.0.0.1:${port},OTHER://127.0.0.1:${other},CONTROLLER://127.0.0.1:${controller}
advertised.listeners=PLAINTEXT://127.0.0.1:${port},OTHER://127.0.0.1:${seen_at}
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,OTHER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
group.min.session.timeout.ms=1000
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=300
"""


class CannotStart(Exception):
    """A broker did not come up; the text ends with what it said."""


@dataclass
class Broker:
    """A broker process that can be stopped and started again on the same port with the same data."""

    name: str
    port: int
    folder: Path
    command: Sequence[str]
    ready: Callable[[int], bool]
    host: str = "127.0.0.1"
    other: int = 0  # a second port, of a proxy's side
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    def start(self, seconds: float = 120.0) -> None:
        """Returns when it answers; `CannotStart` with its last words otherwise."""
        log = self.folder / "log.txt"
        with log.open("ab") as output:
            self.process = subprocess.Popen(self.command, stdout=output, stderr=output, start_new_session=True)
        deadline = time.monotonic() + seconds
        while not self.ready(self.port):
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop(signal.SIGKILL)
                raise CannotStart(f"{self.name} on {self.address}:\n{log.read_text(errors='replace')[-3000:]}")
            time.sleep(0.05)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Signals the process group and waits; SIGKILL after ten seconds."""
        process, self.process = self.process, None
        if process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(process.pid, how)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)


@contextmanager
def mosquitto(extra: str = "") -> Iterator[Broker]:
    """A mosquitto that keeps what it has confirmed; `extra` are further lines of its configuration."""
    program = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
    if program is None:
        raise CannotStart(f"no mosquitto: {SETUP} mosquitto")
    with _folder() as folder:
        port = _free_port()
        config = folder / "mosquitto.conf"
        user = "user root\n" if os.geteuid() == 0 else ""
        config.write_text(user + MOSQUITTO.format(port=port, folder=folder) + extra)
        with _running(Broker("mosquitto", port, folder, (program, "-c", str(config)), _answers)) as broker:
            yield broker


@contextmanager
def kafka(seen_at: int = 0) -> Iterator[Broker]:
    """A Kafka broker (KRaft, one node); 5 to 10 s to start. Topics are not made by asking for them.

    Who asks it by its second listener, which its `other` says, is told to come by the port `seen_at`: a proxy's.
    """
    if not kafka_fetched():
        raise CannotStart("no Kafka jars: python -m tests.lab.brokers fetch (needs Java 17 and Maven)")
    with _folder() as folder:
        port, controller, other = _free_port(), _free_port(), _free_port()
        config = folder / "server.properties"
        text = Template((HERE / "server.properties").read_text())
        ports = {"port": port, "controller": controller, "other": other, "seen_at": seen_at or other}
        config.write_text(text.substitute(ports, data=folder / "data") + Template(TWO_DOORS).substitute(ports))
        _java(
            folder,
            "kafka.tools.StorageTool",
            "format",
            "-t",
            "bWxwYWNrZXItbGFiLWthZg",
            "-c",
            str(config),
            "--standalone",
        )
        command = (*_java_command(), "-Xmx768m", "kafka.Kafka", str(config))
        with _running(Broker("kafka", port, folder, command, _serves_kafka, other=other)) as broker:
            yield broker


def kafka_fetched() -> bool:
    """Whether Java is there and the jars have been fetched."""
    return shutil.which("java") is not None and any(LIBS.glob("kafka_2.13-*.jar"))


def fetch_kafka() -> None:
    """Maven copies the jars into `LIBS`; all or nothing, so that half a download is not taken for a whole one."""
    LIBS.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=LIBS.parent) as temporary:
        target = Path(temporary) / "libs"
        goal = ("dependency:copy-dependencies", f"-DoutputDirectory={target}", "-DincludeScope=runtime")
        done = subprocess.run(
            ("mvn", "-q", "-B", "-f", str(HERE / "pom.xml"), *goal), capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise CannotStart(f"mvn could not fetch Kafka:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        shutil.rmtree(LIBS, ignore_errors=True)
        target.rename(LIBS)


def _java_command() -> tuple[str, ...]:
    return ("java", "-cp", f"{LIBS}/*", f"-Dlog4j2.configurationFile={HERE / 'log4j2.properties'}")


def _java(folder: Path, *arguments: str) -> None:
    done = subprocess.run((*_java_command(), *arguments), cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CannotStart(f"{' '.join(arguments)}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


@contextmanager
def _running(broker: Broker) -> Iterator[Broker]:
    broker.start()
    try:
        yield broker
    finally:
        broker.stop()


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="mlpacker-lab-", ignore_cleanup_errors=True) as name:
        yield Path(name)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _answers(port: int, host: str = "127.0.0.1") -> bool:
    with suppress(OSError), socket.create_connection((host, port), 1):
        return True
    return False


def _serves_kafka(port: int) -> bool:
    return serves_kafka("127.0.0.1", port)


def serves_kafka(host: str, port: int) -> bool:
    """Its port opens before it can serve: ask for the topics."""
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    if not _answers(port, host):
        return False
    try:
        AdminClient({"bootstrap.servers": f"{host}:{port}", "log_level": 0}).list_topics(timeout=2)
    except KafkaException:
        return False
    return True


def main(arguments: Sequence[str]) -> None:
    if list(arguments) == ["fetch"]:
        if not kafka_fetched():
            fetch_kafka()
        print(LIBS)
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with ExitStack() as stack, suppress(KeyboardInterrupt):
        for start in (mosquitto, kafka):
            broker = stack.enter_context(start())
            print(f"{broker.name} {broker.address}", flush=True)
        signal.pause()


if __name__ == "__main__":
    main(sys.argv[1:])
