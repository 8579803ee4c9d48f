"""What a request may be answered with, said in as few indices as it takes.

A catalogue of a million items less the hundred that somebody saw is a hundred numbers, not a
million: nothing here costs more than what is listed or dropped.
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from service.contract.features import Int64s

Mask: TypeAlias = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Only:
    """These items and no others: `indices`, ascending and without repeats."""

    indices: Int64s

    def __len__(self) -> int:
        return len(self.indices)

    def without(self, dropped: Int64s) -> "Allowed":
        """Return what is left when these are dropped."""
        if not len(dropped) or not len(self.indices):
            return self
        return Only(self.indices[~are_in(self.indices, without_repeats(dropped))])

    def including(self, items: Int64s) -> "Allowed":
        """Return the same and these items, if they are not there yet."""
        return Only(without_repeats(np.concatenate([self.indices, items]))) if len(items) else self

    def fitting(self, fits: Mask) -> "Allowed":
        """Return those that fit; `fits` is by item index."""
        return Only(self.indices[fits[self.indices]])

    def holds(self, indices: Int64s) -> Mask:
        """Say of each index whether it is allowed."""
        return are_in(indices, self.indices)

    def first(self, count: int) -> Int64s:
        """Return up to `count` of the smallest indices, ascending."""
        return self.indices[:count]


@dataclass(frozen=True, slots=True)
class AllBut:
    """All items, 1 to `num_items`, but these: `dropped`, ascending and without repeats."""

    dropped: Int64s
    num_items: int

    def __len__(self) -> int:
        return self.num_items - len(self.dropped)

    def without(self, dropped: Int64s) -> "Allowed":
        """Return what is left when these are dropped too."""
        if not len(dropped):
            return self
        return AllBut(without_repeats(np.concatenate([self.dropped, dropped])), self.num_items)

    def including(self, items: Int64s) -> "Allowed":
        """Return the same and these items, if they are not there yet."""
        if not len(items) or not len(self.dropped):
            return self
        return AllBut(self.dropped[~are_in(self.dropped, items)], self.num_items)

    def fitting(self, fits: Mask) -> "Allowed":
        """Return those that fit; `fits` is by item index, element 0 unused."""
        fits = fits.copy()
        fits[0] = False
        fits[self.dropped] = False
        if 2 * np.count_nonzero(fits) <= self.num_items:
            return Only(np.flatnonzero(fits).astype(np.int64))
        fits[0] = True
        return AllBut(np.flatnonzero(~fits).astype(np.int64), self.num_items)

    def holds(self, indices: Int64s) -> Mask:
        """Say of each index whether it is allowed."""
        return ~are_in(indices, self.dropped)

    def first(self, count: int) -> Int64s:
        """Return up to `count` of the smallest indices, ascending."""
        # Among so many of the smallest, no more than all that are dropped can be missing.
        last = min(self.num_items, count + len(self.dropped))
        head = np.arange(1, last + 1, dtype=np.int64)
        return head[self.holds(head)][:count]


Allowed: TypeAlias = Only | AllBut


def without_repeats(indices: Int64s) -> Int64s:
    """Return indices ascending, each once; of a few hundred in an eighth of NumPy's own time."""
    ordered = np.sort(indices)
    is_first = np.ones(len(ordered), np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=is_first[1:])
    return ordered[is_first]


def are_in(indices: Int64s, ascending: Int64s) -> Mask:
    """Say of each index whether it is in an ascending array; costs a binary search each."""
    if not len(ascending):
        return np.zeros(len(indices), np.bool_)
    places = np.minimum(np.searchsorted(ascending, indices), len(ascending) - 1)
    found: Mask = ascending[places] == indices
    return found
