"""Does what is called 20 % probable happen 20 % of the time? Bins of predictions, and their error.

Bins hold equally many predictions, since those of next items crowd near 0 (Nguyen & O'Connor,
2015): equal widths would put nearly all of them into one.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.contract.features import Arrays, Float32s
from training.scorers import Scorer

TOP = 10
NUM_BINS = 10
# Fewer cases than these a bin say little.
LEAST_IN_BIN = 10
# Of a 95 % interval.
NORMAL_QUANTILE = 1.959964


class ProbabilityRecorder:
    """Scores as another scorer does, and keeps the most probable items of each case.

    Probabilities are the softmax of the scores over all items, as full cross-entropy has it.
    """

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer
        self._items: list[NDArray[np.int64]] = []
        self._probabilities: list[Float32s] = []

    def score(self, arrays: Arrays) -> Float32s:
        """Return the other's scores, (cases, num_items + 1)."""
        scores = self._scorer.score(arrays)
        found = np.exp(scores[:, 1:] - scores[:, 1:].max(axis=1, keepdims=True))
        found /= found.sum(axis=1, keepdims=True)
        k = min(TOP, found.shape[1])
        items = np.argpartition(-found, k - 1, axis=1)[:, :k]
        self._items.append(items + 1)
        self._probabilities.append(np.take_along_axis(found, items, axis=1))
        return scores

    def outcomes(self, targets: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Return probabilities and whether each item came, both (cases · TOP,).

        `targets`, (cases,), are the items that came, in the order in which cases were scored.
        """
        came = np.concatenate(self._items) == targets[:, None]
        return np.concatenate(self._probabilities).ravel().astype(np.float64), came.ravel()


def calibration(predicted: NDArray[np.float64], happened: NDArray[np.bool_]) -> dict[str, Any]:
    """Return the bins of predictions, (n,), and their expected calibration error.

    `bins` have `count`, the mean `predicted`, the share `observed` and its Wilson interval; `ece`
    is the mean of |predicted - observed| over the bins, weighted by their counts (Naeini et al.,
    2015). A prediction of the same number may fall into two bins.

    >>> round(calibration(np.array([0.2, 0.4]), np.array([False, True]))["ece"], 4)
    0.2
    """
    order = np.argsort(predicted, kind="stable")
    num_bins = max(1, min(NUM_BINS, len(order) // LEAST_IN_BIN))
    bins = [_bin(predicted[part], happened[part]) for part in np.array_split(order, num_bins)]
    gaps = [abs(each["predicted"] - each["observed"]) * each["count"] for each in bins]
    return {"bins": bins, "ece": sum(gaps) / len(order), "count": len(order)}


def _bin(predicted: NDArray[np.float64], happened: NDArray[np.bool_]) -> dict[str, Any]:
    share = float(happened.mean())
    return {
        "count": len(predicted),
        "predicted": float(predicted.mean()),
        "observed": share,
        "interval": list(wilson_interval(share, len(predicted))),
    }


def wilson_interval(share: float, count: int) -> tuple[float, float]:
    """Return the 95 % interval of a share of `count` trials (Wilson, 1927).

    >>> [round(bound, 4) for bound in wilson_interval(0.5, 100)]
    [0.4038, 0.5962]
    """
    squared = NORMAL_QUANTILE**2
    middle = (share + squared / (2 * count)) / (1 + squared / count)
    spread = math.sqrt(share * (1 - share) / count + squared / (4 * count**2))
    half = NORMAL_QUANTILE * spread / (1 + squared / count)
    return max(0.0, middle - half), min(1.0, middle + half)


def logistic(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the probabilities of logits."""
    found: NDArray[np.float64] = 1.0 / (1.0 + np.exp(-np.clip(logits, -500, 500)))
    return found
