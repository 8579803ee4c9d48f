"""Recall as the benchmark counts it."""

import numpy as np
import pytest

from benchmarks.serving.recall import share_found
from benchmarks.serving.requests import BenchmarkFailed

# Items 1 to 20 score 1 to 20; the ten best are 11 to 20. Element 0 is no item, whatever is there.
SCORES = np.array([99.0, *range(1, 21)], np.float32)


def test_recall_is_the_share_of_the_ten_best() -> None:
    """Two of the answered items, 1 and 2, are none of them."""
    assert share_found([*range(11, 21)], SCORES) == 1.0
    assert share_found([*range(13, 21), 1, 2], SCORES) == pytest.approx(8 / 10)


def test_items_of_one_score_are_as_good_as_each_other() -> None:
    """Which of them comes last is for nobody to say."""
    scores = SCORES.copy()
    scores[10] = scores[11]
    assert share_found([10, *range(12, 21)], scores) == 1.0


def test_a_list_that_repeats_itself_is_refused() -> None:
    """It would be found to be right at every place."""
    with pytest.raises(BenchmarkFailed, match="1 different items"):
        share_found([20] * 10, SCORES)
