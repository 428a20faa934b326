"""What goes wrong between a Kafka client and its broker is counted, also where the client mends it by itself."""

from __future__ import annotations

import json

from confluent_kafka import KafkaError
from prometheus_client import REGISTRY

from packer_lib.runtime.connectors.kafka_client import Health


def counted(queue: str, error: str) -> float:
    return REGISTRY.get_sample_value("mlpacker_broker_errors_total", {"queue": queue, "error": error}) or 0.0


def statistics(*repeated: int) -> str:
    return json.dumps(
        {"brokers": {str(n): {"txretries": count, "req_timeouts": 0} for n, count in enumerate(repeated)}}
    )


def test_repeated_requests_are_counted_as_they_add_up_over_all_brokers() -> None:
    health = Health("mended")
    for told in (statistics(1, 0), statistics(1, 2), statistics(1, 2)):
        health.observe(told)
    assert counted("mended", "REPEATED") == 3
    health.observe(statistics(0))  # that broker was forgotten, and its count with it
    health.observe(statistics(2))
    assert counted("mended", "REPEATED") == 5
    assert counted("mended", "NO_ANSWER_IN_TIME") == 0


def test_an_error_has_its_name_and_those_of_nobodys_queue_are_not_counted() -> None:
    for queue in ("named", ""):
        Health(queue)(KafkaError(KafkaError._TRANSPORT))
    assert counted("named", "_TRANSPORT") == 1
    assert counted("", "_TRANSPORT") == 0
