"""One code path scores any model or baseline: full ranking over all items, one target a case."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray

from service.contract.features import Arrays, Float32s
from training.baselines import user_shares
from training.config import RequestTime
from training.data import EventTable
from training.dataset import case_batches, inference_batch
from training.metrics import coverage_at_k, novelty_at_k, summarise, target_ranks
from training.model import SequenceModel

SeenItems = Literal["removed", "kept"]
# Below this share of repeats a data set has none worth ranking, and seen items are removed.
REPEAT_SHARE = 0.01
LIST_LENGTH = 10


class Scorer(Protocol):
    """Anything that scores all items for encoded windows."""

    def score(self, arrays: Arrays) -> Float32s:
        """Return scores (cases, num_items + 1); column 0 is padding."""
        ...


class TorchScorer:
    """Scores with a torch model, in evaluation mode while it scores."""

    def __init__(self, model: SequenceModel) -> None:
        self._model = model

    def score(self, arrays: Arrays) -> Float32s:
        """Return query · item for all items, (cases, num_items + 1)."""
        training = self._model.training
        self._model.eval()
        with torch.inference_mode():
            query = self._model.encode(inference_batch(arrays), num_queries=1)[:, 0]
            scores: Float32s = (query @ self._model.item_vectors().T).numpy()
        self._model.train(training)
        return scores


class OnnxScorer:
    """Scores with an exported encoder and item matrix, as the service does."""

    def __init__(self, encoder: Path | bytes, item_matrix: Float32s) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        source = encoder if isinstance(encoder, bytes) else str(encoder)
        self._session = ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        self._inputs = [entry.name for entry in self._session.get_inputs()]
        self._item_matrix = item_matrix

    def score(self, arrays: Arrays) -> Float32s:
        """Return query · item for all items, (cases, num_items + 1)."""
        query = self._session.run(["query"], {name: arrays[name] for name in self._inputs})[0]
        scores: Float32s = query @ self._item_matrix.T
        return scores


@dataclass(slots=True)
class _Tally:
    """Ranks and lists of one scorer under one rule about seen items."""

    ranks: list[NDArray[np.int64]] = field(default_factory=list)
    tops: list[NDArray[np.int64]] = field(default_factory=list)

    def add(self, scores: Float32s, targets: NDArray[np.int64]) -> None:
        self.ranks.append(target_ranks(scores, targets))
        k = min(LIST_LENGTH, scores.shape[1] - 1)
        self.tops.append(np.argpartition(-scores[:, 1:], k - 1, axis=1)[:, :k] + 1)


def evaluate(
    scorers: Mapping[str, Scorer],
    events: EventTable,
    rows: NDArray[np.int64],
    *,
    train: NDArray[np.bool_],
    window_len: int,
    request_time: RequestTime,
) -> dict[SeenItems, dict[str, dict[str, float]]]:
    """Rank all items for every case with every scorer.

    Returns metrics by rule (`removed`: what the user has seen before the target does not rank, a
    target seen before is a miss; `kept`), by scorer, by name.
    """
    tallies: dict[SeenItems, dict[str, _Tally]] = {
        rule: {name: _Tally() for name in scorers} for rule in ("removed", "kept")
    }
    for chosen, arrays in case_batches(events, rows, window_len, request_time):
        targets = events.window.items[chosen]
        seen = _seen_pairs(events, chosen)
        for name, scorer in scorers.items():
            scores = scorer.score(arrays)
            scores[:, 0] = -np.inf
            tallies["kept"][name].add(scores, targets)
            scores[seen] = -np.inf
            tallies["removed"][name].add(scores, targets)
    shares = user_shares(events, train)
    return {
        rule: {name: _metrics(tally, events, shares) for name, tally in by_name.items()}
        for rule, by_name in tallies.items()
    }


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


def _metrics(tally: _Tally, events: EventTable, shares: NDArray[np.float64]) -> dict[str, float]:
    tops = np.concatenate(tally.tops)
    return summarise(np.concatenate(tally.ranks)) | {
        f"coverage@{LIST_LENGTH}": coverage_at_k(tops, events.num_items),
        f"novelty@{LIST_LENGTH}": novelty_at_k(tops, shares),
    }


def _seen_pairs(
    events: EventTable, rows: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return (case, item) pairs of everything each case's user did before its target."""
    starts = events.user_starts[events.users[rows]]
    counts = rows - starts
    cases = np.repeat(np.arange(len(rows)), counts)
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return cases, events.window.items[np.repeat(starts, counts) + within]
