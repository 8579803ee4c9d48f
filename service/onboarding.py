"""Onboarding: a new user's chosen categories, as examples that the model can read."""

from collections.abc import Sequence

import numpy as np

from service.bundle_loader import LoadedBundle
from service.contract.events import EVENT_TYPE_CODES, Event, UserId
from service.contract.features import NUMBER_COLUMNS, WINDOW_INPUTS, Int64s, Past
from service.item_columns import CATEGORIES
from service.recommendation import RecommendationQuery

EXAMPLES_PER_CATEGORY = 3
LIKE = EVENT_TYPE_CODES["like"]
MINUTE_MS = 60_000
NO_EXAMPLES = np.zeros(0, np.int64)


def likes_at(query: RecommendationQuery, now_ms: int) -> tuple[Event, ...]:
    """Return a new user's chosen items as likes at the request's time."""
    return tuple(
        Event(
            event_id="",
            user_id=query.user_id or UserId(""),
            item_id=item_id,
            event_type="like",
            timestamp_ms=now_ms,
        )
        for item_id in query.liked
    )


def examples_of(bundle: LoadedBundle, categories: Sequence[str]) -> Int64s:
    """Return the indices of the most popular items of each category, each item once."""
    column = bundle.columns.terms.get(CATEGORIES) if categories else None
    if column is None:
        return NO_EXAMPLES
    weights = bundle.popularity.overall.dense(len(bundle.vocabulary))
    found = []
    for category in dict.fromkeys(categories):
        items = column.items_of(category)
        best = np.lexsort((items, -weights[items]))[:EXAMPLES_PER_CATEGORY]
        found.append(items[best])
    _, firsts = np.unique(np.concatenate(found), return_index=True)
    examples: Int64s = np.concatenate(found)[np.sort(firsts)]
    return examples


def with_examples(
    bundle: LoadedBundle, past: Past, items: Int64s, examples: Int64s, time_ms: int
) -> tuple[Past, Int64s]:
    """Return a past and its item indices with liked examples before everything in it.

    They lie before `time_ms` too, the time of the request, a minute apart, the first one last: the
    model weighs what is recent.
    """
    if not len(examples):
        return past, items
    count = len(examples)
    first_ms = min(time_ms, int(past.timestamps_ms[0])) if len(past) else time_ms
    added = {
        name: np.full(count, np.nan if WINDOW_INPUTS[name] == "float32" else 0, WINDOW_INPUTS[name])
        for name in NUMBER_COLUMNS
    }
    added["event_types"][:] = LIKE
    added["timestamps_ms"] = first_ms - MINUTE_MS * np.arange(count, 0, -1, dtype=np.int64)
    order = examples[::-1]
    ids = tuple(bundle.vocabulary.id(index) for index in order.tolist())
    columns = {name: np.concatenate([added[name], getattr(past, name)]) for name in NUMBER_COLUMNS}
    return Past(ids + past.item_ids, **columns), np.concatenate([order, items])
