"""Metrics of predictions about one shown item: click or not, seconds watched. Pure NumPy."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def auc(scores: Floats, labels: NDArray[np.bool_]) -> float:
    """Return the area under the ROC curve: how often a positive outscores a negative.

    Ties count half (Mann-Whitney). NaN when there is only one class.

    >>> auc(np.array([0.1, 0.4, 0.4, 0.9]), np.array([False, False, True, True]))
    0.875
    """
    num_positive = int(labels.sum())
    num_negative = len(labels) - num_positive
    if not num_positive or not num_negative:
        return float("nan")
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    mean_ranks = np.cumsum(counts) - (counts - 1) / 2
    total = float(mean_ranks[inverse][labels].sum())
    return (total - num_positive * (num_positive + 1) / 2) / (num_positive * num_negative)


def group_auc(scores: Floats, labels: NDArray[np.bool_], groups: NDArray[np.int64]) -> float:
    """Return the AUC within each group, weighted by its size, where it has both classes.

    Source: GAUC of Zhou et al., Deep Interest Network, 2018, equation 8.
    """
    order = np.argsort(groups, kind="stable")
    cuts = np.flatnonzero(np.diff(groups[order])) + 1
    values, sizes = [], []
    for rows in np.split(order, cuts):
        value = auc(scores[rows], labels[rows])
        if np.isfinite(value):
            values.append(value)
            sizes.append(len(rows))
    return float(np.average(values, weights=sizes)) if values else float("nan")


def log_loss(logits: Floats, labels: NDArray[np.bool_]) -> float:
    """Return the mean binary cross-entropy of logits, in nats.

    >>> round(log_loss(np.array([0.0]), np.array([True])), 4)
    0.6931
    """
    signed = np.where(labels, -logits, logits)
    return float(np.logaddexp(0.0, signed).mean())


def mean_squared_error(predicted: Floats, wanted: Floats) -> float:
    """Return the mean of squared differences."""
    return float(((predicted - wanted) ** 2).mean())


def mean_absolute_error(predicted: Floats, wanted: Floats) -> float:
    """Return the mean of absolute differences."""
    return float(np.abs(predicted - wanted).mean())


def click_metrics(
    logits: Floats, labels: NDArray[np.bool_], users: NDArray[np.int64]
) -> dict[str, float]:
    """Return what is reported of click logits."""
    return {
        "auc": auc(logits, labels),
        "user_auc": group_auc(logits, labels, users),
        "log_loss": log_loss(logits, labels),
    }


def watch_metrics(predicted_log1p: Floats, seconds: Floats) -> dict[str, float]:
    """Return what is reported of predicted log1p seconds: errors in logs and in seconds."""
    wanted = np.log1p(seconds)
    predicted_s = np.expm1(np.clip(predicted_log1p, 0.0, 20.0))
    return {
        "watch_mse_log": mean_squared_error(predicted_log1p, wanted),
        "watch_mae_s": mean_absolute_error(predicted_s, seconds),
    }
