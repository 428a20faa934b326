"""What the units say of themselves, as rows of the demo's table: their state, and the counters on their `/metrics`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from packer_lib.demo.dags import Progress

IN, OUT, FAILED = "mlpacker_messages_in_total", "mlpacker_messages_out_total", "mlpacker_messages_failed_total"
LATENCY = "mlpacker_end_to_end_seconds_bucket"


@dataclass(frozen=True, slots=True)
class Numbers:
    """What one unit has counted since it started; `latency` is the median in seconds, None before the first message."""

    came: int = 0
    went: int = 0
    failed: int = 0
    latency: float | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One unit of the table. `last`: what the pipeline finds comes out here. `reason`: why it is not running."""

    pipeline: str
    unit: str
    state: str = ""
    endpoint: str = ""
    last: bool = True
    reason: str = ""
    numbers: Numbers = Numbers()


@dataclass(frozen=True, slots=True)
class Watch:
    """The units that are meant to be there, in the order of the table: `(pipeline, units in the order of the data)`."""

    expected: tuple[tuple[str, tuple[str, ...]], ...]
    client: httpx.Client

    def rows(self, status: Iterable[Mapping[str, Any]], deployed: Mapping[str, Progress]) -> list[Row]:
        """A row per unit, with what `status` (the shape of `mlpacker status --json`) and the unit itself say of it.

        `deployed` tells by pipeline what is going on while a unit is not there yet.
        """
        live = {(item["pipeline"], unit["name"]): unit for item in status for unit in item["units"]}
        return [
            self._row(Row(pipeline, unit, last=unit == units[-1]), deployed[pipeline], live.get((pipeline, unit)))
            for pipeline, units in self.expected
            for unit in units
        ]

    def _row(self, row: Row, progress: Progress, found: Mapping[str, Any] | None) -> Row:
        """A unit that is staged and not yet switched to is "stopped": what the DAG does says more."""
        if found is None or (found["state"] == "stopped" and progress.busy):
            return replace(row, state=progress.of(row.unit))
        endpoint = found["endpoint"] or ""
        state, reason = found["state"], found.get("reason", "")
        return replace(row, state=state, reason=reason, endpoint=endpoint, numbers=ask(endpoint, self.client))


def ask(endpoint: str, client: httpx.Client) -> Numbers:
    """The counters on `endpoint`/metrics; zeros while the unit does not answer, which its state tells better."""
    try:
        answer = client.get(f"{endpoint}/metrics").raise_for_status()
    except (httpx.HTTPError, httpx.InvalidURL):
        return Numbers()
    return numbers(answer.text)


def numbers(text: str) -> Numbers:
    """The counters in one Prometheus text, added up over their labels."""
    totals = {IN: 0.0, OUT: 0.0, FAILED: 0.0}
    buckets: dict[float, float] = {}
    for name, labels, value in _samples(text):
        if name in totals:
            totals[name] += value
        elif name == LATENCY:
            bound = float(labels["le"])
            buckets[bound] = buckets.get(bound, 0.0) + value
    return Numbers(int(totals[IN]), int(totals[OUT]), int(totals[FAILED]), median(buckets))


def _samples(text: str) -> Iterator[tuple[str, Mapping[str, str], float]]:
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            yield sample.name, sample.labels, sample.value


def median(buckets: Mapping[float, float]) -> float | None:
    """The median of a cumulative histogram (count by upper bound), interpolated in its bucket; None while empty."""
    points = [(0.0, 0.0), *sorted(buckets.items())]
    half = points[-1][1] / 2
    if not half:
        return None
    for (low, below), (high, count) in pairwise(points):
        if count >= half:
            return low if high == float("inf") else low + (high - low) * (half - below) / (count - below)
    return None
