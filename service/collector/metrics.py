"""What the collector counts, on a registry of its own; users and items are never labels."""

from prometheus_client import CollectorRegistry, Counter, Gauge

TREES = ("events", "exposures")
SKIP_REASONS = ("duplicate", "invalid", "unknown")
ERROR_KINDS = ("disk", "redis")


class CollectorMetrics:
    """Every figure of one collector; `registry` is what its port serves."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.rows = self._counter("rows", "Rows in files that are on the disk.", "tree")
        self.files = self._counter("files", "Files written.", "tree")
        self.skipped = self._counter("skipped", "Entries without a row, and why.", "reason")
        self.errors = self._counter("errors", "Attempts that failed and are repeated.", "kind")
        self.gaps = self._counter("gaps", "Times that a stream was trimmed before it was read.")
        self.missing = self._counter(
            "missing_entries", "Entries that are known to be lost in gaps."
        )
        self.erased_rows = self._counter("erased_rows", "Rows of erased users taken out of files.")
        self.lag = Gauge(
            "sojourn_collector_lag_entries",
            "Entries of all streams that are in no file yet.",
            registry=self.registry,
        )
        self.lag_seconds = Gauge(
            "sojourn_collector_lag_seconds",
            "Age of the oldest entry that is in no file yet, 0 if there is none.",
            registry=self.registry,
        )
        self._begin()

    def _counter(self, name: str, documentation: str, *labels: str) -> Counter:
        return Counter(f"sojourn_collector_{name}", documentation, labels, registry=self.registry)

    def _begin(self) -> None:
        """Show every series from the start: a rate misses the first step of a late one."""
        for tree in TREES:
            self.rows.labels(tree)
            self.files.labels(tree)
        for reason in SKIP_REASONS:
            self.skipped.labels(reason)
        for kind in ERROR_KINDS:
            self.errors.labels(kind)
