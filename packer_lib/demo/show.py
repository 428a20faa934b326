"""The three cases while they run: what is known of them, on the table, again and again until something is so."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

from packer_lib import status
from packer_lib.demo import cases, closing, processes
from packer_lib.demo.brokers import Broker
from packer_lib.demo.cases import CASES, A, B, C
from packer_lib.demo.dags import Deployments, Progress
from packer_lib.demo.feed import Asker, Feed
from packer_lib.demo.screen import LiveTable, Screen
from packer_lib.demo.watch import Row, Watch
from packer_lib.errors import MLPackerError
from packer_lib.settings import Settings
from packer_lib.standalone import Airflow

LOOK_EVERY = 1.0
STATUS_EVERY = 10.0


@dataclass(frozen=True, slots=True)
class Scene:
    """What is on while the demo runs. `trained` holds the model and the code steps, `logs` what the processes say;
    `settled` is set once everything is live."""

    screen: Screen
    settings: Settings
    airflow: Airflow
    brokers: Mapping[str, Broker]
    trained: Path
    logs: Path
    settled: Event


class Show:
    """The table and what it is made of: `rows` as last seen; `feed` comes with the agent, `asker` with the model."""

    def __init__(self, scene: Scene, watch: Watch, table: LiveTable) -> None:
        self._scene, self._watch, self._table = scene, watch, table
        self._deployments = Deployments(scene.airflow, (case.id for case in CASES))
        self._deployed: Mapping[str, Progress] = {}
        self._status: list[dict[str, Any]] = []
        self._asked = float("-inf")
        self.feed: Feed | None = None
        self.asker: Asker | None = None
        self.rows: list[Row] = []

    def wait_for_live(self, seconds: float) -> None:
        """Returns when every unit runs; `MLPackerError` when Airflow reports a failure, or the time is over."""
        if not self.until(self._all_live, seconds, "Airflow deploys the three cases …"):
            late = "\n".join(self._story_of(row) for row in self.rows if row.state != "running")
            raise MLPackerError(f"not every unit is live after {seconds:.0f} s\n{late}", self._where())

    def _story_of(self, row: Row) -> str:
        """Why a unit is not running, with its last words: they are gone once it is undeployed."""
        try:
            lines = status.logs(self._scene.settings, row.pipeline, row.unit, 10)
        except MLPackerError:
            lines = []
        return "\n    ".join([f"  {row.pipeline}/{row.unit}: {row.state} {row.reason}", *lines])

    def start_agent(self, ending: ExitStack) -> None:
        """The agent, and what reads along: windows fill while the units come up."""
        kafka, mqtt = self._scene.brokers["kafka"].address, self._scene.brokers["mqtt"].address
        metrics = cases.topic(B, B.source)
        self.feed = Feed(kafka, metrics, {case.id: cases.topic(case, case.sink) for case in (B, C)})
        ending.callback(self.feed.stop)
        argv = [sys.executable, "-m", "packer_lib.demo.agent", f"--kafka={kafka}/{metrics}"]
        argv.append(f"--mqtt={mqtt}/{cases.topic(C, C.source)}")
        ending.callback(processes.stop, processes.start(argv, os.environ, self._scene.logs / "agent.log"))

    def ask_model(self, ending: ExitStack) -> None:
        """From now on, case A is asked twice a second what it makes of the latest window."""
        if self.feed is not None:
            endpoint = next(row.endpoint for row in self.rows if row.pipeline == A.id)
            self.asker = Asker(endpoint, self.feed, self._scene.trained / "outliers_filter")
            ending.callback(self.asker.stop)

    def until(self, so: Callable[[], bool], seconds: float, caption: str) -> bool:
        """Looks until it is so or the time is over; whether it was so."""
        end = time.monotonic() + seconds
        self._look(caption)
        while not so():
            if time.monotonic() > end:
                return False
            time.sleep(LOOK_EVERY)
            self._look(caption)
        return True

    def _all_live(self) -> bool:
        for pipeline, progress in self._deployed.items():
            if progress.failed:
                raise MLPackerError(f"Airflow did not deploy {pipeline}: {progress.failed}", self._where())
        return self._all_deployed() and all(row.state == "running" for row in self.rows)

    @property
    def _live(self) -> int:
        """How many of the pipelines Airflow has brought to their end."""
        return sum(progress.live for progress in self._deployed.values())

    def _all_deployed(self) -> bool:
        return self._live == len(CASES)

    def _where(self) -> str:
        return f"the tasks' logs are in {self._scene.airflow.home / 'logs'}"

    def all_judging(self) -> bool:
        """Whether the last step of every case has had windows to judge."""
        answered = self.asker is not None and len(self.asker.answers.seconds) >= 3
        return (
            answered and all(row.numbers.came > 40 for row in self.rows if row.pipeline == B.id) and self._reached(C.id)
        )

    def _reached(self, pipeline: str) -> bool:
        return all(row.numbers.came > 3 for row in self.rows if row.pipeline == pipeline)

    def noticed(self, since: float) -> bool:
        """Whether every case has found an anomaly after `since` (seconds since the epoch)."""
        return self.feed is not None and self.asker is not None and closing.all_noticed(self.feed, self.asker, since)

    def _look(self, caption: str) -> None:
        live, due = self._live, time.monotonic() - self._asked > STATUS_EVERY
        if due or not self._all_deployed():
            self._deployed = self._deployments.progress()
        # `status` asks each unit through a process of its own, which takes processors from those who deploy.
        if due or self._live != live:
            self._status = status.status(self._scene.settings)
            self._asked = time.monotonic()
        self.rows = self._watch.rows(self._status, self._deployed)
        self._table.show(self.rows, self._anomalies(), caption)

    def _anomalies(self) -> dict[str, int]:
        heard = {case: len(found) for case, found in self.feed.anomalies.items()} if self.feed else {}
        return heard | ({A.id: len(self.asker.answers.anomalies)} if self.asker else {})
