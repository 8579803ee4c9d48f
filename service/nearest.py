"""The best items of a query: looked for in the whole matrix, in a list, or where the index says."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from service.allowed import Allowed, Only
from service.contract.features import Float32s, Int64s
from service.item_index import ItemIndex
from service.item_rows import ItemRows
from service.ordering import top_k, top_k_of_all

# Item indices and their scores, best first.
Best: TypeAlias = tuple[Int64s, Float32s]

# A list of up to this share of the catalogue is gathered row by row; for a longer one it is faster
# to multiply everything.
GATHERED_SHARE = 0.25
# Beside an index, up to so many rows are gathered: some 2 ms, where the index would take as long.
MAX_GATHERED = 32_768


@dataclass(frozen=True, slots=True)
class Bonus:
    """What items of a window score more for being there: `items` may repeat, and their weights.

    Both are (window_len,); item 0 is padding.
    """

    items: Int64s
    weights: Float32s

    @classmethod
    def nothing(cls) -> "Bonus":
        """Return the bonus of a model without repeats."""
        return cls(np.zeros(0, np.int64), np.zeros(0, np.float32))

    def add_to(self, scores: Float32s) -> None:
        """Add to scores by item index; element 0 gets what padding has."""
        np.add.at(scores, self.items, self.weights)

    def of_each(self, indices: Int64s) -> Float32s:
        """Return each item's bonus, parallel to `indices`."""
        if not len(self.items):
            return np.zeros(len(indices), np.float32)
        items, places = np.unique(self.items, return_inverse=True)
        amounts = np.bincount(places, weights=self.weights).astype(np.float32)
        at = np.minimum(np.searchsorted(items, indices), len(items) - 1)
        return np.where(items[at] == indices, amounts[at], np.float32(0))


@dataclass(frozen=True, slots=True)
class Question:
    """The k best of what is allowed are wanted for a query vector, (dim,), and a bonus."""

    query: Float32s
    bonus: Bonus
    allowed: Allowed
    k: int


def best_of(rows: ItemRows, index: ItemIndex | None, asked: Sequence[Question]) -> list[Best]:
    """Return each question's best items; those that need the whole matrix share its products."""
    best = [_best_of_few(rows, index, question) for question in asked]
    open_places = [place for place, found in enumerate(best) if found is None]
    queries = np.array([asked[place].query for place in open_places])
    products = (row for part in rows.batches(queries) for row in rows.products(part))
    whole = {
        place: _best_of_all(scores, asked[place])
        for place, scores in zip(open_places, products, strict=True)
    }
    return [whole[place] if found is None else found for place, found in enumerate(best)]


def scores_of(rows: ItemRows, question: Question, indices: Int64s) -> Float32s:
    """Return the exact scores of some items, parallel to `indices`."""
    products: Float32s = rows.of(indices) @ question.query
    return products + question.bonus.of_each(indices)


def _best_of_few(rows: ItemRows, index: ItemIndex | None, question: Question) -> Best | None:
    """Return the best by looking at some rows only, None if that cannot be."""
    allowed = question.allowed
    length = len(allowed) if isinstance(allowed, Only) else len(rows)
    pool = None
    if index is not None and length > MAX_GATHERED and question.k < len(allowed):
        pool = _pool(rows, index, question)
    if pool is None and isinstance(allowed, Only) and length <= GATHERED_SHARE * len(rows):
        pool = allowed.indices
    return None if pool is None else top_k(pool, scores_of(rows, question, pool), question.k)


def _pool(rows: ItemRows, index: ItemIndex, question: Question) -> Int64s | None:
    """Return allowed items among which the best are: what the index finds, own and added ones.

    None where the index cannot say.
    """
    found = index.nearest(question.query, question.k, question.allowed)
    if found is None:
        return None
    own = question.bonus.items
    parts = [found, own[(own > 0) & question.allowed.holds(own)]]
    if len(rows.added):
        parts.append(_best_added(rows, question))
    return np.unique(np.concatenate(parts))


def _best_added(rows: ItemRows, question: Question) -> Int64s:
    """Return the best allowed items that came after the bundle; the index does not know them."""
    added = np.arange(rows.num_mapped, len(rows), dtype=np.int64)
    may = question.allowed.holds(added)
    return top_k(added[may], rows.added[may] @ question.query, question.k)[0]


def _best_of_all(scores: Float32s, question: Question) -> Best:
    """Return the best by the products of all rows, (num_items + 1,), which are changed."""
    bonus, allowed = question.bonus, question.allowed
    bonus.add_to(scores)
    if isinstance(allowed, Only):
        return top_k(allowed.indices, scores[allowed.indices], question.k)
    scores[0] = -np.inf
    scores[allowed.dropped] = -np.inf
    return top_k_of_all(scores, min(question.k, len(allowed)))
