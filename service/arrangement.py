"""Arrangement: from a pool of ranked items to the list that is shown.

Variety (maximal marginal relevance and caps by group), rotation (what was shown lately goes down)
and exploration (some places are drawn) change which items of the pool are shown, and in what order.
Pure functions of arrays; without any of the three the list is the pool's beginning.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from service.contract.features import Float32s, Int64s

MS_PER_S = 1000
# Groups (categories, brands) of one item, as numbers.
Groups = Sequence[frozenset[int]]


@dataclass(frozen=True, slots=True)
class Diversity:
    """Variety: `strength` of MMR, 0 to 1, and at most `max_per_group` items that share a value.

    `group_by` is `categories` or `attributes.` and a name.
    """

    strength: float = 0.0
    max_per_group: int | None = None
    group_by: str = "categories"


@dataclass(frozen=True, slots=True)
class Rotation:
    """How much an item that was shown just now loses, 0 to 1, and after how long half of that."""

    strength: float
    half_life_s: float


@dataclass(frozen=True, slots=True)
class Exploration:
    """The share of places that are drawn evenly from the pool, 0 to 1, and the draw's seed."""

    share: float
    seed: int


@dataclass(frozen=True, slots=True)
class Arrangement:
    """What a request wants of its list besides the best scores; None wants nothing."""

    diversity: Diversity | None = None
    rotation: Rotation | None = None
    exploration: Exploration | None = None

    @property
    def wants_nothing(self) -> bool:
        """Say whether the best scores are all that is wanted."""
        return self.diversity is None and self.rotation is None and self.exploration is None


# The best scores and nothing else.
PLAIN = Arrangement()


@dataclass(frozen=True, slots=True)
class Pool:
    """The items that may be shown, best first: `scores` (n,), `vectors` (n, dim), groups, (n,).

    `shown` is (n,), how lately and often each was shown, from 0 (never) to 1 (see `shown_weights`).
    """

    scores: Float32s
    vectors: Float32s
    groups: Groups
    shown: Float32s


@dataclass(frozen=True, slots=True)
class Placed:
    """One place of the list: which of the pool, and the probability that it was to be this one.

    The probability is given the places before it. `drawn` marks a place that exploration gave to
    another item than the best.
    """

    place: int
    propensity: float = 1.0
    drawn: bool = False


def arrange(pool: Pool, k: int, wanted: Arrangement) -> list[Placed]:
    """Return up to k places, each item at most once; as many as the pool has, caps or not.

    Source: MMR, Carbonell and Goldstein (1998), on relevance between 0 and 1 in the pool and the
    cosine of item vectors.
    """
    chosen = _Chosen(pool, wanted.diversity)
    relevance = _relevance(pool, wanted.rotation)
    exploration = wanted.exploration or Exploration(0.0, 0)
    generator = np.random.default_rng(exploration.seed)
    placed = []
    for _ in range(min(k, len(pool.scores))):
        eligible = chosen.eligible()
        worth = chosen.worth(relevance)[eligible]
        best = int(eligible[np.argmax(worth)])
        picked = best
        if exploration.share and generator.random() < exploration.share:
            picked = int(generator.choice(eligible))
        even = exploration.share / len(eligible)
        propensity = even + (1.0 - exploration.share if picked == best else 0.0)
        placed.append(Placed(picked, propensity, drawn=picked != best))
        chosen.add(picked)
    return placed


def shown_weights(
    indices: Int64s, shown: Int64s, shown_ms: Int64s, now_ms: int, half_life_s: float
) -> Float32s:
    """Return how lately and often each item was shown, (len(indices),), from 0 to 1.

    `shown` and `shown_ms` are parallel: item indices and when each was shown, in ms. A showing
    counts 1 at once and half of that after every half life; several add up to at most 1.
    """
    ages_s = np.maximum(now_ms - shown_ms, 0) / MS_PER_S
    weights = np.exp2(-ages_s / half_life_s)
    order = np.argsort(indices, kind="stable")
    places = np.searchsorted(indices, shown, sorter=order).clip(max=max(len(indices) - 1, 0))
    summed = np.zeros(len(indices))
    if len(indices):
        at = order[places]
        hits = indices[at] == shown
        np.add.at(summed, at[hits], weights[hits])
    return np.minimum(summed, 1.0).astype(np.float32)


def _relevance(pool: Pool, rotation: Rotation | None) -> Float32s:
    """Return scores from 0 to 1 in the pool, less what rotation takes."""
    scores = pool.scores.astype(np.float32)
    low, high = (scores.min(), scores.max()) if len(scores) else (0.0, 0.0)
    relevance = (scores - low) / (high - low) if high > low else np.zeros_like(scores)
    if rotation is not None:
        relevance = relevance - rotation.strength * pool.shown
    return np.asarray(relevance, np.float32)


class _Chosen:
    """What has a place already, and what that means for the rest of the pool."""

    def __init__(self, pool: Pool, diversity: Diversity | None) -> None:
        self._groups = pool.groups
        self._strength = diversity.strength if diversity else 0.0
        self._cap = diversity.max_per_group if diversity else None
        self._free = np.ones(len(pool.scores), np.bool_)
        self._uncapped = np.ones(len(pool.scores), np.bool_)
        self._counts: dict[int, int] = {}
        lengths = np.linalg.norm(pool.vectors, axis=1, keepdims=True)
        self._directions = pool.vectors / np.where(lengths > 0, lengths, 1.0)
        self._similarity = np.zeros(len(pool.scores), np.float32)
        self._is_first = True

    def eligible(self) -> Int64s:
        """Return the places that may follow: under their caps, or any if none is."""
        allowed = self._free & self._uncapped
        return np.flatnonzero(allowed if allowed.any() else self._free)

    def worth(self, relevance: Float32s) -> Float32s:
        """Return MMR: relevance against the largest similarity to what has a place."""
        if not self._strength:
            return relevance
        worth: Float32s = (1 - self._strength) * relevance - self._strength * self._similarity
        return worth

    def add(self, place: int) -> None:
        """Give an item its place."""
        self._free[place] = False
        if self._strength:
            to_it = self._directions @ self._directions[place]
            self._similarity = to_it if self._is_first else np.maximum(self._similarity, to_it)
            self._is_first = False
        if self._cap is not None:
            self._close_groups(self._groups[place], self._cap)

    def _close_groups(self, groups: frozenset[int], cap: int) -> None:
        for group in groups:
            self._counts[group] = self._counts.get(group, 0) + 1
        full = {group for group in groups if self._counts[group] >= cap}
        if full:
            for place in np.flatnonzero(self._free & self._uncapped).tolist():
                self._uncapped[place] = full.isdisjoint(self._groups[place])
