"""Ranking metrics over all items, in NumPy; each case has one target.

`ranks` are 1-based places of the targets among all ranked items. No metric samples negatives
(Krichene & Rendle, 2020).
"""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

CUTOFFS = (1, 5, 10, 20)
Float64s: TypeAlias = NDArray[np.float64]


def target_ranks(scores: NDArray[np.float32], targets: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the 1-based rank of each target, (cases,), among all items.

    `scores` is (cases, num_items + 1); column 0 is padding and never ranks. An item that scores
    the same as the target counts as ahead when its index is lower, the order the service uses.
    A target that was removed, with a score of -inf, ranks last, as does one that scores NaN: a
    model of NaNs must not look perfect.
    """
    rows = np.arange(len(targets))
    picked = scores[rows, targets][:, None]
    body = scores[:, 1:]
    ahead = (~(body <= picked)).sum(axis=1)
    indices = np.arange(1, scores.shape[1])
    ties = ((body == picked) & (indices[None, :] < targets[:, None])).sum(axis=1)
    ranks: NDArray[np.int64] = np.where(np.isneginf(picked[:, 0]), len(indices), ahead + ties + 1)
    return ranks


def hit_rate_at_k(ranks: NDArray[np.int64], k: int) -> float:
    """Return HR@k, the share of cases with the target in the top k.

    >>> hit_rate_at_k(np.array([1, 11]), 10)
    0.5
    """
    return float((ranks <= k).mean())


def recall_at_k(ranks: NDArray[np.int64], k: int) -> float:
    """Return recall@k, found ÷ all targets; with one target a case it equals HR@k.

    >>> recall_at_k(np.array([1, 11]), 10)
    0.5
    """
    return hit_rate_at_k(ranks, k)


def ndcg_at_k(ranks: NDArray[np.int64], k: int) -> float:
    """Return NDCG@k; with one target the ideal is 1, so a case gives 1 / log2(1 + rank).

    >>> round(ndcg_at_k(np.array([1, 2, 11]), 10), 4)
    0.5436
    """
    return float(_gains(ranks, k).mean())


def mrr_at_k(ranks: NDArray[np.int64], k: int) -> float:
    """Return MRR@k, the mean of 1 / rank, 0 below the cut.

    >>> mrr_at_k(np.array([2, 11]), 10)
    0.25
    """
    return float(np.where(ranks <= k, 1.0 / ranks, 0.0).mean())


def coverage_at_k(top_items: NDArray[np.int64], num_items: int) -> float:
    """Return the share of the catalogue that appears in any list; `top_items` is (cases, k)."""
    return float(len(np.unique(top_items)) / num_items)


def novelty_at_k(top_items: NDArray[np.int64], user_share: NDArray[np.float64]) -> float:
    """Return the mean of -log2 of the share of training users with an event on the item.

    `user_share` is (num_items + 1,), its zeros already floored at one user.
    """
    return float(-np.log2(user_share[top_items]).mean())


def arp_at_k(top_items: NDArray[np.int64], item_counts: NDArray[np.int64]) -> float:
    """Return ARP@k, the mean number of training events of a recommended item.

    `top_items` is (cases, k), `item_counts` (num_items + 1,). With lists of equal length the mean
    over lists of each list's mean is the mean over all places.
    Source: average recommendation popularity, Yin et al., 2012 ("Challenging the long tail
    recommendation"), named so by Abdollahpouri, Burke & Mobasher, 2019.

    >>> arp_at_k(np.array([[1, 2], [1, 3]]), np.array([0, 8, 4, 0]))
    5.0
    """
    return float(item_counts[top_items].mean())


def popularity_bias_at_k(
    top_items: NDArray[np.int64], targets: NDArray[np.int64], item_counts: NDArray[np.int64]
) -> float:
    """Return ARP@k ÷ the mean number of training events of the targets.

    Above 1 the lists are more popular than what users went on to choose, below 1 less. The
    divisor is floored at one event, so that unseen targets leave it finite. It is the popularity
    lift of Abdollahpouri et al., 2020 ("The connection between popularity bias, calibration, and
    fairness in recommendation"), plus 1, with the targets in place of the users' profiles.

    >>> popularity_bias_at_k(np.array([[1, 2]]), np.array([2]), np.array([0, 8, 4]))
    1.5
    """
    return arp_at_k(top_items, item_counts) / max(1.0, float(item_counts[targets].mean()))


def case_values(ranks: NDArray[np.int64]) -> dict[str, Float64s]:
    """Return the metrics that get intervals, by name, for every case: (cases,) each."""
    return {
        "hr@1": (ranks <= 1).astype(np.float64),
        "hr@10": (ranks <= 10).astype(np.float64),  # noqa: PLR2004 - the name says it
        "ndcg@10": _gains(ranks, 10),
        "mrr": 1.0 / ranks,
    }


def summarise(ranks: NDArray[np.int64]) -> dict[str, float]:
    """Return all rank metrics by name: hr@k, ndcg@k and mrr@k at the cutoffs, and full mrr."""
    results: dict[str, float] = {}
    for k in CUTOFFS:
        results[f"hr@{k}"] = hit_rate_at_k(ranks, k)
        results[f"ndcg@{k}"] = ndcg_at_k(ranks, k)
        results[f"mrr@{k}"] = mrr_at_k(ranks, k)
    results["mrr"] = float((1.0 / ranks).mean())
    return results


def _gains(ranks: NDArray[np.int64], k: int) -> Float64s:
    """Return each case's NDCG@k, (cases,)."""
    gains: Float64s = np.where(ranks <= k, 1 / np.log2(1.0 + ranks), 0.0)
    return gains
