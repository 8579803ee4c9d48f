"""Figures with intervals: what each part of the report says, on ranks made by hand."""

import numpy as np
import pytest

from training.confidence import breakdown, intervals, significance

RANKS = {"model": np.array([1, 1, 2, 20]), "markov": np.array([1, 2, 2, 30])}
USERS = np.array([0, 1, 2, 3])


def test_an_interval_holds_its_figure() -> None:
    """HR@1 of the model is 2 / 4, and no interval leaves [0, 1]."""
    low, high = intervals(RANKS, USERS)["model"]["hr@1"]
    assert 0 <= low < 2 / 4 < high <= 1


def test_a_figure_that_every_case_shares_has_no_width() -> None:
    """All targets rank second: any resample has HR@10 = 1 and MRR = 1 / 2."""
    bounds = intervals({"model": np.full(6, 2)}, np.arange(6))["model"]
    assert bounds["hr@10"] == [1.0, 1.0]
    assert bounds["mrr"] == [0.5, 0.5]


def test_the_difference_is_the_model_less_the_baseline() -> None:
    """Only case 1 differs, by 1 - 1 / log2(3), so the mean is a quarter of that; p = 1."""
    found = significance(RANKS, USERS)["markov"]
    assert found["difference"] == pytest.approx((1 - 1 / np.log2(3)) / 4)
    assert found["interval"][0] == 0.0
    assert found["p_value"] == 1.0
    assert found["metric"] == "ndcg@10"


def test_a_model_without_rivals_is_tested_against_none() -> None:
    """There is nothing to be better than."""
    assert significance({"model": np.array([1])}, np.array([0])) == {}


def test_groups_have_figures_of_their_own_cases() -> None:
    """The first two cases hit at rank 1; the last two do not, one of them within ten."""
    groups = {"a": np.array([1, 1, 0, 0], bool), "b": np.array([0, 0, 1, 1], bool)}
    found = breakdown(groups, RANKS, USERS)
    assert [found[name]["num_cases"] for name in groups] == [2, 2]
    assert found["a"]["results"]["model"]["hr@1"] == 1.0
    assert found["b"]["results"]["model"] == pytest.approx(
        {"hr@1": 0.0, "hr@10": 1 / 2, "ndcg@10": 1 / np.log2(3) / 2, "mrr": (1 / 2 + 1 / 20) / 2}
    )
    assert found["a"]["intervals"]["model"]["hr@1"] == [1.0, 1.0]
