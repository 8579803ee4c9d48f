"""Listing: from what was ranked to what is shown, place by place."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from service.arrangement import Arrangement, Pool, arrange, shown_weights
from service.bundle_loader import LoadedBundle
from service.contract.features import Float32s, Int64s
from service.fallback import Pick
from service.store.exposures import Shown

# Of how many ranked items a list is arranged: several for each place, within bounds.
POOL_PER_PLACE = 5
MIN_POOL, MAX_POOL = 100, 1_000


class Listed(NamedTuple):
    """One place of a list: what has it, and how probable that was, given the places before it."""

    pick: Pick
    propensity: float = 1.0


def pool_size(k: int, wanted: Arrangement) -> int:
    """Return how many of the best are to be ranked for a list of k."""
    if wanted.wants_nothing:
        return k
    return max(k, min(MAX_POOL, max(MIN_POOL, POOL_PER_PLACE * k)))


def list_picks(
    bundle: LoadedBundle,
    picks: Sequence[Pick],
    k: int,
    wanted: Arrangement,
    *,
    shown: Shown,
    now_ms: int,
) -> list[Listed]:
    """Return the list of k that a request wants of the ranked items; best first without wishes."""
    if wanted.wants_nothing or not picks:
        return [Listed(pick) for pick in picks[:k]]
    indices = np.array([pick.index for pick in picks], np.int64)
    pool = Pool(
        scores=_worth(picks),
        vectors=bundle.ranker.vectors(indices),
        groups=_groups(bundle, indices, wanted),
        shown=_shown(bundle, indices, wanted, shown, now_ms),
    )
    listed = []
    for placed in arrange(pool, k, wanted):
        pick = picks[placed.place]
        source = "explore" if placed.drawn else pick.source
        listed.append(Listed(replace(pick, source=source), placed.propensity))
    return listed


def with_included(listed: Sequence[Listed], included: Sequence[Pick], k: int) -> list[Listed]:
    """Return the list with every included item in it: those it lacks take its last places."""
    there = {one.pick.index for one in listed}
    wanted = {pick.index for pick in included}
    missing = [Listed(pick) for pick in included if pick.index not in there][:k]
    free = k - len(missing) - len(wanted & there)
    kept = []
    for one in listed:
        if one.pick.index in wanted:
            kept.append(one)
        elif free > 0:
            kept.append(one)
            free -= 1
    return (kept + missing)[:k]


def _worth(picks: Sequence[Pick]) -> Float32s:
    """Return scores that compare: the model's, or the order where rungs of a ladder are mixed."""
    if all(pick.source == "model" for pick in picks):
        return np.array([pick.score for pick in picks], np.float32)
    return np.arange(len(picks), 0, -1, dtype=np.float32)


def _groups(bundle: LoadedBundle, indices: Int64s, wanted: Arrangement) -> Sequence[frozenset[int]]:
    diversity = wanted.diversity
    if diversity is None or diversity.max_per_group is None:
        return [frozenset()] * len(indices)
    column = bundle.columns.terms.get(diversity.group_by)
    return [frozenset()] * len(indices) if column is None else column.places_of(indices)


def _shown(
    bundle: LoadedBundle, indices: Int64s, wanted: Arrangement, shown: Shown, now_ms: int
) -> Float32s:
    if wanted.rotation is None:
        return np.zeros(len(indices), np.float32)
    items, known = bundle.hash_index.find(shown.item_hashes)
    times = shown.timestamps_ms[known]
    return shown_weights(indices, items, times, now_ms, wanted.rotation.half_life_s)
