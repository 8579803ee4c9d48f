"""Everything that a report says of a finished run beyond its curves, as one plain document.

All of it is of validation cases: a report that is looked at while settings are chosen must not
show the test. Cases, users and items are sampled with a fixed seed, so that a report takes seconds
and says the same when it is made again.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from service.contract.features import Arrays
from training.baselines import Popularity, item_counts
from training.confidence import MODEL
from training.data import read_items
from training.dataset import case_batches, inference_batch
from training.evaluate import headline_rule, rank_cases
from training.evaluate_tasks import outcomes, task_predictions
from training.findings.attention import attention_weights
from training.findings.calibration import ProbabilityRecorder, calibration, logistic
from training.findings.item_map import (
    ItemNames,
    common_categories,
    item_map,
    item_names,
    most_events,
    neighbours,
    unit_vectors,
)
from training.findings.start import START_FILE, compare, read_start, sampled_cases
from training.findings.time_curves import bias_curves, week_profile
from training.runs import LoadedRun, ranking_details
from training.scorers import TorchScorer

SEED = 0
POPULARITY = "popularity"
NUM_USERS = 3
NUM_EVENTS = 12
# A user with so many events shows more than one with two.
LEAST_EVENTS = 6
MOST_LAYERS, MOST_HEADS = 4, 4
NUM_WINDOWS = 256
NUM_SERIES = 5


def examine(run: Path, loaded: LoadedRun) -> dict[str, Any]:
    """Return the findings of a run; torch's random state and the model stay as they were."""
    inputs, model = loaded.inputs, loaded.model
    counts = item_counts(inputs.events, inputs.split.train)
    names = item_names(read_items(inputs.dataset_path).to_pylist(), tuple(inputs.events.items))
    vectors = unit_vectors(model)
    near = neighbours(vectors, counts)
    rows = sampled_cases(inputs)
    windows = _windows(loaded, rows)
    return {
        **_validation(run, loaded, rows),
        "attention": _attention(loaded, rows, names),
        "biases": bias_curves(model, windows),
        "week": _week(loaded, windows, counts, names),
        "items": item_map(vectors, counts, names),
        "neighbours": _named_neighbours(run, near, names),
    }


def _validation(run: Path, loaded: LoadedRun, cases: NDArray[np.int64]) -> dict[str, Any]:
    """Return figures by group beside popularity, calibration, and what the run started from."""
    inputs, config = loaded.inputs, loaded.config
    rule = headline_rule(inputs.info.repeat_share)
    recorder = ProbabilityRecorder(TorchScorer(loaded.model))
    baseline = Popularity(inputs.events, inputs.split.train)
    ranking = rank_cases(
        {MODEL: recorder, POPULARITY: baseline},
        inputs.events,
        cases,
        window_len=config.model.window_len,
        request_time=config.model.request_time,
    )
    rows, ranks = ranking.rows, ranking.ranks(rule)
    users = inputs.events.users[rows]
    start = read_start(run, rows)
    found: dict[str, Any] = {
        "groups": ranking_details(loaded, ranking, rule),
        "num_cases": len(rows),
        "all_cases": len(inputs.split.validation),
        "seen_items": rule,
        "calibration": _calibration(loaded, recorder, rows),
        "counting": compare(ranks[POPULARITY], ranks[MODEL], users),
    }
    if start is not None:
        before = np.array(start["ranks"], np.int64)
        found["start"] = {
            "origin": start["origin"],
            "metrics": compare(before, ranks[MODEL], users),
        }
    return found


def _calibration(
    loaded: LoadedRun, recorder: ProbabilityRecorder, rows: NDArray[np.int64]
) -> dict[str, Any]:
    """Return the calibration of the served next item, and of clicks, where the run has them."""
    events, config = loaded.inputs.events, loaded.config.model
    found = {}
    if config.tasks[0] == "next-item":
        found["next-item"] = calibration(*recorder.outcomes(events.window.items[rows]))
    if "click" in config.tasks:
        logits = task_predictions(loaded.model, events, rows, config.request_time)["click"]
        found["click"] = calibration(logistic(logits), outcomes(events, rows).clicked)
    return found


