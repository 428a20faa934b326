"""A Kafka-compatible broker for demos: librdkafka's own mock cluster, through `ctypes`, as a process of its own.

    python -m packer_lib.demo.kafka_broker --address FILE --topic metrics --topic anomalies

It speaks the protocol to any client, keeps everything in memory (5 MB a partition, oldest dropped first) and shows
aborted transactions: good for a demo and quick tests, no evidence about a real broker.
The functions are those of librdkafka's `src/rdkafka_mock.h`.
"""

from __future__ import annotations

import argparse
import ctypes
import signal
import sys
from pathlib import Path
from typing import Any

PRODUCER = 0  # rd_kafka_type_t


def library() -> Any:
    """librdkafka as the confluent_kafka wheel has it, reached through the extension that is linked to it."""
    from confluent_kafka import cimpl

    lib = ctypes.CDLL(cimpl.__file__)
    pointer, text, number, size = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_size_t
    for name, result, arguments in (
        ("rd_kafka_conf_new", pointer, []),
        ("rd_kafka_new", pointer, [number, pointer, text, size]),
        ("rd_kafka_mock_cluster_new", pointer, [pointer, number]),
        ("rd_kafka_mock_cluster_bootstraps", text, [pointer]),
        ("rd_kafka_mock_topic_create", number, [pointer, text, number, number]),
        ("rd_kafka_mock_group_initial_rebalance_delay_ms", None, [pointer, ctypes.c_int32]),
        ("rd_kafka_mock_cluster_destroy", None, [pointer]),
        ("rd_kafka_destroy", None, [pointer]),
    ):
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    return lib


class MockCluster:
    """One broker on a free port of 127.0.0.1 until `close`; `address` is `host:port`."""

    def __init__(self, topics: list[str]) -> None:
        self._lib = library()
        reason = ctypes.create_string_buffer(512)
        self._client = self._lib.rd_kafka_new(PRODUCER, self._lib.rd_kafka_conf_new(), reason, len(reason))
        if not self._client:
            raise OSError(f"librdkafka did not start: {reason.value.decode()}")
        self._cluster = self._lib.rd_kafka_mock_cluster_new(self._client, 1)
        if not self._cluster:
            raise OSError("librdkafka could not start its mock cluster; is 127.0.0.1 up, and are there free ports?")
        # A real broker waits for more members before the first assignment; here the first one is the only one.
        self._lib.rd_kafka_mock_group_initial_rebalance_delay_ms(self._cluster, 0)
        for topic in topics:
            self._create(topic)
        self.address: str = self._lib.rd_kafka_mock_cluster_bootstraps(self._cluster).decode()

    def _create(self, topic: str) -> None:
        """One partition, so that records stay in order."""
        if code := self._lib.rd_kafka_mock_topic_create(self._cluster, topic.encode(), 1, 1):
            raise OSError(f"topic {topic!r} was not created: librdkafka error {code}")

    def close(self) -> None:
        self._lib.rd_kafka_mock_cluster_destroy(self._cluster)
        self._lib.rd_kafka_destroy(self._client)


def main(argv: list[str] | None = None) -> int:
    """Serves until SIGTERM or Ctrl-C; the address file appears when clients may come."""
    parser = argparse.ArgumentParser(prog="python -m packer_lib.demo.kafka_broker", description=__doc__.splitlines()[0])
    parser.add_argument("--address", type=Path, required=True, metavar="FILE", help="host:port is written there")
    parser.add_argument("--topic", action="append", default=[], help="created at start, with one partition")
    options = parser.parse_args(argv)
    signals = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # before librdkafka's threads start, so that they inherit it
    cluster = MockCluster(options.topic)
    waiting = options.address.with_suffix(".new")
    waiting.write_text(cluster.address, encoding="ascii")
    waiting.rename(options.address)
    signal.sigwait(signals)
    cluster.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
