"""What may be shown: candidates, less exclusions, filters and what was seen; before any ranking."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

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


class Deeds(NamedTuple):
    """What a user did: the past, its item indices, 0 where unknown, and what is stored of it."""

    past: Past
    items: Int64s
    stored: History | None


@dataclass(frozen=True, slots=True)
class SeenIds:
    """What the user has seen by the request's rule of items that no index stands for.

    `item_ids` are those of the past, `hashes` of what left the history.
    """

    item_ids: frozenset[str]
    hashes: frozenset[int]

    def __contains__(self, item_id: str) -> bool:
        return item_id in self.item_ids or (bool(self.hashes) and item_hash(item_id) in self.hashes)


NO_HASHES = np.zeros(0, np.uint64)
NOTHING_SEEN: Int64s = np.zeros(0, np.int64)
NO_IDS_SEEN = SeenIds(frozenset(), frozenset())


def choose(
    bundle: LoadedBundle,
    query: RecommendationQuery,
    seen: Int64s,
    seen_ids: Callable[[], SeenIds],
    asked: Asked,
) -> Choice:
    """Return what may be shown; everything is left out here, before the best k are taken.

    `seen` are item indices; `seen_ids` is called only if an unknown candidate may have been seen.

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
    unseen = allowed.without(seen)
    new = _unseen(strangers, seen_ids()) if strangers else ()
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


def _unseen(item_ids: Sequence[str], seen: SeenIds) -> tuple[str, ...]:
    return tuple(item_id for item_id in item_ids if item_id not in seen)


def seen_by(bundle: LoadedBundle, query: RecommendationQuery, deeds: Deeds) -> Int64s:
    """Return the indices of what counts as seen: in the past, and in what left the history."""
    counts_code = _counting_codes(bundle, query)
    if counts_code is None:
        return NOTHING_SEEN
    past, items, stored = deeds
    indices = items[counts_code[past.event_types] & (items > 0)]
    if stored is not None and len(stored.seen_hashes):
        left = stored.seen_hashes[counts_code[stored.seen_types]]
        indices = np.concatenate([indices, bundle.hash_index.indices(left)])
    return indices


def ids_seen_by(bundle: LoadedBundle, query: RecommendationQuery, deeds: Deeds) -> SeenIds:
    """Return what counts as seen by ids, for items that the bundle does not know."""
    counts_code = _counting_codes(bundle, query)
    if counts_code is None:
        return NO_IDS_SEEN
    past, _, stored = deeds
    ids = frozenset(
        past.item_ids[place] for place in np.flatnonzero(counts_code[past.event_types]).tolist()
    )
    left = NO_HASHES if stored is None else stored.seen_hashes[counts_code[stored.seen_types]]
    return SeenIds(ids, frozenset(left.tolist()))


def _counting_codes(bundle: LoadedBundle, query: RecommendationQuery) -> NDArray[np.bool_] | None:
    """Say of each event type code whether it counts as seen; None if nothing does."""
    types = query.exclude_seen
    if types is None:
        types = ALL_TYPES if bundle.manifest.exclude_seen == "all" else NO_TYPES
    if not types:
        return None
    counts_code = np.zeros(NUM_CODES, np.bool_)
    counts_code[[EVENT_TYPE_CODES[name] for name in types]] = True
    return counts_code
