"""Cold start: items that the model never met, users with hardly any events.

A run is trained on a dataset without some items (`python -m training hold-out`). Here they come
back as new items do in the service: each is one row, made of its text alone, beside the trained
ones. The cases are the users' last events that are on such an item.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from service.contract.features import Float32s, Int64s, RequestPoint, Window, encode_windows
from service.contract.items import parse_attributes
from training.baselines import item_counts
from training.config import TrainingError
from training.data import EventTable, read_dataset, read_items
from training.dataset import inference_batch, past_window
from training.evaluate import headline_rule
from training.items import item_facts
from training.metrics import hit_rate_at_k, ndcg_at_k, target_ranks
from training.runs import LoadedRun
from training.scorers import TorchScorer
from training.train import TrainInputs

RECALL_AT = 50
NDCG_AT = 10
BATCH = 256
# How much is known of users who have just come.
KNOWN_EVENTS = (0, 1, 2, 3)


@dataclass(frozen=True, slots=True)
class ColdCases:
    """Requests whose right answer is an item that the run never met; `pasts` are the users' items.

    `windows` hold the run's own item indices; `targets` are (cases,) rows of the joined catalogue:
    the run's items from 1, then the new ones from `num_warm` + 1.
    """

    windows: tuple[Window, ...]
    pasts: tuple[Int64s, ...]
    targets: Int64s
    num_warm: int
    new_ids: tuple[str, ...]
    new_texts: tuple[str, ...]


def cold_cases(run: TrainInputs, window_len: int, dataset: Path) -> ColdCases:
    """Return the cases of a whole dataset for a run on a part of its items.

    A history is what of the user's earlier events is on items of the run; users without any are
    left out. Raises TrainingError when the run met all items.
    """
    events, _ = read_dataset(dataset)
    own_index = np.array([run.events.items.index(item) for item in ("", *events.items)], np.int64)
    own_index[0] = 0
    new = [item for place, item in enumerate(events.items, 1) if not own_index[place]]
    if not new:
        raise TrainingError(f"{dataset}: the run has met all items; train it on a part of them")
    row_of = {item: run.events.num_items + place for place, item in enumerate(new, 1)}
    windows, pasts, targets = [], [], []
    for first, end in zip(events.user_starts[:-1], events.user_starts[1:], strict=True):
        target = events.items.id(int(events.window.items[end - 1]))
        if target not in row_of:
            continue
        past = _past(events, int(first), int(end) - 1, own_index)
        if len(past):
            windows.append(past.select(slice(-window_len, None)))
            pasts.append(past.items)
            targets.append(row_of[target])
    facts = item_facts(read_items(dataset), tuple(new))
    return ColdCases(
        tuple(windows),
        tuple(pasts),
        np.array(targets, np.int64),
        run.events.num_items,
        tuple(new),
        facts.texts[1:],
    )


def _past(events: EventTable, first: int, end: int, own_index: Int64s) -> Window:
    """Return a user's events on items that the run knows, by its indices."""
    past = events.window.select(slice(first, end))
    own = own_index[past.items]
    return replace(past.select(own > 0), items=own[own > 0])


def cold_item_figures(
    loaded: LoadedRun, dataset: Path, group: str = "", seed: int = 1
) -> dict[str, Any]:
    """Return figures of the run, of popularity in the category and of chance, on new items.

    `among_all` ranks the new items beside all that the run knows, `among_new` only among each
    other; items of the user's past are left out. A category is the last of an item's list, the
    narrowest, or with `group` the attribute of that name; where no item has one, popularity in it
    is left out. Raises TrainingError for a run that reads no text.
    """
    cases = cold_cases(loaded.inputs, loaded.config.model.window_len, dataset)
    scores = {"run": _run_scores(loaded, cases)}
    groups = _groups(dataset, group)
    if any(groups.values()):
        scores["category_popularity"] = _category_scores(loaded.inputs, cases, groups, seed)
    figures: dict[str, Any] = {"num_new_items": len(cases.new_ids)}
    for name, first in (("among_all", 1), ("among_new", cases.num_warm + 1)):
        num_candidates = cases.num_warm + len(cases.new_ids) + 1 - first
        figures[name] = {
            # The column before the first stands for padding, which never ranks.
            way: _figures(found[:, first - 1 :], cases.targets - (first - 1))
            for way, found in scores.items()
        }
        figures[name]["chance"] = {f"recall@{RECALL_AT}": min(1.0, RECALL_AT / num_candidates)}
        figures[name]["num_candidates"] = num_candidates
    return figures | {"num_cases": len(cases.targets)}


