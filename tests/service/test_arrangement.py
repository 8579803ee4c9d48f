"""Arrangement: variety, rotation and exploration, each by cases worked out by hand."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.arrangement import (
    Arrangement,
    Diversity,
    Exploration,
    Pool,
    Rotation,
    arrange,
    shown_weights,
)

NOTHING = frozenset[int]()


def pool(
    *scores: float,
    vectors: list[list[float]] | None = None,
    groups: list[frozenset[int]] | None = None,
    shown: list[float] | None = None,
) -> Pool:
    """Return a pool in which all vectors are at right angles and nobody shares a group."""
    count = len(scores)
    return Pool(
        np.array(scores, np.float32),
        np.array(vectors, np.float32) if vectors else np.eye(count, dtype=np.float32),
        groups or [NOTHING] * count,
        np.array(shown or [0.0] * count, np.float32),
    )


def places(pool_: Pool, k: int, wanted: Arrangement) -> list[int]:
    """Return which of the pool have a place, in order."""
    return [one.place for one in arrange(pool_, k, wanted)]


def test_nothing_wanted_is_the_pools_beginning() -> None:
    """A pool comes best first, so its first k are the answer, each certain."""
    placed = arrange(pool(3.0, 2.0, 1.0), 2, Arrangement())
    assert [(one.place, one.propensity, one.drawn) for one in placed] == [
        (0, 1.0, False),
        (1, 1.0, False),
    ]


def test_a_copy_of_the_first_item_gives_way_to_another_kind() -> None:
    """Relevance is 1, .9, 0 and MMR at .6 of the copy .4 x .9 - .6 x 1, of the other .4 x 0."""
    twins = pool(10.0, 9.0, 0.0, vectors=[[1, 0], [2, 0], [0, 1]])
    assert places(twins, 2, Arrangement(Diversity(0.6))) == [0, 2]
    assert places(twins, 2, Arrangement(Diversity(0.4))) == [0, 1]


def test_similarity_is_to_the_nearest_chosen_item_also_when_it_is_negative() -> None:
    """Opposite vectors have cosine -1, which must not be held at 0 by the first comparison."""
    opposite = pool(2.0, 1.0, 1.0, vectors=[[1, 0], [0, 1], [-1, 0]])
    assert places(opposite, 2, Arrangement(Diversity(0.5))) == [0, 2]


def test_a_cap_lets_a_group_have_its_number_and_no_more() -> None:
    """Two of group 1 have a place, the third waits behind group 2."""
    groups = [frozenset({1}), frozenset({1, 3}), frozenset({1}), frozenset({2})]
    capped = pool(4.0, 3.0, 2.0, 1.0, groups=groups)
    assert places(capped, 3, Arrangement(Diversity(max_per_group=2))) == [0, 1, 3]


def test_a_cap_never_makes_a_list_short() -> None:
    """When every item left is over its cap the best of them follows all the same."""
    capped = pool(3.0, 2.0, 1.0, groups=[frozenset({1})] * 3)
    assert places(capped, 3, Arrangement(Diversity(max_per_group=1))) == [0, 1, 2]


def test_what_was_shown_goes_down_by_its_share_of_the_scores_range() -> None:
    """Relevance 1, .75, 0 less .5 x (1, 0, 0) is .5, .75, 0."""
    tired = pool(4.0, 3.0, 0.0, shown=[1.0, 0.0, 0.0])
    assert places(tired, 3, Arrangement(rotation=Rotation(0.5, 60))) == [1, 0, 2]
    assert places(tired, 3, Arrangement(rotation=Rotation(0.2, 60))) == [0, 1, 2]


def test_a_showing_loses_half_its_weight_every_half_life() -> None:
    """Item 7 was shown now and one half life ago (1 + .5, at most 1), item 5 two ago (.25)."""
    weights = shown_weights(
        np.array([5, 7, 2]), np.array([7, 7, 5, 99]), np.array([60_000, 0, -60_000, 0]), 60_000, 60
    )
    assert weights == pytest.approx([0.25, 1.0, 0.0])
    nothing = np.zeros(0, np.int64)
    assert shown_weights(np.array([5]), nothing, nothing, 0, 60) == pytest.approx([0.0])
    assert len(shown_weights(nothing, np.array([5]), np.array([0]), 0, 60)) == 0


def test_propensities_are_how_often_a_seed_of_many_gives_the_place() -> None:
    """A tenth of the places is drawn of three: .9 + .1 / 3 for the best, .1 / 3 for others."""
    seen: Counter[int] = Counter()
    for seed in range(6_000):
        first = arrange(pool(3.0, 2.0, 1.0), 1, Arrangement(exploration=Exploration(0.1, seed)))[0]
        seen[first.place] += 1
        expected = 0.1 / 3 + (0.9 if first.place == 0 else 0.0)
        assert first.propensity == pytest.approx(expected)
        assert first.drawn == (first.place != 0)
    # Four standard errors of a share of .967 among 6,000.
    assert seen[0] / 6_000 == pytest.approx(0.9 + 0.1 / 3, abs=4 * (0.967 * 0.033 / 6_000) ** 0.5)


def test_one_seed_gives_one_list() -> None:
    """An answer can be made again from what is logged of it."""
    wanted = Arrangement(exploration=Exploration(0.7, 11))
    many = pool(*range(20, 0, -1))
    assert arrange(many, 10, wanted) == arrange(many, 10, wanted)
    other = Arrangement(exploration=Exploration(0.7, 12))
    assert arrange(many, 10, wanted) != arrange(many, 10, other)


@given(
    st.lists(st.floats(-5, 5, width=32), max_size=30),
    st.integers(0, 40),
    st.floats(0, 1),
    st.floats(0, 1),
    st.integers(1, 3),
)
def test_the_list_is_as_long_as_it_can_be_and_names_nobody_twice(
    scores: list[float], k: int, strength: float, share: float, cap: int
) -> None:
    """Whatever is wanted, and for pools of any size, equal scores and none included."""
    groups = [frozenset({place % 2}) for place in range(len(scores))]
    wanted = Arrangement(
        Diversity(strength, cap), Rotation(strength, 10.0), Exploration(share, len(scores))
    )
    placed = arrange(pool(*sorted(scores, reverse=True), groups=groups), k, wanted)
    assert len({one.place for one in placed}) == len(placed) == min(k, len(scores))
    assert all(0 < one.propensity <= 1 for one in placed)
