"""How sure the figures are, in pure NumPy: bootstrap intervals, a paired test, groups of cases.

A user has one case under leave-one-out and many under the temporal protocol, and cases of one
user resemble each other. So whole users are resampled and whole users change sides, never single
cases; with one case a user this is the ordinary bootstrap and the ordinary sign-flip test.
"""

from collections.abc import Iterator
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from training.data import local_hours

Float64s: TypeAlias = NDArray[np.float64]
RESAMPLES = 1_000
FLIPS = 10_000
CONFIDENCE = 0.95
SEED = 0
ACTIVITY_GROUPS = ("low", "middle", "high")
BLOCK_HOURS = 4
# Draws are made in blocks of about so many cells: 8 bytes each, 32 MiB.
BLOCK_CELLS = 1 << 22


def bootstrap_means(
    values: Float64s,
    users: NDArray[np.int64],
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
    block_cells: int = BLOCK_CELLS,
) -> Float64s:
    """Return the mean of each column in every resample of users, (resamples, columns).

    `values` is (cases, columns) and `users` (cases,). All columns see the same resamples, so the
    difference of two columns' means is the paired bootstrap of their difference. A resample's
    mean is the sum over its users' cases ÷ their number. `block_cells` bounds the memory and
    changes no draw.
    Source: Davison & Hinkley, 1997, section 3.8, strategy 1 (whole clusters are resampled).
    """
    totals, counts = _by_user(values, users)
    means = []
    for block in _blocks(resamples, len(counts), block_cells):
        weights = _resample_counts(block, len(counts), rng)  # (block, users)
        means.append((weights @ totals) / (weights @ counts)[:, None])
    return np.concatenate(means)


def percentile_interval(means: Float64s, confidence: float = CONFIDENCE) -> Float64s:
    """Return the lower and upper bound of each column, (2, columns).

    Source: the percentile interval, Efron & Tibshirani, 1993, section 13.3.
    """
    tail = (1 - confidence) / 2
    bounds: Float64s = np.quantile(means, [tail, 1 - tail], axis=0)
    return bounds


def sign_flip_p_values(
    differences: Float64s, users: NDArray[np.int64], rng: np.random.Generator, flips: int = FLIPS
) -> Float64s:
    """Return the two-sided p-value of each column's mean difference, (columns,).

    `differences` is (cases, columns), one scorer less another; were both equally good, a user's
    differences could as well have had the other sign. p = (1 + flips at least as far from 0) ÷
    (1 + flips), which is never 0.
    Source: Fisher's randomisation test, found the fittest for ranking metrics by Smucker, Allan &
    Carterette, 2007; the added ones after Phipson & Smyth, 2010.
    """
    totals, _ = _by_user(differences, users)
    totals = totals[(totals != 0).any(axis=1)]  # a user without a difference changes no sum
    # Sums in another order differ in their last bits; the observed one must reach itself.
    observed = np.abs(totals.sum(axis=0)) * (1 - 1e-9)
    reached = np.zeros(differences.shape[1], np.int64)
    for block in _blocks(flips, len(totals), BLOCK_CELLS):
        signs = rng.integers(2, size=(block, len(totals)), dtype=np.int8) * 2.0 - 1.0
        reached += (np.abs(signs @ totals) >= observed).sum(axis=0)
    p_values: Float64s = (1 + reached) / (1 + flips)
    return p_values


def activity_groups(num_past_events: NDArray[np.int64]) -> dict[str, NDArray[np.bool_]]:
    """Return the cases of each tercile of `num_past_events`, (cases,), by name: `low` to `high`.

    A bound belongs to the lower group, so equal users share one; a group that ties leave without
    a case is absent.

    >>> {name: chosen.tolist() for name, chosen in activity_groups(np.array([5, 1, 3])).items()}
    {'low': [False, True, False], 'middle': [False, False, True], 'high': [True, False, False]}
    """
    bounds = np.quantile(num_past_events, [1 / 3, 2 / 3], method="inverted_cdf")
    return _groups(ACTIVITY_GROUPS, np.searchsorted(bounds, num_past_events, side="left"))


def hour_groups(
    timestamps_ms: NDArray[np.int64], tz_offsets_min: NDArray[np.int64]
) -> dict[str, NDArray[np.bool_]]:
    """Return the cases of each block of four hours of the local day, by name: `00-04` to `20-24`.

    `timestamps_ms` (Unix) and `tz_offsets_min` are (cases,). Blocks without a case are absent.

    >>> list(hour_groups(np.array([23 * 3_600_000]), np.array([120])))
    ['00-04']
    """
    hours = local_hours(timestamps_ms, tz_offsets_min)
    names = [f"{first:02d}-{first + BLOCK_HOURS:02d}" for first in range(0, 24, BLOCK_HOURS)]
    return _groups(tuple(names), hours // BLOCK_HOURS)


def _groups(names: tuple[str, ...], places: NDArray[np.int64]) -> dict[str, NDArray[np.bool_]]:
    """Return the mask of each group that has a case; `places` (cases,) count from 0."""
    chosen = {name: places == place for place, name in enumerate(names)}
    return {name: mask for name, mask in chosen.items() if mask.any()}


def _by_user(values: Float64s, users: NDArray[np.int64]) -> tuple[Float64s, NDArray[np.int64]]:
    """Return the sums of each user's cases, (users, columns), and their number, (users,)."""
    _, places, counts = np.unique(users, return_inverse=True, return_counts=True)
    totals = np.zeros((len(counts), values.shape[1]))
    np.add.at(totals, places, values)
    return totals, counts


def _resample_counts(resamples: int, num_users: int, rng: np.random.Generator) -> Float64s:
    """Return how often each resample drew each user, with replacement, (resamples, users)."""
    draws = rng.integers(num_users, size=(resamples, num_users))
    draws += np.arange(resamples)[:, None] * num_users
    counts = np.bincount(draws.ravel(), minlength=resamples * num_users)
    return counts.reshape(resamples, num_users).astype(np.float64)


def _blocks(total: int, width: int, cells: int) -> Iterator[int]:
    """Yield block sizes that add up to `total`, each of about `cells` ÷ `width` rows."""
    size = max(1, cells // max(1, width))
    for first in range(0, total, size):
        yield min(size, total - first)
