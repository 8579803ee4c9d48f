"""Whitening: what it does to vectors, and which of them it goes by."""

import numpy as np
import pytest

from service.contract.features import Float32s
from training.config import TrainingError
from training.text.whitening import fit_whitening


def cone(num: int, dim: int) -> Float32s:
    """Return vectors of one direction with a little of their own, as language models give."""
    rng = np.random.default_rng(3)
    mixed = rng.normal(size=(num, dim)) @ rng.normal(size=(dim, dim))
    return (5 + mixed).astype(np.float32)


def test_components_are_uncorrelated_and_of_unit_variance() -> None:
    """The covariance of what comes out is the identity, its mean zero."""
    vectors = cone(500, 6)
    whitened = fit_whitening(vectors).apply(vectors)
    assert whitened.dtype == np.float32
    assert np.abs(whitened.mean(0)).max() < 1e-4
    assert np.abs(np.cov(whitened.T, bias=True) - np.eye(6)).max() < 1e-3


def test_components_come_in_order_of_variance() -> None:
    """Of (±1, ±10): the second column varies more, so it is the first component, and alone so."""
    vectors = np.array([[1, 10], [1, -10], [-1, 10], [-1, -10]], np.float32)
    assert fit_whitening(vectors).apply(vectors) == pytest.approx(vectors[:, ::-1] / [10, 1])
    first = fit_whitening(vectors, out=1)
    assert first.matrix.shape == (2, 1)
    assert first.apply(vectors)[:, 0] == pytest.approx(vectors[:, 1] / 10)


def test_tiny_variances_are_not_blown_up() -> None:
    """1 and 1e-6 apart: the floor is 1e-4 of the variance 1, and 1e-6 / √1e-4 = 1e-4."""
    vectors = np.array([[1, 1e-6], [1, -1e-6], [-1, 1e-6], [-1, -1e-6]], np.float32)
    whitened = fit_whitening(vectors).apply(vectors)
    assert np.abs(whitened[:, 1]) == pytest.approx(1e-4, rel=1e-3)


def test_fewer_texts_than_dimensions_give_finite_vectors() -> None:
    """Three vectors lie in a plane; of the other directions nothing is known."""
    vectors = cone(3, 6)
    whitened = fit_whitening(vectors).apply(vectors)
    assert np.isfinite(whitened).all()
    assert whitened[:, :2].std(0) == pytest.approx(1, abs=1e-3)
    assert np.abs(whitened[:, 2:]).max() < 0.01


def test_empty_texts_have_no_vote() -> None:
    """Half a catalogue without texts would be one direction of great variance."""
    vectors = cone(50, 4)
    both = np.vstack([vectors, np.full((50, 4), -99, np.float32)])
    voted = fit_whitening(both, ["tea"] * 50 + [""] * 50)
    assert np.array_equal(voted.matrix, fit_whitening(vectors).matrix)
    assert voted.apply(both).shape == (100, 4)


def test_it_is_the_same_every_time() -> None:
    """Signs of components are free, so they are chosen: the same bundle comes of the same data."""
    vectors = cone(100, 8)
    again = fit_whitening(np.ascontiguousarray(vectors[::-1]))
    assert fit_whitening(vectors).matrix == pytest.approx(again.matrix, abs=1e-3)


@pytest.mark.parametrize(
    ("texts", "said"), [(["tea", ""], "1 of 2 items have a title"), (["a", "b"], "same vector")]
)
def test_what_cannot_be_whitened_is_refused(texts: list[str], said: str) -> None:
    """One text, or one vector for all, has no variance."""
    with pytest.raises(TrainingError, match=said):
        fit_whitening(np.ones((2, 3), np.float32), texts)
