"""Figures of several rounds: medians, spreads, ratios within a round, percentiles of arrivals."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

# A request that was sent later than this after its time says something of the generator.
LATE_S = 0.001
MS_PER_S = 1_000.0


@dataclass(frozen=True, slots=True)
class Spread:
    """One figure over the rounds, in the order in which they were measured."""

    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Return the middle one, or the mean of the two in the middle."""
        return statistics.median(self.rounds)

    def document(self) -> dict[str, object]:
        """Return what the report holds of it."""
        return {
            "median": self.median,
            "min": min(self.rounds),
            "max": max(self.rounds),
            "rounds": list(self.rounds),
        }


def ratio(ours: Spread, theirs: Spread) -> Spread:
    """Return ours over theirs, each round by itself: what slows a whole round cancels out."""
    pairs = zip(ours.rounds, theirs.rounds, strict=True)
    return Spread(tuple(mine / other for mine, other in pairs))


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least `share` of the values do not pass (nearest rank).

    >>> percentile([4.0, 1.0, 3.0, 2.0], 0.5)
    2.0
    """
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


@dataclass(frozen=True, slots=True)
class Arrivals:
    """Requests at a constant rate: when each was due, sent and answered, seconds of one clock."""

    due_s: Sequence[float]
    sent_s: Sequence[float]
    answered_s: Sequence[float]

    def latencies_ms(self) -> list[float]:
        """Return how long each answer took, counted from when its request was due."""
        pairs = zip(self.due_s, self.answered_s, strict=True)
        return [(answered - due) * MS_PER_S for due, answered in pairs]

    def figures(self) -> dict[str, float]:
        """Return percentiles, milliseconds, and the share of requests that were sent late."""
        taken = self.latencies_ms()
        late = sum(sent - due > LATE_S for due, sent in zip(self.due_s, self.sent_s, strict=True))
        return {
            "p50_ms": percentile(taken, 0.5),
            "p90_ms": percentile(taken, 0.9),
            "p99_ms": percentile(taken, 0.99),
            "max_ms": max(taken),
            "share_sent_late": late / len(taken),
        }
