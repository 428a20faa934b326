"""What the demo itself hears (records and anomalies on Kafka) and asks (the model behind REST)."""

from __future__ import annotations

import json
import runpy
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import httpx
from confluent_kafka import Consumer

from packer_lib.demo.agent import FEATURES, WINDOW

ASK_EVERY = 0.5


@dataclass(frozen=True, slots=True)
class Anomaly:
    """`at` and `heard` in seconds since the epoch: when the machine was like that, and when we were told."""

    at: float
    heard: float
    error: float


class Feed:
    """Listens to the records (`metrics`) and to the anomalies of each case (`sinks`, topic by case id) until `stop`."""

    def __init__(self, address: str, metrics: str, sinks: dict[str, str]) -> None:
        self.anomalies: dict[str, list[Anomaly]] = {case: [] for case in sinks}
        self._window: deque[list[float]] = deque(maxlen=WINDOW)
        self._cases = {topic: case for case, topic in sinks.items()}
        self._metrics = metrics
        self._stop = threading.Event()
        # A group per run: this reads along and must never share its records with another run.
        settings = {"group.id": f"mlpacker-demo-{time.time_ns()}", "auto.offset.reset": "latest"}
        self._consumer = Consumer({"bootstrap.servers": address, **settings})
        self._consumer.subscribe([metrics, *self._cases])
        self._thread = threading.Thread(target=self._listen, name="feed", daemon=True)
        self._thread.start()

    def window(self) -> list[list[float]] | None:
        """The last 30 records, oldest first; None before there are so many."""
        window = list(self._window)
        return window if len(window) == WINDOW else None

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(10)

    def _listen(self) -> None:
        while not self._stop.is_set():
            for message in self._consumer.consume(100, 0.2):
                if message.error() is None:
                    self._take(message.topic(), json.loads(message.value()))
        self._consumer.close()

    def _take(self, topic: str, value: dict[str, Any]) -> None:
        if topic == self._metrics:
            self._window.append([float(value[name]) for name in FEATURES])
        else:
            self.anomalies[self._cases[topic]].append(Anomaly(value["timestamp"], time.time(), value["error"]))


@dataclass(slots=True)
class Answers:
    """What case A answered: how long each answer took (seconds), and the windows that the filter calls outliers.

    `example` is the newest record of the first window, and what the model made of it; `refused` the last failure.
    """

    seconds: list[float] = field(default_factory=list)
    anomalies: list[Anomaly] = field(default_factory=list)
    example: tuple[Sequence[float], Sequence[float]] | None = None
    refused: str = ""

    def median(self) -> float | None:
        return median(self.seconds) if self.seconds else None


class Asker:
    """Sends the machine's latest window to the model behind REST, twice a second; the filter step judges the answer."""

    def __init__(self, endpoint: str, feed: Feed, step: Path) -> None:
        self.answers = Answers()
        self._url, self._feed = f"{endpoint}/predict", feed
        self._filter = runpy.run_path(str(step / "main.py"))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask_on, name="asker", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(10)

    def _ask_on(self) -> None:
        with httpx.Client(timeout=10, trust_env=False) as client:
            while not self._stop.wait(ASK_EVERY):
                if window := self._feed.window():
                    self._ask(client, window)

    def _ask(self, client: httpx.Client, window: Sequence[Sequence[float]]) -> None:
        start, at = time.perf_counter(), time.time()
        try:
            answer = client.post(self._url, json={"data": [window]}).raise_for_status()
            prediction = answer.json()["predictions"][0]
        except (httpx.HTTPError, ValueError, KeyError, IndexError) as failed:
            self.answers.refused = f"{type(failed).__name__}: {failed}"
            return
        self.answers.seconds.append(time.perf_counter() - start)
        self.answers.example = self.answers.example or (window[-1], prediction[-1])
        error = self._filter["reconstruction_error"](window, prediction)
        if error > self._filter["THRESHOLD"]:
            self.answers.anomalies.append(Anomaly(at, time.time(), error))
