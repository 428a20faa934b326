"""librdkafka's own test cluster as a process: it speaks Kafka, and gives the errors it is told to give.

python -m tests.stream_faults.mock_cluster      says `host:port`; then takes lines `errors API CODE COUNT`, `clear API`,
                                                `rtt MS`, `topic NAME PARTITIONS`, and answers each with `ok`
"""

from __future__ import annotations

import ctypes
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import confluent_kafka

from tests.support import ROOT

APIS = {
    "Produce": 0,
    "Fetch": 1,
    "Metadata": 3,
    "OffsetCommit": 8,
    "FindCoordinator": 10,
    "JoinGroup": 11,
    "Heartbeat": 12,
    "TxnOffsetCommit": 28,
}
PRODUCER = 0


def library() -> ctypes.CDLL:
    """The librdkafka that came with confluent-kafka."""
    folder = Path(confluent_kafka.__file__).parent.with_name("confluent_kafka.libs")
    found = ctypes.CDLL(str(next(folder.glob("librdkafka-*.so*"))))
    found.rd_kafka_new.restype = found.rd_kafka_conf_new.restype = ctypes.c_void_p
    found.rd_kafka_mock_cluster_new.restype = ctypes.c_void_p
    found.rd_kafka_mock_cluster_bootstraps.restype = ctypes.c_char_p
    return found


class Cluster:
    """One broker, in this process."""

    def __init__(self) -> None:
        self._library = library()
        reason = ctypes.create_string_buffer(512)
        handle = self._library.rd_kafka_new(
            PRODUCER, ctypes.c_void_p(self._library.rd_kafka_conf_new()), reason, ctypes.c_size_t(512)
        )
        assert handle, reason.value
        self._made = ctypes.c_void_p(self._library.rd_kafka_mock_cluster_new(ctypes.c_void_p(handle), 1))

    @property
    def address(self) -> str:
        text: bytes = self._library.rd_kafka_mock_cluster_bootstraps(self._made)
        return text.decode()

    def errors(self, api: str, code: str, count: str) -> None:
        """The next `count` answers to requests of this kind are the error `code`."""
        codes = (ctypes.c_int * int(count))(*[int(code)] * int(count))
        self._library.rd_kafka_mock_push_request_errors_array(
            self._made, ctypes.c_int16(APIS[api]), ctypes.c_size_t(int(count)), codes
        )

    def clear(self, api: str) -> None:
        """No more errors to requests of this kind."""
        self._library.rd_kafka_mock_clear_request_errors(self._made, ctypes.c_int16(APIS[api]))

    def rtt(self, milliseconds: str) -> None:
        """Every answer takes so long."""
        self._library.rd_kafka_mock_broker_set_rtt(self._made, ctypes.c_int32(-1), int(milliseconds))

    def topic(self, name: str, partitions: str) -> None:
        self._library.rd_kafka_mock_topic_create(self._made, name.encode(), int(partitions), 1)


@dataclass
class Mock:
    """A cluster in a process of its own."""

    port: int
    process: subprocess.Popen[str]

    def tell(self, *words: object) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(*words, file=self.process.stdin, flush=True)
        assert self.process.stdout.readline().strip() == "ok"


@contextmanager
def mock() -> Iterator[Mock]:
    process = subprocess.Popen(
        (sys.executable, "-m", "tests.stream_faults.mock_cluster"),
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield Mock(int(process.stdout.readline().rpartition(":")[2]), process)
    finally:
        process.kill()
        process.wait(10)


def main() -> None:
    cluster = Cluster()
    print(cluster.address.partition(",")[0], flush=True)
    for line in sys.stdin:
        what, *words = line.split()
        getattr(cluster, what)(*words)
        print("ok", flush=True)


if __name__ == "__main__":
    main()
