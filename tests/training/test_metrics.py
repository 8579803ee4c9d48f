"""Ranking metrics against values worked by hand."""

import numpy as np
import pytest

from training.metrics import (
    arp_at_k,
    case_values,
    coverage_at_k,
    hit_rate_at_k,
    mrr_at_k,
    ndcg_at_k,
    novelty_at_k,
    popularity_bias_at_k,
    recall_at_k,
    summarise,
    target_ranks,
)


def test_a_rank_counts_the_items_that_score_higher() -> None:
    """Scores 0.9 and 0.5 are ahead of 0.3: rank 3."""
    scores = np.array([[9.0, 0.9, 0.3, 0.5]], np.float32)
    assert target_ranks(scores, np.array([2])).tolist() == [3]


def test_a_score_that_is_no_number_ranks_last() -> None:
    """NaN compares false with everything: counted the other way round, it would come first."""
    scores = np.array([[0.0, np.nan, 0.3, 0.5], [0.0, 0.1, np.nan, 0.5]], np.float32)
    assert target_ranks(scores, np.array([1, 3])).tolist() == [4, 2]


def test_padding_never_ranks() -> None:
    """Column 0 scores highest above and is not counted."""
    assert target_ranks(np.array([[9.0, 0.9]], np.float32), np.array([1])).tolist() == [1]


def test_ties_break_by_index_as_in_the_service() -> None:
    """A constant scorer must not win: the third of three equal items has rank 3."""
    scores = np.zeros((1, 4), np.float32)
    assert target_ranks(scores, np.array([3])).tolist() == [3]


def test_ndcg_of_a_target_at_rank_two_is_the_rank_two_discount() -> None:
    """With one target the ideal gain is 1, so NDCG@3 = 1 / log2(1 + 2)."""
    assert ndcg_at_k(np.array([2]), 3) == pytest.approx(1 / np.log2(3))


def test_the_cut_is_inclusive() -> None:
    """Rank 10 is a hit at 10, rank 11 is not."""
    ranks = np.array([10, 11])
    assert hit_rate_at_k(ranks, 10) == 1 / 2
    assert ndcg_at_k(ranks, 10) == pytest.approx((1 / np.log2(11)) / 2)
    assert mrr_at_k(ranks, 10) == pytest.approx((1 / 10) / 2)


def test_coverage_counts_distinct_items() -> None:
    """Three distinct of six."""
    assert coverage_at_k(np.array([[1, 2], [2, 3]]), 6) == 3 / 6


def test_novelty_is_the_mean_self_information() -> None:
    """Half of the users know item 1, an eighth item 2: (1 + 3) / 2 bits."""
    assert novelty_at_k(np.array([[1, 2]]), np.array([1.0, 1 / 2, 1 / 8])) == (1 + 3) / 2


def test_recall_is_the_hit_rate_when_a_case_has_one_target() -> None:
    """One of two targets is found: found ÷ all is 1 / 2, and so is the share of hits."""
    ranks = np.array([3, 12])
    assert recall_at_k(ranks, 10) == hit_rate_at_k(ranks, 10) == 1 / 2


def test_arp_is_the_mean_count_of_what_is_recommended() -> None:
    """Items 1 and 2 have 8 and 2 training events: (8 + 2 + 8 + 8) / 4."""
    counts = np.array([0, 8, 2])
    assert arp_at_k(np.array([[1, 2], [1, 1]]), counts) == (8 + 2 + 8 + 8) / 4


def test_popularity_bias_is_relative_to_the_targets() -> None:
    """Lists average (8 + 2) / 2 = 5 events, the target 2: they are 2.5 times as popular."""
    counts = np.array([0, 8, 2])
    assert popularity_bias_at_k(np.array([[1, 2]]), np.array([2]), counts) == 5 / 2


def test_unseen_targets_leave_the_popularity_bias_finite() -> None:
    """The target has no training event; the divisor is floored at one."""
    assert popularity_bias_at_k(np.array([[1]]), np.array([2]), np.array([0, 8, 0])) == 8 / 1


def test_the_means_of_the_case_values_are_the_metrics() -> None:
    """Intervals are of the very figures that the table shows."""
    ranks = np.array([1, 2, 10, 11, 500])
    means = {name: float(values.mean()) for name, values in case_values(ranks).items()}
    assert means == {name: summarise(ranks)[name] for name in ("hr@1", "hr@10", "ndcg@10", "mrr")}
