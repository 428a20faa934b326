"""The numbers of a unit, the same names for streams and REST; the one module that imports prometheus-client."""

from __future__ import annotations

import os
from collections.abc import Iterable

from prometheus_client import CONTENT_TYPE_LATEST as CONTENT_TYPE
from prometheus_client import (
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Metric,
    ProcessCollector,
    generate_latest,
    values,
)
from prometheus_client.registry import Collector


def forget(folder: str, worker: str) -> None:
    """What a dead process had in hand is no longer counted in `folder`. Its counters are: its successor has them."""
    from prometheus_client.multiprocess import mark_process_dead

    mark_process_dead(worker, folder)  # type: ignore[no-untyped-call]


WORKER = os.environ.get("MLPACKER_WORKER", "")  # of several processes of one unit, which keep them in one folder
FOLDER = os.environ.get("PROMETHEUS_MULTIPROC_DIR", "") if WORKER else ""
PROCESSES: list[int] = []  # all of the unit, its parent first, where that is known
if FOLDER:  # its files have its number, so that the next process of that number goes on with its counters
    forget(FOLDER, WORKER)
    values.ValueClass = values.MultiProcessValue(lambda: WORKER)  # type: ignore[no-untyped-call]

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000)

MESSAGES_IN = Counter("mlpacker_messages_in", "Messages or instances taken in", ["queue"])
MESSAGES_OUT = Counter("mlpacker_messages_out", "Messages confirmed by the peer, or instances answered", ["queue"])
MESSAGES_FAILED = Counter("mlpacker_messages_failed", "Messages that failed, whatever their fate", ["step", "stage"])
MESSAGES_SKIPPED = Counter("mlpacker_messages_skipped", "Failed messages dropped by on_error skip")
DEAD_LETTERS = Counter("mlpacker_dead_letters", "Failed messages put on a dead-letter queue")
BATCH_SIZE = Histogram("mlpacker_batch_size", "Messages or instances per batch", buckets=SIZES)
PREDICT_SECONDS = Histogram("mlpacker_predict_seconds", "Time of a step for one batch", ["step"], buckets=SECONDS)
END_TO_END_SECONDS = Histogram(
    "mlpacker_end_to_end_seconds", "Time of a batch from its arrival to its acknowledgement or answer", buckets=SECONDS
)
IN_FLIGHT = Gauge(
    "mlpacker_in_flight",
    "Messages or requests taken in and not yet acknowledged or answered",
    multiprocess_mode="livesum",
)
RECONNECTS = Counter("mlpacker_reconnects", "Attempts to connect after the first", ["queue"])
BROKER_ERRORS = Counter(
    "mlpacker_broker_errors",
    "What went wrong between a broker and its client, mended by itself or not",
    ["queue", "error"],
)
BROKER_DROPPED = Gauge(
    "mlpacker_broker_dropped", "Messages of all its topics that a queue's broker dropped since it started", ["queue"]
)
LAG = Gauge("mlpacker_lag", "Messages that wait for this process, as far as its client knows", ["queue"])
MODEL = Gauge(
    "mlpacker_model",
    "1 for the model that a step answers with",
    ["step", "version", "sha256"],
    multiprocess_mode="livemax",
)
SWAPS = Counter("mlpacker_swaps", "Models that were to take another's place, by what came of it", ["step", "result"])
SWAP_SECONDS = Histogram(
    "mlpacker_swap_seconds", "Time of a swap, from when it was noticed to the first batch", ["step"], buckets=SECONDS
)
SHADOW = Counter(
    "mlpacker_shadow", "Instances that a candidate was to be tried on, by what came of it", ["step", "result"]
)
WORKER_DEATHS = Counter("mlpacker_worker_deaths", "Worker processes that ended without being told to", ["worker"])
LINK_SECONDS = Histogram(
    "mlpacker_link_seconds", "Time of a call to the next unit, tries included", ["unit"], buckets=SECONDS
)
LINK_RETRIES = Counter("mlpacker_link_retries", "Calls to the next unit after the first try", ["unit"])
LINK_FAILURES = Counter("mlpacker_link_failures", "Calls to the next unit without a usable answer", ["unit", "reason"])


def show_model(step: str, sha256: str, former: str = "") -> None:
    """`step` answers with that model from now on, and no longer with `former`."""
    if former and former != sha256:
        if FOLDER:  # from which nothing can be removed
            MODEL.labels(step, former[:12], former).set(0)
        else:
            MODEL.remove(step, former[:12], former)
    MODEL.labels(step, sha256[:12], sha256).set(1)


def exposition() -> bytes:
    """Everything in Prometheus's text format, to be served as `CONTENT_TYPE`; of several processes the sum."""
    return generate_latest(_of_all() if FOLDER else REGISTRY)


def _of_all() -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(OfAll())
    return registry


class OfAll(Collector):
    """What all processes have written into `FOLDER`, without models that are no longer any step's."""

    def collect(self) -> Iterable[Metric]:
        from prometheus_client.multiprocess import MultiProcessCollector

        for metric in MultiProcessCollector(None, FOLDER).collect():  # type: ignore[no-untyped-call]
            if metric.name == "mlpacker_model":
                metric.samples = [sample for sample in metric.samples if sample.value]
            yield metric
        yield from _processes()


def _processes() -> Iterable[Metric]:
    """What the system says of `PROCESSES`, added up; the start is that of the first."""
    found: dict[str, Metric] = {}
    for process in PROCESSES:
        for metric in ProcessCollector(pid=lambda pid=process: pid, registry=None).collect():  # type: ignore[misc]
            kept = found.setdefault(metric.name, metric)
            if kept is not metric and "start_time" not in metric.name:
                total = kept.samples[0].value + metric.samples[0].value
                kept.samples[0] = kept.samples[0]._replace(value=total)
    return found.values()


__all__ = [
    "BATCH_SIZE",
    "BROKER_DROPPED",
    "BROKER_ERRORS",
    "CONTENT_TYPE",
    "DEAD_LETTERS",
    "END_TO_END_SECONDS",
    "IN_FLIGHT",
    "LAG",
    "LINK_FAILURES",
    "LINK_RETRIES",
    "LINK_SECONDS",
    "MESSAGES_FAILED",
    "MESSAGES_IN",
    "MESSAGES_OUT",
    "MESSAGES_SKIPPED",
    "MODEL",
    "PREDICT_SECONDS",
    "PROCESSES",
    "RECONNECTS",
    "SHADOW",
    "SWAPS",
    "SWAP_SECONDS",
    "WORKER_DEATHS",
    "exposition",
    "forget",
    "show_model",
]
