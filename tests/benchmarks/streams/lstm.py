"""An LSTM autoencoder on windows of 30×3 beside `model.predict` for each message, Kafka → Kafka and the calls alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.benchmarks.common import PEERS
from tests.benchmarks.streams.common import Found, medians
from tests.benchmarks.streams.kafka import Work, filled, ours, throughput

COUNT = 120_000
KERAS = {"type": "model", "framework": "tensorflow", "serializer": "keras"}


def measure(folder: Path, broker: str, rounds: int) -> Found:
    """Throughput of both, and seconds of one call of each."""
    model = folder / "lstm.keras"
    script = str(PEERS / "keras_per_message.py")
    if not model.exists():
        subprocess.run([sys.executable, script, "train", str(model)], check=True)
    window = [[round(0.1 * step + column, 2) for column in range(3)] for step in range(30)]
    work = Work(broker, model, json.dumps(window).encode(), folder, KERAS)
    source = filled(work, COUNT)
    loop = [sys.executable, script, "loop", str(model), broker, source, "SINK"]
    rates = medians(
        {
            "lstm_per_message": lambda: throughput(work, loop, 150),
            "lstm_ours": lambda: throughput(work, ours(work, source), COUNT),
        },
        min(rounds, 3),
    )
    said = subprocess.run(
        [sys.executable, script, "calls", str(model)],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(PEERS.parents[2])},
    ).stdout
    calls = json.loads(said.splitlines()[-1])
    ratios = {
        "lstm_vs_per_message": rates["lstm_ours"] / rates["lstm_per_message"],
        "lstm_one_at_a_time_vs_predict": calls["predict"] / calls["ours"],
    }
    return Found(rates, ratios, {"lstm_predict_one": calls["predict"] * 1000, "lstm_ours_one": calls["ours"] * 1000})
