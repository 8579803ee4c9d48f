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
from pathlib import Path

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

SHARED_DIR_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
BUNDLE_INFO = "sojourn_bundle_info"
EVENT_STATUSES = ("accepted", "duplicate", "rejected")
REDIS_OPERATIONS = (
    "append", "attribute", "catalogue-change", "catalogue-read", "expose", "list-load", "list-save",
    "models", "ping", "popular", "prepare", "read", "shown", "token",
)  # fmt: skip
BREAKER_STATES = ("closed", "open", "half-open")
MODEL_LOAD_RESULTS = ("loaded", "refused")
REFUSALS = (
    "attempts", "concurrency", "expired-key", "no-key", "rate", "scope", "unknown-key",
)  # fmt: skip
KEY_RELOADS = ("ok", "refused")
REQUEST_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
QUEUE_BUCKETS_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5)
# From a second to a month, and from a tenth of a second to a week.
AGE_BUCKETS_S = (1, 10, 60, 600, 3_600, 21_600, 86_400, 604_800, 2_592_000)
DELAY_BUCKETS_S = (0.1, 0.5, 1, 5, 10, 60, 600, 3_600, 86_400, 604_800)
TEXT_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
SIZE_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


@dataclass(frozen=True, slots=True)
class QueueMetrics:
    """The figures of one batched queue."""

    queue_seconds: Histogram
    compute_seconds: Histogram
    batch_size: Histogram
    dropped: Counter


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
        self._count_answers()
        self._count_failures()
        self._count_models()
        self._count_texts()
        self._count_samples()
        self._measure_memory()
        self._queue_seconds = self._queue_histogram(
            "queue_seconds", "Time an item waited for its batch to start.", QUEUE_BUCKETS_S
        )
        self._compute_seconds = self._queue_histogram(
            "compute_seconds", "Time a batch took.", QUEUE_BUCKETS_S
        )
        self._batch_size = self._queue_histogram("size", "Items in a batch.", SIZE_BUCKETS)
        self._dropped = self._counter(
            "batch_dropped", "Items that left a queue undone: too late, or their caller.", "queue"
        )

    def _count_answers(self) -> None:
        self.events = self._counter(
            "events", "Events posted, by what became of them.", "status", known=EVENT_STATUSES
        )
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
        self.encoded_windows = self._counter(
            "encoded_windows", "Windows ranked for, by whether the encoder ran or was known.",
            "source", known=("encoder", "kept"),
        )  # fmt: skip
        self.exposures = self._counter(
            "exposures", "Answers noted, or dropped.", "status", known=("noted", "dropped")
        )

    def _count_failures(self) -> None:
        self.redis_errors = self._counter(
            "redis_errors", "Redis calls that failed.", "operation", known=REDIS_OPERATIONS
        )
        self.redis_breaker = Gauge(
            "sojourn_redis_breaker",
            "Redis servers, each counted by every process, by the state of their circuit breaker.",
            ("state",),
            registry=self._registry,
            multiprocess_mode="livesum",
        )
        for state in BREAKER_STATES:
            self.redis_breaker.labels(state)
        self.refused = self._counter(
            "refused_requests", "Requests refused before any work, by why.", "reason",
            known=REFUSALS,
        )  # fmt: skip
        self.key_reloads = self._counter(
            "key_reloads", "Changes of the file of keys, by what became of them.", "result",
            known=KEY_RELOADS,
        )  # fmt: skip
        self.unhandled_errors = self._counter("unhandled_errors", "Requests that met a bug.")

    def _count_models(self) -> None:
        self.bundle_info = Gauge(
            BUNDLE_INFO,
            "1 for the bundle that is served.",
            ("version", "name"),
            registry=self._registry,
            multiprocess_mode="mostrecent",
        )
        self.bundle_created = Gauge(
            "sojourn_bundle_created_timestamp_seconds",
            "When the bundle that is served was made, seconds since 1970.",
            registry=self._registry,
            multiprocess_mode="mostrecent",
        )
        self.model_loads = self._counter(
            "model_loads", "Bundles read beside the one that is served.", "result",
            known=MODEL_LOAD_RESULTS,
        )  # fmt: skip
        self.model_switches = self._counter("model_switches", "Switches to another model.")
        self.model_behind = Gauge(
            "sojourn_model_behind",
            "Processes that cannot serve the model that they should.",
            registry=self._registry,
            multiprocess_mode="livesum",
        )

    def _count_texts(self) -> None:
        self.texts = self._counter(
            "texts", "Texts of items and requests, by whether they were read, known, or failed.",
            "result", known=("encoder", "kept", "failed"),
        )  # fmt: skip
        self.text_seconds = Histogram(
            "sojourn_text_seconds",
            "Time of a call of the text encoder, of up to 16 texts.",
            buckets=TEXT_BUCKETS_S,
            registry=self._registry,
        )
        self.texts_pending = Gauge(
            "sojourn_texts_pending",
            "Live items whose text is still to be read, each counted by every process.",
            registry=self._registry,
            multiprocess_mode="livesum",
        )

    def _count_samples(self) -> None:
        """What is noted of one request in so many, and of one event of each post."""
        self.event_delay = Histogram(
            "sojourn_event_delay_seconds",
            "Time from an event to its arrival, of the last one that each post stored.",
            buckets=DELAY_BUCKETS_S,
            registry=self._registry,
        )
        self.last_event_age = Histogram(
            "sojourn_last_event_age_seconds",
            "Age of the newest event that a recommendation knew; of sampled requests.",
            buckets=AGE_BUCKETS_S,
            registry=self._registry,
        )
        self.drift_inputs = self._counter(
            "drift_inputs", "Sampled requests by the bin that an input of theirs is in.",
            "input", "bin",
        )  # fmt: skip
        self.drift_scores = self._counter(
            "drift_scores", "Sampled lists of a model by the bin that a score of theirs is in.",
            "score", "model", "bin",
        )  # fmt: skip

    def _measure_memory(self) -> None:
        self.private_memory = Gauge(
            "sojourn_private_memory_bytes",
            "Memory that is this program's own: neither a file's nor shared. Of all workers.",
            registry=self._registry,
            multiprocess_mode="livesum",
        )
        self.memory_limit = Gauge(
            "sojourn_memory_limit_bytes",
            "What the container may have, or the machine has, for all workers.",
            registry=self._registry,
            multiprocess_mode="mostrecent",
        )

    def queue(self, name: str) -> QueueMetrics:
        """Return the figures of the queue of this name."""
        return QueueMetrics(
            self._queue_seconds.labels(name),
            self._compute_seconds.labels(name),
            self._batch_size.labels(name),
            self._dropped.labels(name),
        )

    def set_bundle(self, version: str, name: str, created_s: float = 0.0) -> None:
        """State which bundle is served and when it was made, seconds since 1970.

        The one before goes to 0, as files cannot forget it.
        """
        if self._bundle is not None:
            self.bundle_info.labels(*self._bundle).set(0)
        self._bundle = (version, name)
        self.bundle_info.labels(version, name).set(1)
        self.bundle_created.set(created_s)

    def render(self) -> tuple[bytes, str]:
        """Return the text of a scrape, over all workers, and its content type."""
        registry = self._registry
        if SHARED_DIR_VARIABLE in os.environ:
            _forget_dead_workers(Path(os.environ[SHARED_DIR_VARIABLE]))
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # as published
        shown = CollectorRegistry()
        shown.register(_WithoutOldBundles(registry))
        return generate_latest(shown), CONTENT_TYPE_LATEST

    def _counter(
        self, name: str, documentation: str, *labels: str, known: tuple[str, ...] = ()
    ) -> Counter:
        """Return a counter; the `known` values of its one label are there from the start.

        A rate over a series that appears late misses its first step.
        """
        counter = Counter(f"sojourn_{name}", documentation, labels, registry=self._registry)
        for value in known:
            counter.labels(value)
        return counter

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


def _forget_dead_workers(directory: Path) -> None:
    """Remove what killed workers left of figures that are of living ones only."""
    for path in directory.glob("gauge_live*_*.db"):
        pid = int(path.stem.rpartition("_")[2])
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            mark_process_dead(pid, str(directory))  # type: ignore[no-untyped-call]  # as published


class _WithoutOldBundles(Collector):
    """What a registry collects, less the bundles that are served no longer.

    They stand at 0 in the workers' files, which cannot forget a series.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        """Yield each metric of the registry."""
        for metric in self._registry.collect():
            if metric.name == BUNDLE_INFO:
                metric.samples = [sample for sample in metric.samples if sample.value]
            yield metric


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
