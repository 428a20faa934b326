"""Streams beside what a user would otherwise run, in one run on real brokers; `make bench-stream`.

kafka       Kafka → Kafka: passing bytes, one by one, Quix Streams, FastStream, exactly once; latency
replicas    two processes of one unit beside one
mqtt        MQTT → MQTT beside a paho loop that echoes
websocket   WebSocket → WebSocket beside an echo of the websockets library
lstm        an LSTM autoencoder beside `model.predict` for each message
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.benchmarks.streams import kafka, lstm, mqtt, replicas, websocket
from tests.lab import brokers

WHAT = """\
Our figure is that of a whole unit: checks, metrics, acknowledgements and the header that says which model answered.
Each round measures everybody once; the figures are medians of the rounds.

- **Kafka → Kafka**: 30 floats as JSON in, scikit-learn's scaler and logistic regression, its answer out; one process,
  one partition, a real broker beside it on the same two cores. Everybody acknowledges as we must: produce, flush, then
  commit. `pass through` hands on bytes by batches of 2000 and predicts nothing, `quix pass` JSON.
- **Exactly once** is the same unit with `delivery: exactly_once`, counted by a reader of committed records.
- **Two replicas** share two partitions; the step is Python that keeps a core busy, half a millisecond a message.
- **MQTT → MQTT** (QoS 1 both ways) and **WebSocket → WebSocket** run the same model beside loops that only echo. What
  MQTT is given has been waiting in a session; both are counted by a reader on the other core.
- **LSTM**: an autoencoder on windows of 30×3, Kafka → Kafka, beside the same loop calling `model.predict` for each
  message; and the two calls alone, on one window.
- **Latency** from producer to reader: ours at 1000 messages/s; the poll-one loop, which flushes and commits after each
  message here, at 50/s, which it bears with ease.
"""


def main(folder: Path, rounds: int = 5) -> dict[str, Any]:
    """All figures of docs/benchmarks/stream.json: the ratios by name, `rates` (messages per second), `latency` (ms)."""
    rates: dict[str, float] = {}
    latency: dict[str, float] = {}
    ratios: dict[str, float] = {}
    with brokers.kafka() as broker:
        for part in (kafka.measure, replicas.measure, lstm.measure):
            found = part(folder, broker.address, rounds)
            rates |= found.rates
            ratios |= found.ratios
            latency |= found.latency
    for other in (mqtt.measure, websocket.measure):
        found = other(folder, rounds)
        rates |= found.rates
        ratios |= found.ratios
    return {
        "title": "Streams",
        "what": WHAT,
        "unit": "messages per second",
        **{name: round(ratio, 3) for name, ratio in ratios.items()},
        "latency": {name: round(value, 2) for name, value in latency.items()},
        "rates": {name: round(rate) for name, rate in rates.items()},
    }
