"""Retrieval: which items get scored, the catalogue or the caller's list."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.allowed import AllBut, Allowed, Only, without_repeats
from service.contract.features import Int64s
from service.contract.vocabulary import Vocabulary


@dataclass(frozen=True, slots=True)
class Candidates:
    """The items a request may be answered with: the known ones, and ids of the caller's list.

    `unknown` are those that the catalogue does not have, in the caller's order, once each.
    """

    known: Allowed
    unknown: tuple[str, ...] = ()


def retrieve(vocabulary: Vocabulary, listed: Sequence[str] | None) -> Candidates:
    """Return the caller's candidates, or the whole catalogue if there is no list."""
    if listed is None:
        return Candidates(AllBut(np.zeros(0, np.int64), len(vocabulary)))
    indices = vocabulary.indices(listed)
    known = indices[indices > 0]
    unknown: tuple[str, ...] = ()
    if len(known) < len(indices):
        strangers = (listed[place] for place in np.flatnonzero(indices == 0).tolist())
        unknown = tuple(dict.fromkeys(strangers))
    return Candidates(Only(without_repeats(known)), unknown)


def known_indices(vocabulary: Vocabulary, ids: Iterable[str]) -> Int64s:
    """Return the indices of those ids that the catalogue has."""
    indices = vocabulary.indices(list(ids))
    known: Int64s = indices[indices > 0]
    return known


class HashIndex:
    """Finds items by the hash of their id, which is how seen sets name them."""

    def __init__(self, sorted_hashes: NDArray[np.uint64], items: Int64s) -> None:
        self._sorted = sorted_hashes
        self._items = items

    @classmethod
    def of(cls, item_hashes: NDArray[np.uint64]) -> "HashIndex":
        """Return the index of the hashes of items 1 to N."""
        order = np.argsort(item_hashes)
        return cls(item_hashes[order], order + 1)

    def extended(self, item_hashes: NDArray[np.uint64]) -> "HashIndex":
        """Return the index with more items behind these; copies, and sorts nothing again."""
        order = np.argsort(item_hashes)
        places = np.searchsorted(self._sorted, item_hashes[order])
        return HashIndex(
            np.insert(self._sorted, places, item_hashes[order]),
            np.insert(self._items, places, order + 1 + len(self._items)),
        )

    def indices(self, hashes: NDArray[np.uint64]) -> Int64s:
        """Return the item indices, from 1, of those hashes that are an item's."""
        return self.find(hashes)[0]

    def find(self, hashes: NDArray[np.uint64]) -> tuple[Int64s, NDArray[np.bool_]]:
        """Return the indices of those hashes that are an item's, and which hashes these are."""
        if not len(hashes):
            return np.zeros(0, np.int64), np.zeros(0, np.bool_)
        places = np.searchsorted(self._sorted, hashes)
        places = np.minimum(places, len(self._sorted) - 1)
        hits: NDArray[np.bool_] = self._sorted[places] == hashes
        return self._items[places[hits]], hits
