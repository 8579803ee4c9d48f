import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from service.ordering import top_k, top_k_of_places


def test_equal_scores_are_ordered_by_index() -> None:
    """The same question must have the same answer; three items tie for two places."""
    indices, scores = top_k(np.array([9, 4, 7, 2]), np.array([1, 1, 2, 1], np.float32), k=3)
    assert (indices.tolist(), scores.tolist()) == ([7, 2, 4], [2, 1, 1])


@given(st.lists(st.integers(-3, 3), max_size=30), st.integers(0, 35))
def test_top_k_is_the_head_of_a_full_sort(scores: list[int], k: int) -> None:
    """The partition is a faster way to what sorting everything gives."""
    indices = np.arange(1, len(scores) + 1)
    found, _ = top_k(indices, np.array(scores, np.float32), k)
    expected = sorted(indices.tolist(), key=lambda index: (-scores[index - 1], index))
    assert found.tolist() == expected[:k]


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=30), st.integers(0, 35))
def test_the_best_places_are_those_of_a_full_sort(scores: list[int], k: int) -> None:
    """Places stand for themselves; equal scores go by place."""
    places, found = top_k_of_places(np.array(scores, np.float32), k)
    expected = sorted(range(len(scores)), key=lambda place: (-scores[place], place))[:k]
    assert places.tolist() == expected
    assert found.tolist() == [scores[place] for place in expected]