def _windows(loaded: LoadedRun, rows: NDArray[np.int64]) -> Arrays:
    """Return the windows of some of the cases, in one batch."""
    rng = np.random.default_rng(SEED)
    chosen = rng.choice(rows, min(NUM_WINDOWS, len(rows)), replace=False)
    model = loaded.config.model
    batches = case_batches(
        loaded.inputs.events, chosen, model.window_len, model.request_time, batch_size=NUM_WINDOWS
    )
    return next(iter(batches))[1]


def _attention(loaded: LoadedRun, rows: NDArray[np.int64], names: ItemNames) -> dict[str, Any]:
    """Return the attention of a few users' last events; `users` is empty without attention."""
    inputs, config = loaded.inputs, loaded.config.model
    past = rows - inputs.events.user_starts[inputs.events.users[rows]]
    long = rows[past >= min(LEAST_EVENTS, int(past.max()))]
    rng = np.random.default_rng(SEED)
    chosen = np.sort(rng.choice(long, min(NUM_USERS, len(long)), replace=False))
    users = []
    for row in chosen:
        one = case_batches(inputs.events, np.array([row]), config.window_len, config.request_time)
        arrays = next(iter(one))[1]
        layers = attention_weights(loaded.model, inference_batch(arrays))
        if layers:
            titles = [names.titles[item] for item in arrays["items"][0]]
            titles += ["(the event that is asked for)"] * loaded.model.bidirectional
            users.append(_attention_of_user(titles, layers))
    return {"family": config.family, "users": users}


def _attention_of_user(titles: list[str], layers: list[torch.Tensor]) -> dict[str, Any]:
    """Return the maps of the last events; what goes to older ones is the first column."""
    shown = min(NUM_EVENTS, len(titles))
    maps = []
    for layer in layers[:MOST_LAYERS]:
        weights = layer[:MOST_HEADS, 0, -shown:].numpy()  # (heads, shown, length)
        older = weights[:, :, :-shown].sum(axis=2, keepdims=True)
        maps.append(np.concatenate([older, weights[:, :, -shown:]], axis=2).tolist())
    return {
        "titles": titles[-shown:],
        "layers": maps,
        "num_layers": len(layers),
        "num_heads": layers[0].shape[0],
    }


def _week(
    loaded: LoadedRun, windows: Arrays, counts: NDArray[np.int64], names: ItemNames
) -> dict[str, Any] | None:
    """Return how predictions move over the week, by the commonest categories, else items."""
    called = names.categories if any(names.categories) else names.titles
    if any(names.categories):
        events = loaded.inputs.events.window.items[loaded.inputs.split.train]
        common = common_categories([called[item] for item in events], 4 * NUM_SERIES)
    else:
        known = most_events(counts, 4 * NUM_SERIES)
        common = list(dict.fromkeys(called[item] for item in known))
    place_of = {name: place for place, name in enumerate(common, start=1)}
    groups = np.array([place_of.get(name, 0) for name in called], np.int64)
    profile = week_profile(loaded.model, windows, groups, len(common) + 1)
    if profile is None:
        return None
    hours = np.array(profile["hours"])[1:]  # (groups, 24)
    ratios = hours / hours.mean(axis=1, keepdims=True)
    moving = np.argsort(-np.ptp(ratios, axis=1), kind="stable")[:NUM_SERIES]
    series = {common[place]: ratios[place].tolist() for place in moving}
    return {"shift": profile["shift"], "windows": profile["windows"], "series": series}


def _named_neighbours(
    run: Path, near: list[dict[str, Any]], names: ItemNames
) -> list[dict[str, Any]]:
    start = run / START_FILE
    old = json.loads(start.read_bytes())["neighbours"] if start.is_file() else []
    before = {each["item"]: each["near"] for each in old}

    def called(items: list[int]) -> list[str]:
        # Another data set of the same run cannot be: a run refuses data that has changed.
        return [names.titles[item] for item in items]

    return [
        {
            "item": names.titles[each["item"]],
            "before": called(before.get(each["item"], [])),
            "after": called(each["near"]),
        }
        for each in near
    ]
