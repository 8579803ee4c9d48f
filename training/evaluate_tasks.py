"""Clicks and watch time: predictions for shown items, measured beside simple baselines."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from training.data import EventTable
from training.dataset import case_batches, inference_batch
from training.model.rates import skip_type_codes
from training.model.sequence_model import SequenceModel
from training.model_config import RequestTime, Task
from training.task_metrics import Floats, click_metrics, watch_metrics

Predictions = Mapping[Task, Floats]


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What happened to the shown items of target rows, each (rows,).

    `clicked` says that the event's type is none that passes over; `watched_s` is NaN if unknown.
    """

    clicked: NDArray[np.bool_]
    watched_s: Floats
    users: NDArray[np.int64]


def outcomes(events: EventTable, rows: NDArray[np.int64]) -> Outcomes:
    """Return the outcomes of target rows."""
    skipped = np.isin(events.window.event_types[rows], skip_type_codes())
    watched = events.window.durations_s[rows].astype(np.float64)
    return Outcomes(~skipped, watched, events.users[rows])


def task_predictions(
    model: SequenceModel,
    events: EventTable,
    rows: NDArray[np.int64],
    request_time: RequestTime,
) -> Predictions:
    """Return the model's click logits and predicted log1p seconds of target rows, in their order.

    The window is what the user did before; the shown item is known, its outcome is not.
    """
    tasks: list[Task] = [task for task in model.config.tasks if task != "next-item"]
    found: dict[Task, Floats] = {task: np.empty(len(rows)) for task in tasks}
    if not tasks:
        return found
    place_of = {row: place for place, row in enumerate(rows.tolist())}
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    with torch.inference_mode():
        for chosen, arrays in case_batches(events, rows, model.config.window_len, request_time):
            output = model(inference_batch(arrays).to(device), 1)
            shown = torch.from_numpy(events.window.items[chosen]).to(device)
            places = [place_of[row] for row in chosen.tolist()]
            for task in tasks:
                items = model.item_vectors(task, output.table)[shown]
                scores = (model.query(output, task)[:, 0] * items).sum(dim=-1)
                found[task][places] = scores.double().cpu().numpy()
    model.train(was_training)
    return found


def measure_tasks(predictions: Predictions, truth: Outcomes) -> dict[str, float]:
    """Return the metrics of predictions by name."""
    results: dict[str, float] = {}
    if "click" in predictions:
        results |= click_metrics(predictions["click"], truth.clicked, truth.users)
    if "watch" in predictions:
        known = np.isfinite(truth.watched_s)
        results |= watch_metrics(predictions["watch"][known], truth.watched_s[known])
    return results
