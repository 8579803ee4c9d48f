"""What may be shown: candidates, less exclusions, filters and what was seen; before any ranking."""

from dataclasses import dataclass

import numpy as np

from service.allowed import Allowed
from service.bundle_loader import LoadedBundle
from service.contract.events import EVENT_TYPE_CODES
from service.contract.features import Int64s, Past
from service.contract.vocabulary import item_hash
from service.filters import Asked, matching
from service.recommendation import ALL_TYPES, NO_TYPES, RecommendationQuery
from service.retrieval import known_indices, retrieve
from service.store.history import History

# A stored history may hold any byte as the code of a type that another version knows.
NUM_CODES = 256


@dataclass(frozen=True, slots=True)
class Choice:
    """What may be shown: known items, and unknown candidates in the caller's order.

    `all_seen` says that only seen items were left, so that seeing was not held against them.
    `included` are known items, ascending, and `guests` unknown ids, that get a place in any case.
    `not_in_catalogue` are all candidates that are unknown, whether or not they may be shown.
    """

    known: Allowed
    unknown: tuple[str, ...]
    all_seen: bool
    included: Int64s
    guests: tuple[str, ...]
    not_in_catalogue: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Seen:
    """What the user has seen by the request's rule: item indices, and hashes of any id."""

    indices: Int64s
    hashes: frozenset[int]


def choose(bundle: LoadedBundle, query: RecommendationQuery, seen: Seen, asked: Asked) -> Choice:
    """Return what may be shown; everything is left out here, before the best k are taken.

    What the caller includes is shown although it was seen or does not fit the filter, and not if
    the caller excludes it as well.
    """
    vocabulary = bundle.vocabulary
    candidates = retrieve(vocabulary, query.candidates)
    excluded = np.concatenate([known_indices(vocabulary, query.exclude), bundle.withheld])
    allowed = candidates.known.without(excluded)
    strangers = tuple(text for text in candidates.unknown if text not in query.exclude)
    if query.filter is not None:
        fits = matching(query.filter, bundle.columns, asked)
        allowed = allowed.fitting(fits)
        # Element 0 is an item of which nothing is known, which a stranger is.
        strangers = strangers if fits[0] else ()
    unseen = allowed.without(seen.indices)
    new = tuple(text for text in strangers if item_hash(text) not in seen.hashes)
    all_seen = bool(len(allowed) or strangers) and not (len(unseen) or new)
    included, guests = _included(bundle, query, excluded)
    known = (allowed if all_seen else unseen).including(included)
    unknown = tuple(text for text in (strangers if all_seen else new) if text not in guests)
    return Choice(
        known=known,
        unknown=unknown,
        all_seen=all_seen,
        included=included,
        guests=guests,
        not_in_catalogue=candidates.unknown,
    )


def _included(
    bundle: LoadedBundle, query: RecommendationQuery, excluded: Int64s
) -> tuple[Int64s, tuple[str, ...]]:
    """Return the included items that are known, ascending, and the ids that are not."""
    if not query.include:
        return excluded[:0], ()
    asked = retrieve(bundle.vocabulary, query.include)
    guests = tuple(text for text in asked.unknown if text not in query.exclude)
    known = asked.known.without(excluded)
    return known.first(len(known)), guests


def seen_by(
    bundle: LoadedBundle,
    query: RecommendationQuery,
    past: Past,
    items: Int64s,
    stored: History | None,
) -> Seen:
    """Return what counts as seen: by events of the past, and by those that left the history.

    `items` are the past's item indices, 0 where the bundle does not know the item.
    """
    types = query.exclude_seen
    if types is None:
        types = ALL_TYPES if bundle.manifest.exclude_seen == "all" else NO_TYPES
    counts_code = np.zeros(NUM_CODES, np.bool_)
    counts_code[[EVENT_TYPE_CODES[name] for name in types]] = True
    counts = counts_code[past.event_types]
    indices = items[counts & (items > 0)]
    left = np.zeros(0, np.uint64)
    if stored is not None and len(stored.seen_hashes):
        left = stored.seen_hashes[counts_code[stored.seen_types]]
        indices = np.concatenate([indices, bundle.hash_index.indices(left)])
    if query.candidates is None:
        # Only a list of candidates can hold unknown ids, so only then are hashes looked at.
        return Seen(indices, frozenset())
    ids = (past.item_ids[place] for place in np.flatnonzero(counts).tolist())
    return Seen(indices, frozenset(left.tolist()) | {item_hash(item_id) for item_id in ids})