def cold_user_figures(loaded: LoadedRun, split: str = "test") -> dict[str, dict[str, float]]:
    """Return NDCG@10 by how many last events of a user are known, of the run and of popularity.

    The cases are those of the split whose users have at least so many events before. Where users do
    not come back to items, those of the whole history are left out, so that the choice is the same
    however much is known.
    """
    inputs = loaded.inputs
    events, rows = inputs.events, inputs.split.targets(split)
    lengths = rows - events.user_starts[events.users[rows]]
    rows = rows[lengths >= max(KNOWN_EVENTS)]
    popular = item_counts(events, inputs.split.train).astype(np.float32)
    scorer = TorchScorer(loaded.model)
    ranks: dict[str, list[Int64s]] = {}
    for at in range(0, len(rows), BATCH):
        some = rows[at : at + BATCH]
        targets = events.window.items[some]
        left_out = _seen(inputs, some)
        scores = {"popularity": np.tile(popular, (len(some), 1))}
        for count in KNOWN_EVENTS:
            windows = [past_window(events, int(row), count) for row in some]
            points = [_point(loaded, int(row)) for row in some]
            arrays = encode_windows(windows, points, max(1, count))
            scores[f"{count} events"] = scorer.score(arrays)
        for way, found in scores.items():
            ranks.setdefault(way, []).append(target_ranks(_without(found, left_out), targets))
    return {
        way: {f"ndcg@{NDCG_AT}": ndcg_at_k(np.concatenate(found), NDCG_AT)}
        for way, found in ranks.items()
    }


def _seen(inputs: TrainInputs, rows: Int64s) -> list[Int64s]:
    """Return what is left out of each case's list: all that came before, or nothing."""
    events = inputs.events
    if headline_rule(inputs.info.repeat_share) == "kept":
        return [np.zeros(0, np.int64) for _ in rows]
    firsts = events.user_starts[events.users[rows]]
    return [events.window.items[first:row] for first, row in zip(firsts, rows, strict=True)]


def _point(loaded: LoadedRun, row: int) -> RequestPoint:
    """Return when a case is asked, for a run that reads it."""
    if loaded.config.model.request_time != "known":
        return RequestPoint()
    window = loaded.inputs.events.window
    return RequestPoint(int(window.timestamps_ms[row]), int(window.tz_offsets_min[row]))


def _figures(scores: Float32s, targets: Int64s) -> dict[str, float]:
    ranks = target_ranks(scores, targets)
    return {
        f"recall@{RECALL_AT}": hit_rate_at_k(ranks, RECALL_AT),
        f"ndcg@{NDCG_AT}": ndcg_at_k(ranks, NDCG_AT),
    }


def _run_scores(loaded: LoadedRun, cases: ColdCases) -> Float32s:
    """Return the run's scores of its own and the new items, (cases, 1 + items)."""
    model, texts = loaded.model, loaded.model.items.texts
    if texts is None:
        raise TrainingError("the run reads no text, so it knows nothing of new items")
    head = model.heads[model.config.tasks[0]]
    with torch.inference_mode():
        new = head.new_items(texts.new_rows(cases.new_texts))  # type: ignore[operator]  # a head's
        items = torch.cat([model.item_vectors(), new])
        found = [
            model.encode(inference_batch(arrays), 1)[:, 0] @ items.T
            for arrays in _encoded(cases.windows, loaded.config.model.window_len)
        ]
    return _without(torch.cat(found).numpy(), cases.pasts)


def _encoded(windows: Sequence[Window], window_len: int) -> list[dict[str, NDArray[Any]]]:
    """Encode windows that are asked at no time."""
    pieces = [windows[at : at + BATCH] for at in range(0, len(windows), BATCH)]
    return [
        dict(encode_windows(piece, [RequestPoint()] * len(piece), window_len)) for piece in pieces
    ]


def _groups(dataset: Path, group: str) -> dict[str, str]:
    """Return each item's category, "" for none."""
    rows = read_items(dataset).to_pylist()
    if not group:
        return {row["item_id"]: (row["categories"] or [""])[-1] for row in rows}
    found = {row["item_id"]: parse_attributes(row["attributes"]).get(group, "") for row in rows}
    return {item_id: str(value) for item_id, value in found.items()}


def _category_scores(
    run: TrainInputs, cases: ColdCases, groups: Mapping[str, str], seed: int
) -> Float32s:
    """Score items of the history's categories by their own, or a new one's mean, popularity.

    What ties is in random order.
    """
    names = ["", *(groups[item] for item in (*run.events.items, *cases.new_ids))]
    number = {name: place for place, name in enumerate(dict.fromkeys(names))}
    category = np.array([number[name] for name in names])
    counts = np.zeros(len(names), np.float64)
    counts[: cases.num_warm + 1] = item_counts(run.events, run.split.train)
    warm = category[: cases.num_warm + 1]
    totals = np.bincount(warm, counts[: cases.num_warm + 1], len(number))
    sizes = np.maximum(1, np.bincount(warm, minlength=len(number)))
    counts[cases.num_warm + 1 :] = (totals / sizes)[category[cases.num_warm + 1 :]]
    noise = np.random.default_rng(seed).random((len(cases.windows), len(names))) * 1e-3
    scores = np.zeros((len(cases.windows), len(names)), np.float32)
    for row, window in enumerate(cases.windows):
        shares = np.bincount(category[window.items], minlength=len(number)) / len(window)
        shares[number[""]] = 0.0
        scores[row] = shares[category] * (1 + counts) + noise[row]
    return _without(scores, cases.pasts)


def _without(scores: Float32s, left_out: Sequence[Int64s]) -> Float32s:
    for row, items in enumerate(left_out):
        scores[row, items] = -np.inf
    scores[:, 0] = -np.inf
    return scores
