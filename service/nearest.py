"""The best items of a query: looked for in the whole matrix, in a list, or where the index says."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from service.allowed import AllBut, Allowed, Only, without_repeats
from service.contract.features import Float32s, Int64s
from service.item_index import ItemIndex
from service.item_rows import ItemRows
from service.ordering import Best, top_k, top_k_of_columns, top_k_of_places

# A list of up to this share of the catalogue is gathered row by row; for a longer one it is faster
# to multiply everything, alone from a quarter on, in a full batch from a twentieth.
GATHERED_SHARE = 0.1
# Beside an index, up to so many rows are gathered: some 2 ms, where the index would take as long.
MAX_GATHERED = 32_768
# What `is_short` goes by: rows that are multiplied, what is listed or dropped, and how many are
# looked for by an index, which reads more of its cells for longer lists.
MAX_ROWS_READ = 200_000
MAX_SHORT_LIST = 5_000
MAX_SHORT_K = 200
# Up to so many questions take less time one by one than together, of so many rows.
FEW = 3
MAX_ROWS_ALONE = 10_000


class Bonus(NamedTuple):
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


class Question(NamedTuple):
    """The k best of what is allowed are wanted for a query vector, (dim,), and a bonus."""

    query: Float32s
    bonus: Bonus
    allowed: Allowed
    k: int


def is_short(rows: ItemRows, index: ItemIndex | None, allowed: Allowed, k: int) -> bool:
    """Say whether finding the best takes a millisecond or two at the most."""
    if len(rows) <= MAX_ROWS_READ:
        return True
    if isinstance(allowed, Only):
        return len(allowed) <= MAX_SHORT_LIST
    few_dropped = len(allowed.dropped) <= MAX_SHORT_LIST
    few_added = len(rows.added) <= MAX_GATHERED
    return index is not None and few_dropped and few_added and k <= MAX_SHORT_K


def best_of(rows: ItemRows, index: ItemIndex | None, asked: Sequence[Question]) -> list[Best]:
    """Return each question's best items; those that need the whole matrix share its products."""
    best = [_best_of_few(rows, index, question) for question in asked]
    whole = [question for question, found in zip(asked, best, strict=True) if found is None]
    size = rows.batch_size
    parts = [whole[start : start + size] for start in range(0, len(whole), size)]
    found_of_whole = (found for part in parts for found in _best_of_all(rows, part))
    return [next(found_of_whole) if found is None else found for found in best]


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
    own = without_repeats(question.bonus.items)
    own = own[own > 0]
    # The index knows no bonus: own items that lose by it would fill the places of others.
    lowered = own[question.bonus.of_each(own) < 0]
    found = index.nearest(question.query, question.k, question.allowed.without(lowered))
    if found is None:
        return None
    parts = [found, own[question.allowed.holds(own)]]
    if len(rows.added):
        parts.append(_best_added(rows, question))
    return without_repeats(np.concatenate(parts))


def _best_added(rows: ItemRows, question: Question) -> Int64s:
    """Return the best allowed items that came after the bundle; the index does not know them."""
    added = np.arange(rows.num_mapped, len(rows), dtype=np.int64)
    may = question.allowed.holds(added)
    return top_k(added[may], rows.added[may] @ question.query, question.k)[0]


def _best_of_all(rows: ItemRows, asked: Sequence[Question]) -> list[Best]:
    """Return each question's best by the products of all rows."""
    if len(asked) == 1 or (len(asked) <= FEW and len(rows) <= MAX_ROWS_ALONE):
        return [_best_of_one(rows, question) for question in asked]
    scores = rows.passing_products(np.array([one.query for one in asked]))  # (num_items + 1, asked)
    own = _flat_places([one.bonus.items for one in asked])
    np.add.at(scores.reshape(-1), own, np.concatenate([one.bonus.weights for one in asked]))
    dropped = [one.allowed.dropped for one in asked if isinstance(one.allowed, AllBut)]
    if len(dropped) < len(asked):
        # Some are only of a list, whose scores are a small part of their column.
        return [_best_of_scores(scores[:, at], one) for at, one in enumerate(asked)]
    scores.reshape(-1)[_flat_places(dropped)] = -np.inf
    scores[0] = -np.inf
    return top_k_of_columns(scores, [min(one.k, len(one.allowed)) for one in asked])


def _best_of_one(rows: ItemRows, question: Question) -> Best:
    """Return the same for one question, in half the time: steps that find columns fall away."""
    scores = rows.passing_products(question.query[None])[:, 0]
    question.bonus.add_to(scores)
    return _best_of_scores(scores, question)


def _best_of_scores(scores: Float32s, question: Question) -> Best:
    """Return the best of one question's scores, (num_items + 1,), which this may change."""
    allowed = question.allowed
    if isinstance(allowed, Only):
        return top_k(allowed.indices, scores[allowed.indices], question.k)
    scores[allowed.dropped] = -np.inf
    scores[0] = -np.inf
    return top_k_of_places(scores, min(question.k, len(allowed)))


def _flat_places(indices: Sequence[Int64s]) -> Int64s:
    """Return where the items `indices[i]` of column i are in scores of one line."""
    columns = np.repeat(np.arange(len(indices)), [len(one) for one in indices])
    places: Int64s = np.concatenate(indices) * len(indices) + columns
    return places
