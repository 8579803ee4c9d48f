"""Intervals, the paired test and the groups, against values worked by hand."""

import numpy as np
import pytest

from training.statistics import (
    activity_groups,
    bootstrap_means,
    hour_groups,
    percentile_interval,
    sign_flip_p_values,
)

HOUR_MS = 3_600_000


def rng() -> np.random.Generator:
    """Return a generator that every test starts anew."""
    return np.random.default_rng(0)


def test_resampled_means_of_two_users_are_the_three_possible_ones() -> None:
    """Users with 0 and 1 give 0 (a quarter of draws), 1 / 2 (half) or 1 (a quarter)."""
    means = bootstrap_means(np.array([[0.0], [1.0]]), np.array([0, 1]), rng(), 10_000)[:, 0]
    values, counts = np.unique(means, return_counts=True)
    assert values.tolist() == [0.0, 0.5, 1.0]
    assert counts / 10_000 == pytest.approx([1 / 4, 1 / 2, 1 / 4], abs=0.02)


def test_all_cases_of_a_user_are_drawn_together() -> None:
    """User 7 has 3 cases of 1, user 9 one of 0: means are 3/3, 3/4 or 0/1, and nothing else."""
    values = np.array([[1.0], [1.0], [0.0], [1.0]])
    means = bootstrap_means(values, np.array([7, 7, 9, 7]), rng(), 200)
    assert set(means[:, 0].tolist()) == {0.0, 3 / 4, 1.0}


def test_the_interval_of_a_mean_is_near_the_normal_one() -> None:
    """400 cases, half of them hits: 0.5 ± 1.96 · 0.5 / 20 = 0.451 to 0.549."""
    hits = np.tile([0.0, 1.0], 200)[:, None]
    low, high = percentile_interval(bootstrap_means(hits, np.arange(400), rng()))[:, 0]
    assert (low, high) == pytest.approx((0.451, 0.549), abs=0.008)


def test_cases_of_few_users_are_worth_less_than_their_number() -> None:
    """The same 400 cases from 20 users, each all hit or all missed: 0.5 ± 1.96 · 0.5 / √20."""
    hits = np.tile([0.0, 1.0], 200)[:, None]
    low, high = percentile_interval(bootstrap_means(hits, np.arange(400) % 20, rng()))[:, 0]
    assert high - low == pytest.approx(2 * 1.96 * 0.5 / np.sqrt(20), rel=0.15)


def test_columns_share_their_resamples() -> None:
    """A column less itself has a mean of 0 in every resample: the bootstrap is paired."""
    values = rng().random((50, 1))
    means = bootstrap_means(np.hstack([values, values]), np.arange(50), rng())
    assert (means[:, 0] == means[:, 1]).all()


def test_a_seed_gives_the_interval_again() -> None:
    """A reported interval can be had again."""
    values = rng().random((30, 1))
    first, again = (bootstrap_means(values, np.arange(30), rng()) for _ in range(2))
    assert (first == again).all()


def test_blocks_change_no_draw() -> None:
    """Many users are drawn in blocks; here 7 resamples of 30 users at a time."""
    hits = (rng().random((30, 1)) > 1 / 2).astype(np.float64)
    whole = bootstrap_means(hits, np.arange(30), rng(), 100)
    parts = bootstrap_means(hits, np.arange(30), rng(), 100, block_cells=30 * 7)
    assert (parts == whole).all()


def test_the_p_value_of_four_equal_gains_is_two_of_sixteen_flips() -> None:
    """Only all-plus and all-minus of 2⁴ sign patterns are as far from 0: 2 / 16."""
    p_value = sign_flip_p_values(np.ones((4, 1)), np.arange(4), rng())[0]
    assert p_value == pytest.approx(2 / 16, abs=0.01)


def test_a_user_changes_sides_with_all_their_cases() -> None:
    """Four cases of two users have 2² patterns, of which two are extreme: 2 / 4, not 2 / 16."""
    p_value = sign_flip_p_values(np.ones((4, 1)), np.array([0, 0, 1, 1]), rng())[0]
    assert p_value == pytest.approx(2 / 4, abs=0.02)


def test_equal_scorers_have_a_p_value_of_one() -> None:
    """No user has a difference, so every flip is as far from 0 as the observed sum."""
    assert sign_flip_p_values(np.zeros((5, 1)), np.arange(5), rng())[0] == 1.0


def test_the_p_value_is_never_zero() -> None:
    """No flip reaches 200 equal gains; the observed one counts itself: 1 / (1 + 99)."""
    assert sign_flip_p_values(np.ones((200, 1)), np.arange(200), rng(), 99)[0] == 1 / 100


def test_terciles_take_equal_numbers_and_ties_share_the_lower_one() -> None:
    """Of 1 2 2 2 3 4 the bounds are the 2nd and the 4th value, both 2: the middle is empty."""
    even = activity_groups(np.array([1, 2, 3, 4, 5, 6]))
    tied = activity_groups(np.array([1, 2, 2, 2, 3, 4]))
    assert {name: int(mask.sum()) for name, mask in even.items()} == {
        "low": 2, "middle": 2, "high": 2,
    }  # fmt: skip
    assert {name: int(mask.sum()) for name, mask in tied.items()} == {"low": 4, "high": 2}


def test_hours_are_those_of_the_users_clock() -> None:
    """At 23:00 UTC it is 01:00 at +120 min and 18:00 at -300 min, both of the same instant."""
    groups = hour_groups(np.full(3, 23 * HOUR_MS), np.array([120, -300, 0]))
    assert {name: np.flatnonzero(mask).tolist() for name, mask in groups.items()} == {
        "00-04": [0], "16-20": [1], "20-24": [2],
    }  # fmt: skip
