"""The figures of an evaluation with their intervals: whole, by group of cases, against baselines.

Everything here starts from the ranks of every scorer's targets, by scorer name, (cases,) each and
in one order of the cases, and from whose case each is, `users` (cases,).
"""

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from training.metrics import case_values
from training.statistics import (
    CONFIDENCE,
    FLIPS,
    RESAMPLES,
    SEED,
    Float64s,
    bootstrap_means,
    percentile_interval,
    sign_flip_p_values,
)

Ranks: TypeAlias = Mapping[str, NDArray[np.int64]]
MODEL = "model"
TESTED_METRIC = "ndcg@10"
# What the intervals and p-values were made with; it stands in every report.
METHOD: Mapping[str, Any] = {
    "unit": "user",
    "confidence": CONFIDENCE,
    "resamples": RESAMPLES,
    "flips": FLIPS,
    "seed": SEED,
}


def intervals(ranks: Ranks, users: NDArray[np.int64]) -> dict[str, dict[str, list[float]]]:
    """Return [lower, upper] by scorer and metric, from one bootstrap that all of them share."""
    columns = {
        (scorer, metric): values
        for scorer, placed in ranks.items()
        for metric, values in case_values(placed).items()
    }
    means = bootstrap_means(_table(columns.values()), users, np.random.default_rng(SEED))
    bounds: dict[str, dict[str, list[float]]] = {scorer: {} for scorer in ranks}
    for (scorer, metric), pair in zip(columns, percentile_interval(means).T, strict=True):
        bounds[scorer][metric] = pair.tolist()
    return bounds


def significance(ranks: Ranks, users: NDArray[np.int64]) -> dict[str, dict[str, Any]]:
    """Return the model's NDCG@10 less each other scorer's, with interval and p-value.

    The p-values are not corrected for the number of baselines.
    """
    others = [name for name in ranks if name != MODEL]
    if MODEL not in ranks or not others:
        return {}
    model = case_values(ranks[MODEL])[TESTED_METRIC]
    gaps = _table(model - case_values(ranks[name])[TESTED_METRIC] for name in others)
    means = bootstrap_means(gaps, users, np.random.default_rng(SEED))
    bounds = percentile_interval(means).T
    p_values = sign_flip_p_values(gaps, users, np.random.default_rng(SEED))
    return {
        name: {
            "metric": TESTED_METRIC,
            "difference": float(gaps[:, place].mean()),
            "interval": bounds[place].tolist(),
            "p_value": float(p_values[place]),
        }
        for place, name in enumerate(others)
    }


def breakdown(
    groups: Mapping[str, NDArray[np.bool_]], ranks: Ranks, users: NDArray[np.int64]
) -> dict[str, dict[str, Any]]:
    """Return the figures of each group of cases; a group is a mask, (cases,)."""
    return {
        name: _group_figures({key: placed[chosen] for key, placed in ranks.items()}, users[chosen])
        for name, chosen in groups.items()
    }


def _group_figures(ranks: Ranks, users: NDArray[np.int64]) -> dict[str, Any]:
    results = {
        scorer: {metric: float(values.mean()) for metric, values in case_values(placed).items()}
        for scorer, placed in ranks.items()
    }
    return {"num_cases": len(users), "results": results, "intervals": intervals(ranks, users)}


def _table(columns: Iterable[Float64s]) -> Float64s:
    """Return the columns side by side, (cases, columns)."""
    return np.stack(list(columns), axis=1)
