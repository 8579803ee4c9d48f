"""Ordering: drop what may not be shown, break ties, cut to k. Pure functions of arrays."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.contract.features import Float32s, Int64s

NUM_STRIPES = 64
# Stripes pay where they are much longer than k.
STRIPED_FROM = 8


def without(indices: Int64s, dropped: Int64s, num_items: int) -> Int64s:
    """Return the indices that are not dropped, in their order."""
    if not len(dropped) or not len(indices):
        return indices
    allowed = np.ones(num_items + 1, np.bool_)
    allowed[dropped] = False
    kept: Int64s = indices[allowed[indices]]
    return kept


def top_k(indices: Int64s, scores: Float32s, k: int) -> tuple[Int64s, Float32s]:
    """Return the k best indices and their scores, best first, equal scores by smaller index.

    `scores` is parallel to `indices`. The order of the input does not change the answer.
    """
    if k <= 0:
        return indices[:0], scores[:0]
    kept = _at_least_the_kth(scores, k)
    order = np.lexsort((indices[kept], -scores[kept]))[:k]
    chosen = kept[order]
    return indices[chosen], scores[chosen]


def top_k_of_all(scores: Float32s, k: int) -> tuple[Int64s, Float32s]:
    """Return the same of scores by item index, which need no list of the indices."""
    if k <= 0:
        return np.zeros(0, np.int64), scores[:0]
    kept = _at_least_the_kth(scores, k)
    chosen = kept[np.argsort(-scores[kept], kind="stable")[:k]]
    return chosen.astype(np.int64, copy=False), scores[chosen]


def _at_least_the_kth(scores: NDArray[Any], k: int) -> NDArray[np.intp]:
    """Return the places, ascending, of the k best scores, of equal ones, and perhaps of more."""
    if k >= len(scores):
        return np.arange(len(scores))
    width = len(scores) // NUM_STRIPES
    if width < STRIPED_FROM * k:
        return np.flatnonzero(scores >= _kth(scores, k))
    # Stripes laid over each other, and the best of each column: k columns hold a score of at least
    # the kth of these, so the kth of all scores is no less. Four times faster than to part them.
    columns = scores[: NUM_STRIPES * width].reshape(NUM_STRIPES, width).max(axis=0)
    return np.flatnonzero(scores >= _kth(columns, k))


def _kth(scores: NDArray[Any], k: int) -> Any:
    return np.partition(scores, len(scores) - k)[len(scores) - k]
