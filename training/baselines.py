"""The bar that a model must clear: counting, fitted on the training events only.

Each scorer reads the same encoded arrays as the model and returns (cases, num_items + 1) scores.
"""

import numpy as np
from numpy.typing import NDArray

from service.contract.features import Arrays, Float32s
from training.data import EventTable
from training.own_history import OwnFrequency, OwnTransitions, OwnTransitionsAtHour

RECENT_SHARE = 0.1
COOCCURRENCE_SPAN = 5


class Popularity:
    """Scores every item by its number of training events."""

    def __init__(self, events: EventTable, train: NDArray[np.bool_]) -> None:
        self._scores = item_counts(events, train).astype(np.float32)

    def score(self, arrays: Arrays) -> Float32s:
        """Return the same counts for every case."""
        return np.repeat(self._scores[None, :], len(arrays["items"]), axis=0)


class RecentPopularity:
    """Scores every item by its events among the newest tenth of the training events."""

    def __init__(self, events: EventTable, train: NDArray[np.bool_]) -> None:
        times = events.window.timestamps_ms
        since = np.quantile(times[train], 1 - RECENT_SHARE)
        self._scores = item_counts(events, train & (times >= since)).astype(np.float32)

    def score(self, arrays: Arrays) -> Float32s:
        """Return the same counts for every case."""
        return np.repeat(self._scores[None, :], len(arrays["items"]), axis=0)


class Markov:
    """Scores every item by how often it came right after the window's last item.

    First-order transition counts of the training sequences; popularity, scaled below one count,
    decides where no transition was seen.
    """

    span = 1

    def __init__(self, events: EventTable, train: NDArray[np.bool_]) -> None:
        counts = item_counts(events, train)
        self._fallback = (counts / (counts.sum() + 1.0)).astype(np.float32)
        self.followers = _follower_counts(events, train, self.span)

    def score(self, arrays: Arrays) -> Float32s:
        """Return the counts of what followed each case's last item, (cases, num_items + 1)."""
        last = arrays["items"][:, -1]
        scores = np.repeat(self._fallback[None, :], len(last), axis=0)
        for row, item in enumerate(last):
            followers, counts = self.followers.get(int(item), _NOTHING)
            scores[row, followers] += counts
        return scores


class LastItemCooccurrence(Markov):
    """Scores every item by how often it came within five events around the window's last item."""

    span = COOCCURRENCE_SPAN


_NOTHING: tuple[NDArray[np.int64], Float32s] = (np.zeros(0, np.int64), np.zeros(0, np.float32))


def item_counts(events: EventTable, chosen: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the number of chosen events of each item, (num_items + 1,), 0 at padding."""
    return np.bincount(events.window.items[chosen], minlength=events.num_items + 1)


def user_shares(events: EventTable, train: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the share of users with a training event on each item, (num_items + 1,).

    Counts are floored at one user, so that novelty stays finite.
    """
    pairs = np.unique(np.stack([events.users[train], events.window.items[train]]), axis=1)
    users = np.bincount(pairs[1], minlength=events.num_items + 1)
    shares: NDArray[np.float64] = np.maximum(users, 1) / events.num_users
    return shares


def _follower_counts(
    events: EventTable, train: NDArray[np.bool_], span: int
) -> dict[int, tuple[NDArray[np.int64], Float32s]]:
    """Return, by item, the items within `span` events and their counts.

    With span 1 only what follows counts (transitions); beyond, both directions do.
    """
    users, items = events.users[train], events.window.items[train]
    pairs = []
    for gap in range(1, span + 1):
        same = users[gap:] == users[:-gap]
        pairs.append(np.stack([items[:-gap][same], items[gap:][same]]))
    both = np.concatenate(pairs, axis=1)
    if span > 1:
        both = np.concatenate([both, both[::-1]], axis=1)
    keys, counts = np.unique(both[0] * (events.num_items + 1) + both[1], return_counts=True)
    sources, followers = np.divmod(keys, events.num_items + 1)
    cuts = np.flatnonzero(np.diff(sources)) + 1
    parts = zip(
        np.split(sources, cuts), np.split(followers, cuts), np.split(counts, cuts), strict=True
    )
    return {
        int(source[0]): (follower, count.astype(np.float32))
        for source, follower, count in parts
        if len(source)
    }


def fit_baselines(
    events: EventTable, train: NDArray[np.bool_]
) -> dict[str, Popularity | RecentPopularity | Markov | OwnFrequency]:
    """Fit every baseline on the training events, by the name that reports use."""
    return {
        "popularity": Popularity(events, train),
        "recent_popularity": RecentPopularity(events, train),
        "last_item_cooccurrence": LastItemCooccurrence(events, train),
        "markov": Markov(events, train),
        "own_frequency": OwnFrequency(events, train),
        "own_transitions": OwnTransitions(events, train),
        "own_transitions_at_hour": OwnTransitionsAtHour(events, train),
    }
