import numpy as np

from service.allowed import AllBut, Only
from service.contract.vocabulary import Vocabulary
from service.fallback import MS_PER_HOUR, RankedList, Rung, climb, live_list, local_hour, repeats

ALL = AllBut(np.zeros(0, np.int64), num_items=5)


def test_each_item_comes_from_the_first_rung_that_has_it() -> None:
    """Item 2 is on both rungs and counts as a repeat."""
    rungs = [
        Rung("repeat", RankedList.of([(2, 3.0)])),
        Rung("popular", RankedList.of([(4, 9.0), (2, 8.0)])),
    ]
    picks = climb(rungs, ALL, k=2)
    assert [(pick.index, pick.source, pick.score) for pick in picks] == [
        (2, "repeat", 3.0),
        (4, "popular", 9.0),
    ]


def test_the_ladder_ends_with_the_whole_catalogue() -> None:
    """An answer is as long as what may be shown, even if nothing is popular."""
    picks = climb([], Only(np.array([2, 5])), k=10)
    assert [(pick.index, pick.source, pick.score) for pick in picks] == [
        (2, "popular", 0.0),
        (5, "popular", 0.0),
    ]


def test_what_may_not_be_shown_is_on_no_rung() -> None:
    """Popular items are filtered as all others are."""
    rung = Rung("popular", RankedList.of([(1, 2.0), (3, 1.0)]))
    assert [pick.index for pick in climb([rung], Only(np.array([3])), k=5)] == [3]


def test_repeats_are_by_weight_and_then_by_how_lately_they_came() -> None:
    """1 and 2 weigh 2 each, 2 came later; 3 was disliked; 0 is an item the bundle lacks."""
    items = np.array([1, 2, 1, 2, 3, 0])
    weights = np.array([1, 1, 1, 1, -1, 5], np.float32)
    assert repeats(items, weights).indices.tolist() == [2, 1]


def test_live_counts_of_unknown_items_are_left_out() -> None:
    """An item may be popular before any bundle knows it; a disliked one is not popular."""
    counts = [("z", 9.0), ("b", 2.0), ("a", 2.0), ("c", -1.0)]
    assert live_list(counts, Vocabulary(["a", "b", "c"])).indices.tolist() == [1, 2]


def test_the_hour_is_the_users_own() -> None:
    """11 p.m. in UTC is 1 a.m. two hours east, and the evening before in the west."""
    assert local_hour(23 * MS_PER_HOUR, 120) == 1
    assert local_hour(23 * MS_PER_HOUR, -480) == 15
    assert local_hour(MS_PER_HOUR, -120) == 23
