"""Drift: what requests and their lists are like, noted of a few and counted in bins.

Prometheus compares the bins of the last hour with those of the last week; `deploy/prometheus` has
the rules, and docs/operations.md says how to read them. A label says a bin, never a user or item.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from prometheus_client import Counter

from service.fallback import local_hour
from service.filters import Asked
from service.listing import Listed
from service.metrics import Metrics
from service.readings import Reading

MS_PER_S = 1_000
NONE = "none"
# The upper bounds of bins, each bound within; what is greater is in a last bin. They are wide: an
# index over many thin ones measures chance.
HISTORY_BOUNDS = (0, 1, 3, 7, 15, 31, 63, 127, 255)
# Seconds: a minute, ten, an hour, six, a day, a week, a month, a quarter.
GAP_BOUNDS_S = (60, 600, 3_600, 21_600, 86_400, 604_800, 2_592_000, 7_776_000)
UNKNOWN_BOUNDS = (0, 0.1, 0.25, 0.5, 0.99)
# Of scores, which are of any size, by halves and doubles.
TOP_BOUNDS = (-8, -4, -2, -1, 0, 0.5, 1, 2, 3, 4, 6, 8, 10, 12, 14, 16, 20, 24, 32)
MARGIN_BOUNDS = (0.01, 0.03, 0.1, 0.3, 0.6, 1, 2, 4, 8)
# Models whose scores are counted at a time: a process meets few in its life.
MAX_MODELS = 16


class Bins:
    """Counts values by the bin that they are in; every bin is there from the start."""

    def __init__(
        self, child: Callable[[str], Counter], bounds: Sequence[float], last: str = "more"
    ) -> None:
        self._bounds = bounds
        self._counters = [child(f"{bound:g}") for bound in bounds] + [child(last)]

    def note(self, value: float) -> None:
        """Count one value."""
        self._counters[bisect_left(self._bounds, value)].inc()


class Drift:
    """Looks at one recommendation in `every`, at none if that is 0. Belongs to one loop."""

    def __init__(self, metrics: Metrics, *, every: int) -> None:
        self._every = every
        self._num_passed = 0
        self._last_event_age = metrics.last_event_age
        self._history = self._inputs(metrics, "history", HISTORY_BOUNDS)
        self._gap = self._inputs(metrics, "gap", GAP_BOUNDS_S)
        self._no_gap = metrics.drift_inputs.labels("gap", NONE)
        self._unknown = self._inputs(metrics, "unknown", UNKNOWN_BOUNDS)
        self._hour = self._inputs(metrics, "hour", range(23), last="23")
        # A model's bins appear with its first list.
        self._scores = lru_cache(MAX_MODELS)(lambda model: _scores_of(metrics, model))

    def note(self, reading: Reading, asked: Asked, model: str, listed: Sequence[Listed]) -> None:
        """Note what one list was made of, if its turn has come."""
        if not self._every:
            return
        self._num_passed += 1
        if self._num_passed < self._every:
            return
        self._num_passed = 0
        self._note_inputs(reading, asked)
        # Of lists that others than the model made, and of drawn places, the scores say nothing.
        if listed and listed[0].pick.source == "model":
            top, margin = self._scores(model)
            top.note(listed[0].pick.score)
            if len(listed) > 1:
                margin.note(listed[0].pick.score - listed[1].pick.score)

    def _note_inputs(self, reading: Reading, asked: Asked) -> None:
        past, items, _ = reading.deeds
        self._hour.note(local_hour(asked.time_ms, asked.tz_offset_min))
        self._history.note(len(past))
        if not len(past):
            self._no_gap.inc()
            return
        age_s = max(0, asked.time_ms - int(past.timestamps_ms[-1])) / MS_PER_S
        self._last_event_age.observe(age_s)
        self._gap.note(age_s)
        self._unknown.note(1 - np.count_nonzero(items) / len(items))

    @staticmethod
    def _inputs(metrics: Metrics, name: str, bounds: Sequence[float], last: str = "more") -> Bins:
        return Bins(lambda label: metrics.drift_inputs.labels(name, label), bounds, last)


def _scores_of(metrics: Metrics, model: str) -> tuple[Bins, Bins]:
    """Return the bins of a model's best score, and of how far the second is behind it."""
    return (
        Bins(lambda label: metrics.drift_scores.labels("top", model, label), TOP_BOUNDS),
        Bins(lambda label: metrics.drift_scores.labels("margin", model, label), MARGIN_BOUNDS),
    )
