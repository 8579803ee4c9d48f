"""Whether explanations are true: what a recommended item loses when the events that carried it go.

Of each of some test windows the best item is taken (unseen ones only where the bundle says so), and
events are deleted in the order of several ways to say which matter: leave-one-out as the service
computes it, gradient x input, attention, the last events, and chance. With leave-one-out the first
deletion's score is right by construction; several deletions together and the item's rank in the
whole catalogue are not.

    python benchmarks/faithfulness.py --run runs/ml-1m --bundle bundles --json build/faithful.json
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
# What is measured is the code beside this file, whatever is installed.
sys.path.insert(0, str(ROOT))

from service.bundle_loader import LoadedBundle, load_bundle
from service.contract.features import Float32s, RequestPoint, Window, encode_windows
from service.explanations import ItemParts, scores, without_event
from service.ranker import AtPoint
from training.dataset import inference_batch, past_window
from training.model.sequence_model import SequenceModel
from training.runs import LoadedRun, load_run

DELETED = (1, 2, 3, 5, 10)
EXAMINED = 50
BATCH = 32
WAYS = ("leave-one-out", "gradient x input", "attention", "last", "random")
Z95 = 1.96
Order = NDArray[np.int64]


def main() -> None:
    """Measure, print a table, and write the figures."""
    parser = argparse.ArgumentParser(description="faithfulness of explanations")
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--bundle", type=Path, required=True, help="exported from the run")
    parser.add_argument("--cases", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, required=True)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    report = measure(load_run(asked.run), load_bundle(asked.bundle), asked.cases, asked.seed)
    asked.json.parent.mkdir(parents=True, exist_ok=True)
    asked.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    for way, figures in report["ways"].items():
        print(way, json.dumps(figures))
    print(json.dumps(report["top_beats"]))


def measure(loaded: LoadedRun, bundle: LoadedBundle, num_cases: int, seed: int) -> dict[str, Any]:
    """Return drops of score and rank by way and number of deleted events, with 95 % intervals."""
    rng = np.random.default_rng(seed)
    rows = rng.permutation(loaded.inputs.split.test)
    drops: dict[str, list[list[float]]] = {way: [] for way in WAYS}
    ranks: dict[str, list[list[float]]] = {way: [] for way in WAYS}
    for row in rows.tolist():
        window = past_window(loaded.inputs.events, row, bundle.manifest.features.window_len)
        if len(window) <= max(DELETED):
            continue
        asked = AtPoint(window, _point(loaded, bundle, row))
        for way, (drop, rank) in _case(loaded.model, bundle, asked, rng).items():
            drops[way].append(drop)
            ranks[way].append(rank)
        if len(drops[WAYS[0]]) == num_cases:
            break
    first = {way: np.array(drops[way])[:, 0] for way in WAYS}
    top = first[WAYS[0]]
    return {
        "run": loaded.inputs.info.name,
        "cases": len(top),
        "seed": seed,
        "deleted": list(DELETED),
        "ways": {way: _figures(drops[way], ranks[way]) for way in WAYS},
        "top_beats": {way: _mean(top > first[way]) for way in WAYS[1:]},
    }


def _figures(drops: Sequence[Sequence[float]], ranks: Sequence[Sequence[float]]) -> dict[str, Any]:
    score, rank = np.array(drops), np.array(ranks)
    return {
        "drop": [_mean(column) for column in score.T],
        "area": _mean(score.mean(axis=1)),
        "log2_rank": [_mean(column) for column in rank.T],
        "leaves_first": [_mean(column > 0) for column in rank.T],
    }


def _mean(values: NDArray[np.generic]) -> tuple[float, float]:
    """Return a mean and the half width of its 95 % interval."""
    numbers = np.asarray(values, np.float64)
    half = Z95 * numbers.std(ddof=1) / np.sqrt(len(numbers))
    return round(float(numbers.mean()), 4), round(float(half), 4)


def _point(loaded: LoadedRun, bundle: LoadedBundle, row: int) -> RequestPoint:
    """Return when the row's event was, as the bundle is asked."""
    features = bundle.manifest.features
    if not features.uses_request_time:
        return RequestPoint()
    events = loaded.inputs.events.window
    offset = int(events.tz_offsets_min[row]) if features.knows_offsets else 0
    return RequestPoint(int(events.timestamps_ms[row]), offset)


