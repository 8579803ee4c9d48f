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
    """What the user has seen by the request's rule: item indices, ids, and hashes of other ids."""

    indices: Int64s
    item_ids: frozenset[str]
    hashes: frozenset[int]

    def has(self, item_id: str) -> bool:
        """Say whether an item is seen that the catalogue does not know."""
        return item_id in self.item_ids or (bool(self.hashes) and item_hash(item_id) in self.hashes)


NO_HASHES = np.zeros(0, np.uint64)
NOTHING_SEEN = Seen(np.zeros(0, np.int64), frozenset(), frozenset())


def choose(bundle: LoadedBundle, query: RecommendationQuery, seen: Seen, asked: Asked) -> Choice:
    """Return what may be shown; everything is left out here, before the best k are taken.

    What the caller includes is shown although it was seen or does not fit the filter, and not if
    the caller excludes it as well.
    """
    vocabulary = bundle.vocabulary
    candidates = retrieve(vocabulary, query.candidates)
    excluded = bundle.withheld
    if query.exclude:
        excluded = np.concatenate([known_indices(vocabulary, query.exclude), excluded])
    allowed = candidates.known.without(excluded)
    strangers = tuple(text for text in candidates.unknown if text not in query.exclude)
    if query.filter is not None:
        fits = matching(query.filter, bundle.columns, asked)
        allowed = allowed.fitting(fits)
        # Element 0 is an item of which nothing is known, which a stranger is.
        strangers = strangers if fits[0] else ()
    unseen = allowed.without(seen.indices)
    new = tuple(text for text in strangers if not seen.has(text))
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
    if not types:
        return NOTHING_SEEN
    counts_code = np.zeros(NUM_CODES, np.bool_)
    counts_code[[EVENT_TYPE_CODES[name] for name in types]] = True
    counts = counts_code[past.event_types]
    indices = items[counts & (items > 0)]
    left = NO_HASHES
    if stored is not None and len(stored.seen_hashes):
        left = stored.seen_hashes[counts_code[stored.seen_types]]
        indices = np.concatenate([indices, bundle.hash_index.indices(left)])
    if query.candidates is None:
        # Only a list of candidates can hold unknown ids, so only then are ids looked at.
        return Seen(indices, frozenset(), frozenset())
    ids = frozenset(past.item_ids[place] for place in np.flatnonzero(counts).tolist())
    return Seen(indices, ids, frozenset(left.tolist()))
