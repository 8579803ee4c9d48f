"""One code path scores any model or baseline: full ranking over all items, one target a case."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from service.contract.features import Float32s
from training.baselines import item_counts, user_shares
from training.data import EventTable
from training.dataset import case_batches
from training.metrics import (
    CUTOFFS,
    arp_at_k,
    coverage_at_k,
    novelty_at_k,
    popularity_bias_at_k,
    recall_at_k,
    summarise,
    target_ranks,
)
from training.model.sequence_model import SequenceModel
from training.model_config import RequestTime
from training.scorers import Scorer, TorchScorer

SeenItems = Literal["removed", "kept"]
# Below this share of repeats a data set has none worth ranking, and seen items are removed.
REPEAT_SHARE = 0.01
LIST_LENGTH = 10


@dataclass(slots=True)
class _Tally:
    """Ranks and lists of one scorer under one rule about seen items."""

    ranks: list[NDArray[np.int64]] = field(default_factory=list)
    tops: list[NDArray[np.int64]] = field(default_factory=list)

    def add(self, scores: Float32s, targets: NDArray[np.int64]) -> None:
        self.ranks.append(target_ranks(scores, targets))
        k = min(LIST_LENGTH, scores.shape[1] - 1)
        self.tops.append(np.argpartition(-scores[:, 1:], k - 1, axis=1)[:, :k] + 1)


@dataclass(frozen=True, slots=True)
class Ranked:
    """One scorer's result for every case: the target's rank, (cases,), the list, (cases, k)."""

    ranks: NDArray[np.int64]
    tops: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Ranking:
    """Every scorer's result for the same cases in the same order, by rule and scorer.

    `rows` are the cases' target rows, (cases,).
    """

    rows: NDArray[np.int64]
    by_rule: dict[SeenItems, dict[str, Ranked]]

    def ranks(self, rule: SeenItems) -> dict[str, NDArray[np.int64]]:
        """Return the ranks of the targets under one rule, by scorer."""
        return {name: ranked.ranks for name, ranked in self.by_rule[rule].items()}


def rank_cases(
    scorers: Mapping[str, Scorer],
    events: EventTable,
    rows: NDArray[np.int64],
    *,
    window_len: int,
    request_time: RequestTime,
) -> Ranking:
    """Rank all items for every case with every scorer, under both rules about seen items.

    `removed`: what the user has seen before the target does not rank, a target seen before is a
    miss; `kept`: all items rank.
    """
    tallies: dict[SeenItems, dict[str, _Tally]] = {
        rule: {name: _Tally() for name in scorers} for rule in ("removed", "kept")
    }
    order = []
    for chosen, arrays in case_batches(events, rows, window_len, request_time):
        order.append(chosen)
        targets = events.window.items[chosen]
        seen = _seen_pairs(events, chosen)
        for name, scorer in scorers.items():
            scores = scorer.score(arrays)
            scores[:, 0] = -np.inf
            tallies["kept"][name].add(scores, targets)
            scores[seen] = -np.inf
            tallies["removed"][name].add(scores, targets)
    by_rule = {
        rule: {name: _joined(tally) for name, tally in by_name.items()}
        for rule, by_name in tallies.items()
    }
    return Ranking(np.concatenate(order), by_rule)


def results_by_rule(
    ranking: Ranking, events: EventTable, train: NDArray[np.bool_]
) -> dict[SeenItems, dict[str, dict[str, float]]]:
    """Return all metrics of a ranking by rule, by scorer, by name; `train` is (num_events,)."""
    shares, counts = user_shares(events, train), item_counts(events, train)
    targets = events.window.items[ranking.rows]
    return {
        rule: {
            name: _rank_metrics(ranked.ranks)
            | {
                f"coverage@{LIST_LENGTH}": coverage_at_k(ranked.tops, events.num_items),
                f"novelty@{LIST_LENGTH}": novelty_at_k(ranked.tops, shares),
                f"arp@{LIST_LENGTH}": arp_at_k(ranked.tops, counts),
                f"popularity_bias@{LIST_LENGTH}": popularity_bias_at_k(
                    ranked.tops, targets, counts
                ),
            }
            for name, ranked in by_name.items()
        }
        for rule, by_name in ranking.by_rule.items()
    }


def evaluate(
    scorers: Mapping[str, Scorer],
    events: EventTable,
    rows: NDArray[np.int64],
    *,
    train: NDArray[np.bool_],
    window_len: int,
    request_time: RequestTime,
) -> dict[SeenItems, dict[str, dict[str, float]]]:
    """Rank all items for every case and return the metrics by rule, by scorer, by name."""
    ranking = rank_cases(scorers, events, rows, window_len=window_len, request_time=request_time)
    return results_by_rule(ranking, events, train)


def headline_rule(repeat_share: float) -> SeenItems:
    """Return the rule of a data set's headline figures, which is also the service's default."""
    return "removed" if repeat_share < REPEAT_SHARE else "kept"


def validation_ndcg(
    model: SequenceModel,
    events: EventTable,
    rows: NDArray[np.int64],
    request_time: RequestTime,
    rule: SeenItems,
) -> dict[str, float]:
    """Return the metrics of a model in training on validation cases, without baselines."""
    tally = _Tally()
    scorer = TorchScorer(model)
    for chosen, arrays in case_batches(events, rows, model.config.window_len, request_time):
        scores = scorer.score(arrays)
        scores[:, 0] = -np.inf
        if rule == "removed":
            scores[_seen_pairs(events, chosen)] = -np.inf
        tally.add(scores, events.window.items[chosen])
    return summarise(np.concatenate(tally.ranks))


def _joined(tally: _Tally) -> Ranked:
    return Ranked(np.concatenate(tally.ranks), np.concatenate(tally.tops))


def _rank_metrics(ranks: NDArray[np.int64]) -> dict[str, float]:
    return summarise(ranks) | {f"recall@{k}": recall_at_k(ranks, k) for k in CUTOFFS}


def _seen_pairs(
    events: EventTable, rows: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return (case, item) pairs of everything each case's user did before its target."""
    starts = events.user_starts[events.users[rows]]
    counts = rows - starts
    cases = np.repeat(np.arange(len(rows)), counts)
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return cases, events.window.items[np.repeat(starts, counts) + within]
