"""What the service counts, on a registry of its own; right with several workers too.

With several workers each scrape reaches only one of them. They then keep their numbers in files of
the directory that `PROMETHEUS_MULTIPROC_DIR` names, and `Metrics.render` sums the files of all. The
library reads the variable when it is imported, so the parent sets it before it starts a worker:
see `shared_between_workers`. User ids are never labels.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector

SHARED_DIR_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
EVENT_STATUSES = ("accepted", "duplicate", "rejected")
REDIS_OPERATIONS = (
    "append", "attribute", "catalogue-change", "catalogue-read", "expose", "list-load", "list-save",
    "ping", "popular", "prepare", "read", "shown",
)  # fmt: skip
REQUEST_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
QUEUE_BUCKETS_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5)
SIZE_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


@dataclass(frozen=True, slots=True)
class QueueMetrics:
    """The three figures of one batched queue."""

    queue_seconds: Histogram
    compute_seconds: Histogram
    batch_size: Histogram


class Metrics:
    """Every collector of the service; build one per process."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self._bundle: tuple[str, str] | None = None
        self.request_seconds = Histogram(
            "sojourn_request_seconds",
            "Time from the first byte of a request to the last of its answer.",
            ("route", "method", "status"),
            buckets=REQUEST_BUCKETS_S,
            registry=registry,
        )
        self.events = self._counter("events", "Events posted, by what became of them.", "status")
        for status in EVENT_STATUSES:
            # There from the start: a rate over a series that appears late misses its first step.
            self.events.labels(status)
        self.recommendations = self._counter(
            "recommendations", "Recommendations answered, by where they came from.", "source"
        )
        self.fallbacks = self._counter(
            "fallbacks", "Answers not made by the model, and why.", "source", "reason"
        )
        self.impressions = self._counter(
            "impressions", "Items shown, by place and model.", "source", "position", "model"
        )
        self.attributed_events = self._counter(
            "attributed_events",
            "Events that named the answer they came from, by where the item was shown.",
            "event_type", "source", "position", "model",
        )  # fmt: skip
        self.exposures = self._counter("exposures", "Answers noted, or dropped.", "status")
        for status in ("noted", "dropped"):
            self.exposures.labels(status)
        self.redis_errors = self._counter("redis_errors", "Redis calls that failed.", "operation")
        for operation in REDIS_OPERATIONS:
            self.redis_errors.labels(operation)
        self.unhandled_errors = self._counter("unhandled_errors", "Requests that met a bug.")
        self.bundle_info = Gauge(
            "sojourn_bundle_info",
            "1 for the bundle that is served.",
            ("version", "name"),
            registry=registry,
            multiprocess_mode="mostrecent",
        )
        self._queue_seconds = self._queue_histogram(
            "queue_seconds", "Time an item waited for its batch to start.", QUEUE_BUCKETS_S
        )
        self._compute_seconds = self._queue_histogram(
            "compute_seconds", "Time a batch took.", QUEUE_BUCKETS_S
        )
        self._batch_size = self._queue_histogram("size", "Items in a batch.", SIZE_BUCKETS)

    def queue(self, name: str) -> QueueMetrics:
        """Return the figures of the queue of this name."""
        return QueueMetrics(
            self._queue_seconds.labels(name),
            self._compute_seconds.labels(name),
            self._batch_size.labels(name),
        )

    def set_bundle(self, version: str, name: str) -> None:
        """State which bundle is served; the one before goes to 0, as files cannot forget it."""
        if self._bundle is not None:
            self.bundle_info.labels(*self._bundle).set(0)
        self._bundle = (version, name)
        self.bundle_info.labels(version, name).set(1)

    def render(self) -> tuple[bytes, str]:
        """Return the text of a scrape, over all workers, and its content type."""
        registry = self._registry
        if SHARED_DIR_VARIABLE in os.environ:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # as published
        return generate_latest(registry), CONTENT_TYPE_LATEST

    def _counter(self, name: str, documentation: str, *labels: str) -> Counter:
        return Counter(f"sojourn_{name}", documentation, labels, registry=self._registry)

    def _queue_histogram(
        self, name: str, documentation: str, buckets: tuple[float, ...]
    ) -> Histogram:
        return Histogram(
            f"sojourn_batch_{name}",
            documentation,
            ("queue",),
            buckets=buckets,
            registry=self._registry,
        )


@contextmanager
def shared_between_workers() -> Iterator[None]:
    """Make processes started meanwhile share their numbers, in a directory that goes afterwards.

    The directory is new every time: files of an earlier run would be counted again.
    """
    before = os.environ.get(SHARED_DIR_VARIABLE)
    with tempfile.TemporaryDirectory(prefix="sojourn-metrics-") as directory:
        os.environ[SHARED_DIR_VARIABLE] = directory
        try:
            yield
        finally:
            _restore_environment(before)


def _restore_environment(before: str | None) -> None:
    if before is None:
        os.environ.pop(SHARED_DIR_VARIABLE, None)
    else:
        os.environ[SHARED_DIR_VARIABLE] = before
