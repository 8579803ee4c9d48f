"""What a ranking goes by: the user's past, the request's time and place, and what may be shown."""

from dataclasses import dataclass, replace

import numpy as np

from service.bundle_loader import LoadedBundle
from service.choosing import Choice, seen_by
from service.contract.events import UserId
from service.contract.features import UNKNOWN_TIME_MS, Int64s, Past, RequestPoint
from service.deadline import Deadline
from service.filters import Asked
from service.onboarding import with_examples
from service.ranker import AtPoint
from service.readings import Reading
from service.recommendation import NO_TYPES, RankQuery, RecommendationQuery
from service.serving_model import ServingModel
from service.text_match import TextMatch
from service.windows import build_window


@dataclass(frozen=True, slots=True)
class Case:
    """All that a ranking goes by.

    `examples` are liked items that a new user's categories stand for; `k` is how long the list is
    to be, all its pages together; `deadline` is when the answer is due.
    """

    model: ServingModel
    user_id: UserId | None
    reading: Reading
    examples: Int64s
    asked: Asked
    point: RequestPoint
    choice: Choice
    k: int
    deadline: Deadline
    match: TextMatch | None = None


def seen_of(bundle: LoadedBundle, query: RecommendationQuery, reading: Reading) -> Int64s:
    """Return what counts as seen; by the bundle's own rule it is found once for a reading."""
    if query.exclude_seen is not None:
        return seen_by(bundle, query, reading.deeds)
    if reading.seen is None:
        reading.seen = seen_by(bundle, query, reading.deeds)
    return reading.seen


def known_past(case: Case) -> tuple[Past, Int64s]:
    """Return the past that a window is made of, and its items as the encoder knows them, or 0."""
    bundle = case.model.bundle
    past, items, _ = case.reading.deeds
    past, items = with_examples(bundle, past, items, case.examples, case.asked.time_ms)
    # The encoder knows the bundle's own items; later ones are no rows of its table.
    if bundle.num_trained < len(bundle.vocabulary):
        items = np.where(items <= bundle.num_trained, items, 0)
    return past, items


def window_of(case: Case, point: RequestPoint) -> AtPoint | None:
    """Return what the encoder is to be asked, None if there is nothing to ask about."""
    bundle = case.model.bundle
    past, items = known_past(case)
    if not items.any():
        return None
    return AtPoint(build_window(past, items, bundle.type_indices), point)


def encoder_point(case: Case) -> RequestPoint:
    """Return when and where, of which an encoder may not want the time."""
    if case.model.bundle.manifest.features.uses_request_time:
        return case.point
    return replace(case.point, time_ms=UNKNOWN_TIME_MS)


def as_recommendation(query: RankQuery) -> RecommendationQuery:
    """Return the query whose candidates are all of the caller's, seen or not."""
    return RecommendationQuery(
        k=len(query.candidates),
        candidates=tuple(one.item_id for one in query.candidates),
        exclude_seen=NO_TYPES,
        user_id=query.user_id,
        events=query.events,
        now_ms=query.now_ms,
        tz_offset_min=query.tz_offset_min,
        lat=query.lat,
        lon=query.lon,
    )


def request_point(model: ServingModel, query: RecommendationQuery, asked: Asked) -> RequestPoint:
    """Return when and where, as the bundle reads it."""
    # The hours that a bundle without offsets was trained on are UTC; local ones would be other
    # hours.
    knows = model.bundle.manifest.features.knows_offsets
    return RequestPoint(
        time_ms=asked.time_ms,
        tz_offset_min=asked.tz_offset_min if knows else 0,
        lat=np.nan if query.lat is None else query.lat,
        lon=np.nan if query.lon is None else query.lon,
    )
