"""Metrics of clicks and watch time, worked by hand."""

import math

import numpy as np
import pytest

from training.task_metrics import auc, click_metrics, group_auc, log_loss, watch_metrics

FOUR = np.array([0.9, 0.8, 0.3, 0.1])


def test_auc_counts_pairs_in_the_right_order() -> None:
    """Positives .9 and .3, negatives .8 and .1: three of four pairs are right."""
    assert auc(FOUR, np.array([True, False, True, False])) == 0.75


def test_auc_of_a_constant_is_a_half() -> None:
    """Ties count half: a scorer that says nothing wins nothing."""
    assert auc(np.zeros(6), np.array([True, False] * 3)) == 0.5


def test_auc_of_one_class_is_unknown() -> None:
    """There is no pair to order."""
    assert math.isnan(auc(FOUR, np.ones(4, bool)))


def test_group_auc_leaves_out_groups_of_one_class_and_weighs_by_size() -> None:
    """Group 0 is right (AUC 1, two rows), group 1 wrong (0, two rows), group 2 has one class."""
    scores = np.array([0.9, 0.1, 0.2, 0.8, 0.5])
    labels = np.array([True, False, True, False, True])
    assert group_auc(scores, labels, np.array([0, 0, 1, 1, 2])) == 0.5


def test_log_loss_of_an_even_bet_is_log_2() -> None:
    """And huge logits do not overflow: being surely wrong by 1000 costs 1000."""
    assert log_loss(np.zeros(2), np.array([True, False])) == pytest.approx(math.log(2))
    assert log_loss(np.array([1000.0]), np.array([False])) == pytest.approx(1000.0)


def test_click_metrics_name_what_they_are() -> None:
    """The report's keys."""
    found = click_metrics(FOUR, np.array([True, False, True, False]), np.zeros(4, np.int64))
    assert set(found) == {"auc", "user_auc", "log_loss"}


def test_watch_errors_are_in_logs_and_in_seconds() -> None:
    """Predicted log1p of 3 s, watched 7 s: (log 8 - log 4)² = log(2)², and 4 s off."""
    found = watch_metrics(np.array([math.log(4)]), np.array([7.0]))
    assert found["watch_mse_log"] == pytest.approx(math.log(2) ** 2)
    assert found["watch_mae_s"] == pytest.approx(4.0)
