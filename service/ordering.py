"""Ordering: drop what may not be shown, break ties, cut to k. Pure functions of arrays."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.contract.features import Float32s, Int64s


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


def _at_least_the_kth(scores: NDArray[Any], k: int) -> NDArray[np.intp]:
    if k >= len(scores):
        return np.arange(len(scores))
    kth = np.partition(scores, len(scores) - k)[len(scores) - k]
    return np.flatnonzero(scores >= kth)
