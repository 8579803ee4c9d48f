"""What may be shown: both ways to say it, against plain sets."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from service.allowed import AllBut, Allowed, Only
from service.contract.features import Int64s

NUM_ITEMS = 12
ITEMS = st.sets(st.integers(1, NUM_ITEMS))


def ascending(items: set[int]) -> Int64s:
    """Return items as the array that these classes take."""
    return np.array(sorted(items), np.int64)


def as_set(allowed: Allowed) -> set[int]:
    """Return what is allowed, asked item by item, having looked that all ways to ask agree."""
    every = np.arange(1, NUM_ITEMS + 1)
    held = every[allowed.holds(every)].tolist()
    assert allowed.first(NUM_ITEMS).tolist() == held
    assert allowed.first(2).tolist() == held[:2]
    assert len(allowed) == len(held)
    return set(held)


@given(ITEMS, ITEMS, ITEMS, ITEMS, st.booleans())
def test_what_is_left_is_what_sets_say(
    start: set[int], dropped: set[int], included: set[int], fitting: set[int], lists: bool
) -> None:
    """Dropping, filtering and including are set operations, whichever way the set is written."""
    everything = set(range(1, NUM_ITEMS + 1))
    allowed: Allowed = (
        Only(ascending(start)) if lists else AllBut(ascending(everything - start), NUM_ITEMS)
    )
    fits = np.isin(np.arange(NUM_ITEMS + 1), [0, *fitting])
    assert as_set(allowed) == start
    assert as_set(allowed.without(np.array([*dropped, *dropped], np.int64))) == start - dropped
    assert as_set(allowed.including(ascending(included))) == start | included
    assert as_set(allowed.fitting(fits)) == start & fitting


def test_a_filter_is_written_the_shorter_way() -> None:
    """Neither a rare nor a common filter lists more than half of the catalogue."""
    everything = AllBut(np.zeros(0, np.int64), NUM_ITEMS)
    fits = np.arange(NUM_ITEMS + 1) > 4
    common, rare = everything.fitting(fits), everything.fitting(~fits)
    assert isinstance(common, AllBut)
    assert isinstance(rare, Only)
    assert (common.dropped.tolist(), rare.indices.tolist()) == ([1, 2, 3, 4], [1, 2, 3, 4])


def test_dropped_items_are_gone_and_the_order_stays() -> None:
    """Dropping an item that is no candidate changes nothing."""
    left = Only(np.array([1, 3, 5])).without(np.array([1, 4]))
    assert left.first(5).tolist() == [3, 5]
