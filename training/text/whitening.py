"""Whitening: text vectors made round, so that no direction counts for more than another.

Pooled vectors of a language model lie in a narrow cone: any two texts are alike. Centred and with
every principal component of unit variance, they tell items apart, and the first components can be
kept alone (Su et al., 2021, "Whitening sentence representations"; Hou et al., 2022, UniSRec).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.contract.features import Float32s
from training.config import TrainingError

# Of the largest variance: what lies below is rounding and would be blown up to noise.
RELATIVE_FLOOR = 1e-4
LEAST_TEXTS = 2


@dataclass(frozen=True, slots=True)
class Whitening:
    """An affine map: `mean` (dim,) is subtracted, `matrix` (dim, out) multiplied; both float32."""

    mean: Float32s
    matrix: Float32s

    def apply(self, vectors: Float32s) -> Float32s:
        """Return whitened vectors, (texts, out) float32, of (texts, dim)."""
        whitened: Float32s = ((vectors - self.mean) @ self.matrix).astype(np.float32)
        return whitened


def fit_whitening(
    vectors: Float32s, texts: Sequence[str] | None = None, *, out: int | None = None
) -> Whitening:
    """Return the whitening of vectors, (texts, dim), by their principal components.

    Components are in order of variance, the first `out` of them, or all; their signs are such that
    the entry of largest size is positive. Empty `texts`, all of one vector, get no vote. Over the
    others each component has mean 0 and variance 1, but those of less than RELATIVE_FLOOR of the
    largest variance, which are left as small as they are next to that. Raises TrainingError if
    fewer than LEAST_TEXTS are left or all are the same.
    """
    voting = vectors if texts is None else vectors[np.array([bool(text) for text in texts], bool)]
    if len(voting) < LEAST_TEXTS:
        raise TrainingError(
            f"text.weights: {len(voting)} of {len(vectors)} items have a title, text or category, "
            f"and {LEAST_TEXTS} are needed; import them, or train without text.weights"
        )
    exact = voting.astype(np.float64)
    mean = exact.mean(0)
    variances, components = _principal(exact - mean)
    floor = RELATIVE_FLOOR * variances[0]
    if not floor > 0:
        raise TrainingError(
            f"text.weights: the texts of {len(voting)} items all have the same vector; "
            "the checkpoint or the items are broken"
        )
    matrix = components / np.sqrt(np.maximum(variances, floor))
    return Whitening(mean.astype(np.float32), matrix[:, :out].astype(np.float32))


def _principal(centred: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return variances (dim,), the largest first, and components as columns, (dim, dim)."""
    variances, components = np.linalg.eigh(centred.T @ centred / len(centred))
    variances, components = variances[::-1], components[:, ::-1]
    largest = np.take_along_axis(components, np.abs(components).argmax(0)[None], axis=0)
    return variances, components * np.where(largest < 0, -1.0, 1.0)
