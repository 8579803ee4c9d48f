"""Ordering: break ties, cut to k. Pure functions of arrays."""

from collections.abc import Sequence
from operator import add
from typing import TypeAlias

import numpy as np

from service.contract.features import Float32s, Int64s

# Item indices (or places) and their scores, best first.
Best: TypeAlias = tuple[Int64s, Float32s]

NUM_STRIPES = 64
# A stripe is to be so many times longer than k.
STRIPED_FROM = 8
# Less than any score; -inf stands for what may not be shown.
LEAST = np.finfo(np.float32).min


def top_k(indices: Int64s, scores: Float32s, k: int) -> Best:
    """Return the k best indices and their scores, best first, equal scores by smaller index.

    `scores` is parallel to `indices`. The order of the input does not change the answer.
    """
    kept = _reaching_kth(scores, k)
    return _in_order(indices[kept], scores[kept], k)


def top_k_of_places(scores: Float32s, k: int) -> Best:
    """Return the k best places of scores, (places,), as `top_k` orders them."""
    kept = _reaching_kth(scores, k)
    return _in_order(kept, scores[kept], k)


def _reaching_kth(scores: Float32s, k: int) -> Int64s:
    """Return the places whose score is no less than the kth; more than k where scores are equal."""
    if k <= 0 or not len(scores):
        return np.zeros(0, np.int64)
    last = max(0, len(scores) - k)
    return np.flatnonzero(scores >= np.partition(scores, last)[last])


def _in_order(indices: Int64s, scores: Float32s, k: int) -> Best:
    """Return the k best of few, best first."""
    order = np.lexsort((indices, -scores))[: max(0, k)]
    return indices[order], scores[order]


def top_k_of_columns(scores: Float32s, counts: Sequence[int]) -> list[Best]:
    """Return of each column of scores, (places, columns), its `counts[column]` best places.

    Best first, equal scores by smaller place; -inf is in no answer.
    """
    most = max(counts, default=0)
    if most <= 0:
        return [(np.zeros(0, np.int64), np.zeros(0, np.float32)) for _ in counts]
    places, columns = _at_least_the_kth(scores, counts, most)
    found = scores[places, columns]
    order = np.lexsort((places, -found, columns))
    places, found = places[order], found[order]
    starts = np.searchsorted(columns[order], np.arange(len(counts) + 1)).tolist()
    ends = map(min, map(add, starts, counts), starts[1:])
    return [(places[start:end], found[start:end]) for start, end in zip(starts, ends, strict=False)]


def _at_least_the_kth(scores: Float32s, counts: Sequence[int], most: int) -> tuple[Int64s, Int64s]:
    """Return places and columns of each column's best, of equal scores, and perhaps of more."""
    # Stripes laid over each other, and the best of each group of places that then share one: k
    # groups hold a score of at least the kth of these, so the kth of all scores is no less, and
    # only groups that reach it need a look.
    stripes = min(NUM_STRIPES, max(1, len(scores) // (STRIPED_FROM * most)))
    width = -(-len(scores) // stripes)
    maxima = _maxima(scores, width)  # (columns, width)
    kths = [width - min(max(1, count), width) for count in counts]
    parted = np.partition(maxima, sorted(set(kths)), axis=1)
    least = np.maximum(parted[np.arange(len(counts)), kths], LEAST)
    columns, groups = np.nonzero(maxima >= least[:, None])
    places = groups[:, None] + np.arange(0, len(scores), width)
    inside = places < len(scores)
    columns = np.broadcast_to(columns[:, None], places.shape)[inside]
    places = places[inside]
    kept = scores[places, columns] >= least[columns]
    return places[kept], columns[kept]


def _maxima(scores: Float32s, width: int) -> Float32s:
    """Return the best of every `width`th place of each column, (columns, width)."""
    last = (len(scores) - 1) // width * width
    striped = scores[:last].reshape(-1, width, scores.shape[1])
    maxima: Float32s = striped.max(axis=0, initial=-np.inf)
    np.maximum(maxima[: len(scores) - last], scores[last:], out=maxima[: len(scores) - last])
    return np.ascontiguousarray(maxima.T)
