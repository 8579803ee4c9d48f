"""Blends: a declared sum of the model's score and named numbers, for the caller's own candidates.

A blend is a list of terms. Each takes one number of every candidate, brings it to a common scale
and counts with its weight, so that what moved an item can be read off. Pure functions of arrays.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from service.blend_terms import Term

Float64s: TypeAlias = NDArray[np.float64]
# No sum of terms is larger: JSON has no number for infinity.
MAX_SCORE = 1e300


@dataclass(frozen=True, slots=True)
class Blended:
    """Scores (n,), and what each term added to them, (terms, n)."""

    scores: Float64s
    parts: Float64s


def blend(terms: Sequence[Term], numbers: Mapping[str, Float64s], count: int) -> Blended:
    """Return the sum of the terms for `count` candidates.

    `numbers` are (count,) by feature, NaN where a candidate has none; a feature that is absent is
    unknown of every candidate. A part that is too large for the sum to be finite is cut.
    """
    unknown = np.full(count, np.nan)
    with np.errstate(over="ignore"):
        parts = np.array([_part(term, numbers.get(term.feature, unknown)) for term in terms])
    largest = MAX_SCORE / max(len(terms), 1)
    parts = parts.clip(-largest, largest)
    return Blended(parts.sum(axis=0) if len(parts) else np.zeros(count), parts)


def _part(term: Term, values: Float64s) -> Float64s:
    known = ~np.isnan(values)
    scaled = np.full(len(values), term.missing)
    if known.any():
        scaled[known] = _scaled(term, values[known])
    return term.weight * scaled


def _scaled(term: Term, values: Float64s) -> Float64s:
    """Return known values on the term's scale; see docs/api.md for each."""
    if term.scale == "min-max":
        low, high = values.min(), values.max()
        # Halved first: the difference of two large numbers may not be one.
        span = high / 2 - low / 2
        return (values / 2 - low / 2) / span if span > 0 else np.zeros(len(values))
    if term.scale == "rank":
        return _rank_share(values)
    if term.scale == "log":
        return np.sign(values) * np.log1p(np.abs(values))
    if term.scale == "decay":
        return np.exp2(-np.maximum(values, 0.0) / (term.half_life or 1.0))
    return values


def _rank_share(values: Float64s) -> Float64s:
    """Return the share of the other candidates that are below, ties in the middle; 0 to 1."""
    if len(values) == 1:
        return np.zeros(1)
    ordered = np.sort(values)
    below = np.searchsorted(ordered, values, "left")
    up_to = np.searchsorted(ordered, values, "right")
    share: Float64s = (below + up_to - 1) / 2 / (len(values) - 1)
    return share
