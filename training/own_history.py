"""Counting in the user's own window: the bar for data in which people come back.

Nothing is fitted but popularity, which decides between what the window says nothing of. Each
scorer reads the same encoded arrays as the model and returns (cases, num_items + 1) scores.
"""

import numpy as np
from numpy.typing import NDArray

from service.contract.features import Arrays, Float32s
from training.data import EventTable, local_hours

HOURS = 24
# What a past event weighs that does not follow the last item, or is at another hour.
OTHER_PREDECESSOR = 0.01
OTHER_HOUR = 0.1


class OwnFrequency:
    """Scores every item by how often it is in the window."""

    def __init__(self, events: EventTable, train: NDArray[np.bool_]) -> None:
        counts = np.bincount(events.window.items[train], minlength=events.num_items + 1)
        self._fallback = (counts / (counts.sum() + 1.0) * 1e-3).astype(np.float32)

    def score(self, arrays: Arrays) -> Float32s:
        """Return the summed weights of each item's events, popularity far below them."""
        scores = np.repeat(self._fallback[None, :], len(arrays["items"]), axis=0)
        rows = np.arange(len(scores))[:, None]
        np.add.at(scores, (rows, arrays["items"]), self.weights(arrays))
        return scores

    def weights(self, arrays: Arrays) -> Float32s:
        """Return what each event of the windows weighs, (cases, window)."""
        return np.ones(arrays["items"].shape, np.float32)


class OwnTransitions(OwnFrequency):
    """Scores every item by how often it came right after the last item, in the window."""

    def weights(self, arrays: Arrays) -> Float32s:
        """Return 1 for events whose predecessor is the window's last item, little for others."""
        items = arrays["items"]
        before = np.concatenate([np.zeros_like(items[:, :1]), items[:, :-1]], axis=1)
        follows = before == items[:, -1:]
        return np.where(follows, 1.0, OTHER_PREDECESSOR).astype(np.float32)


class OwnTransitionsAtHour(OwnTransitions):
    """The same, events within an hour of the request's local hour counting ten times as much."""

    def weights(self, arrays: Arrays) -> Float32s:
        """Return the transition's weight times the hour's; an unknown request has no hour."""
        asked = local_hours(arrays["request_time_ms"], arrays["request_tz_offset_min"])[:, None]
        happened = local_hours(arrays["timestamps_ms"], arrays["tz_offsets_min"])
        apart = np.abs(asked - happened)
        near = np.minimum(apart, HOURS - apart) <= 1
        near |= arrays["request_time_ms"][:, None] == 0
        weights: Float32s = super().weights(arrays) * np.where(near, 1.0, OTHER_HOUR)
        return weights.astype(np.float32)