def _case(
    model: SequenceModel, bundle: LoadedBundle, asked: AtPoint, rng: np.random.Generator
) -> Mapping[str, tuple[list[float], list[float]]]:
    """Return, by way, the item's lost score and the log2 of its rank after each deletion."""
    [full] = _catalogue(bundle, [asked])
    shown = full.copy()
    shown[0] = -np.inf
    if bundle.manifest.exclude_seen == "all":
        shown[asked.window.items] = -np.inf
    item = int(shown.argmax())
    may = np.isfinite(shown)
    length = len(asked.window)
    places = np.arange(max(0, length - EXAMINED), length)
    strength = {
        "leave-one-out": _leave_one_out(bundle, asked, places, item),
        "gradient x input": _gradient(model, asked, item)[places],
        "attention": _attention(bundle, asked)[places],
        "last": places.astype(np.float64),
        "random": rng.random(len(places)),
    }
    found = {}
    for way, of_events in strength.items():
        order = places[np.argsort(-of_events, kind="stable")]
        left = [AtPoint(_without(asked.window, order[:k]), asked.point) for k in DELETED]
        after = _catalogue(bundle, left)
        drop = [float(full[item] - one[item]) for one in after]
        # Among what might have been shown: the rank is 1 while the item stays the first.
        rank = [float(np.log2((one[may] > one[item]).sum() + 1)) for one in after]
        found[way] = (drop, rank)
    return found


def _without(window: Window, places: Order) -> Window:
    kept = np.ones(len(window), np.bool_)
    kept[places] = False
    return window.select(kept)


def _catalogue(bundle: LoadedBundle, asked: Sequence[AtPoint]) -> Float32s:
    ranker = bundle.ranker
    return ranker.score_batch(ranker.arrays_of(asked))


def _leave_one_out(
    bundle: LoadedBundle, asked: AtPoint, places: Order, item: int
) -> NDArray[np.float64]:
    """Return what events bring, by the service's own encoder and scores."""
    indices = np.array([item])
    row = bundle.ranker.vectors(indices)
    items = ItemParts(indices, row, 0 * row, 0 * row)
    windows = [asked]
    windows += [AtPoint(without_event(asked.window, place), asked.point) for place in places]
    encoded = []
    for start in range(0, len(windows), BATCH):
        encoded += bundle.ranker.encode_at(windows[start : start + BATCH])
    found = np.array([scores(one, items, None)[0] for one in encoded])
    return found[0] - found[1:]


def _gradient(model: SequenceModel, asked: AtPoint, item: int) -> NDArray[np.float64]:
    """Return gradient x input of the item's score by the vectors of the window's events."""
    batch = inference_batch(encode_windows([asked.window], [asked.point], len(asked.window)))
    with torch.no_grad():
        table = model.items()
        matrix = model.item_vectors(table=table)
    vectors = table[batch.items].detach().requires_grad_(True)
    output = model.read(batch, table, vectors, 1)
    score = (model.query(output)[:, 0] * matrix[item]).sum()
    if output.copy is not None:
        score = score + (output.copy[:, 0] * (batch.items == item)).sum()
    [gradient] = torch.autograd.grad(score, vectors)
    return (gradient * vectors).sum(dim=-1)[0].detach().double().numpy()


def _attention(bundle: LoadedBundle, asked: AtPoint) -> NDArray[np.float64]:
    """Return how much the last position looks at each, the mean over layers and heads."""
    graph = bundle.explaining.attention
    if graph is None:
        raise SystemExit("the bundle has no attention graph; export it from a Transformer's run")
    attention = graph.of(bundle.ranker.arrays_of([asked]))
    return attention[:, :, -1].mean(axis=(0, 1)).astype(np.float64)


if __name__ == "__main__":
    main()
