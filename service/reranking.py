"""Re-ranking: the caller's candidates, ordered by a blend of the model's score and more."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from service.blend import Blended, Float64s, blend
from service.blend_terms import AGE_DAYS, DISTANCE_KM, MODEL, POPULARITY
from service.bundle_loader import LoadedBundle
from service.contract.features import Int64s, RequestPoint
from service.fallback import Pick
from service.item_columns import ATTRIBUTES, RELEASED_AT
from service.recommendation import RankedCandidate, RankQuery, RecommendedItem

MS_PER_DAY = 86_400_000
OWN = "features."


@dataclass(frozen=True, slots=True)
class Basis:
    """What candidates are judged by: the known ones as ranked, and the request's place and time.

    `picks` are as the model ranked them, or else the ladder.
    """

    picks: Sequence[Pick]
    point: RequestPoint
    time_ms: int


def rerank(bundle: LoadedBundle, query: RankQuery, basis: Basis) -> tuple[RecommendedItem, ...]:
    """Return the candidates by their blended score, equal ones in the order of the picks.

    Unknown ones follow in the caller's order where scores are equal. What may not be shown is left
    out.
    """
    picks = basis.picks
    query = replace(query, candidates=_shown(bundle, query.candidates))
    indices = bundle.vocabulary.indices([one.item_id for one in query.candidates])
    numbers = _numbers(bundle, query, indices, basis)
    blended = blend(query.blend, numbers, len(indices))
    place_of = {pick.index: place for place, pick in enumerate(picks)}
    behind = len(picks)
    places = np.array([place_of.get(index, behind) for index in indices.tolist()])
    order = np.lexsort((np.arange(len(indices)), places, -blended.scores))[: query.k]
    sources = {pick.index: bundle.source_of(pick) for pick in picks}
    return tuple(
        RecommendedItem(
            item_id=query.candidates[at].item_id,
            score=float(blended.scores[at]),
            rank=rank,
            source=sources.get(int(indices[at]), "new"),
            title=bundle.titles[indices[at]],
            parts=_parts(query, blended, at) if query.explain else None,
        )
        for rank, at in enumerate(order.tolist(), start=1)
    )


def _shown(
    bundle: LoadedBundle, candidates: tuple[RankedCandidate, ...]
) -> tuple[RankedCandidate, ...]:
    if not len(bundle.withheld):
        return candidates
    withheld = frozenset(bundle.withheld.tolist())
    indices = bundle.vocabulary.indices([one.item_id for one in candidates]).tolist()
    pairs = zip(candidates, indices, strict=True)
    return tuple(one for one, index in pairs if index not in withheld)


def _numbers(
    bundle: LoadedBundle,
    query: RankQuery,
    indices: Int64s,
    basis: Basis,
) -> dict[str, Float64s]:
    """Return the numbers of the candidates by the features that the blend asks for."""
    wanted = {term.feature for term in query.blend}
    known = indices > 0
    numbers: dict[str, Float64s] = {}
    for feature in wanted:
        if feature.startswith(OWN):
            numbers[feature] = _own_numbers(query.candidates, feature.removeprefix(OWN))
            continue
        column = _column(bundle, feature, basis)
        if column is not None:
            numbers[feature] = np.where(known, column[indices], np.nan)
    return numbers


def _column(bundle: LoadedBundle, feature: str, basis: Basis) -> Float64s | None:
    """Return one number of every item, (num_items + 1,), NaN where unknown; None of no item."""
    columns = bundle.columns
    if feature == MODEL:
        scored = [pick for pick in basis.picks if pick.source == "model"]
        column = np.full(columns.num_items + 1, np.nan)
        column[[pick.index for pick in scored]] = [pick.score for pick in scored]
        return column
    if feature == POPULARITY:
        return bundle.popularity.overall.dense(columns.num_items).astype(np.float64)
    if feature == DISTANCE_KM:
        return columns.distances_km(basis.point.lat, basis.point.lon)
    if feature == AGE_DAYS:
        released = columns.numbers.get(RELEASED_AT)
        if released is None:
            return None
        ages_ms = basis.time_ms - released.dense(columns.num_items)
        return np.maximum(ages_ms, 0.0) / MS_PER_DAY
    numbers = columns.numbers.get(feature) if feature.startswith(ATTRIBUTES) else None
    return None if numbers is None else numbers.dense(columns.num_items)


def _own_numbers(candidates: Sequence[RankedCandidate], name: str) -> Float64s:
    return np.array([one.features.get(name, np.nan) for one in candidates], np.float64)


def _parts(query: RankQuery, blended: Blended, at: int) -> Mapping[str, float]:
    """Return what each feature added to one candidate's score; they sum to it."""
    parts: dict[str, float] = {}
    for term, added in zip(query.blend, blended.parts[:, at].tolist(), strict=True):
        parts[term.feature] = parts.get(term.feature, 0.0) + added
    return parts
