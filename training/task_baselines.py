"""The bar for clicks and watch time: means, smoothed rates, and a logistic regression on them.

All are fitted on training events; a training event's own outcome is left out of its rates, which
the regression would otherwise learn to trust.
"""

from collections.abc import Collection

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from training.data import EventTable, local_hours
from training.evaluate_tasks import Outcomes, Predictions, outcomes
from training.model.rates import PRIOR_EVENTS, Tally
from training.model_config import Task
from training.task_metrics import Floats

VALUE_TASKS: tuple[Task, ...] = ("click", "watch")
HOURS = 24
L2_PENALTY = 1e-4
FITTING_STEPS = 100


def fit_task_baselines(
    events: EventTable,
    train: NDArray[np.bool_],
    rows: NDArray[np.int64],
    tasks: Collection[Task] = VALUE_TASKS,
) -> dict[str, Predictions]:
    """Return the baselines' click logits and predicted log1p seconds of target rows, by name.

    Only `tasks` are fitted: a log may know clicks and no durations.
    """
    trained = np.flatnonzero(train)
    known = outcomes(events, trained)
    found: dict[str, dict[Task, Floats]] = {
        name: {} for name in ("mean", "item_mean", "user_mean", "regression")
    }
    items, users = events.window.items, events.users
    for task in tasks:
        has_one, values = _outcomes_of(task, known)
        chosen = trained[has_one]
        link = _logit if task == "click" else np.asarray
        found["mean"][task] = np.full(len(rows), link(values.mean()))
        found["item_mean"][task] = link(_rates(items, chosen, values, rows))
        found["user_mean"][task] = link(_rates(users, chosen, values, rows))
        found["regression"][task] = _regression(
            events, chosen, values, rows, logistic=task == "click"
        )
    return dict(found)


def _outcomes_of(task: Task, known: Outcomes) -> tuple[NDArray[np.bool_], Floats]:
    """Return which events have an outcome for a task, and those: clicks, or log1p seconds."""
    if task == "click":
        return np.ones(len(known.clicked), np.bool_), known.clicked.astype(np.float64)
    watched = np.isfinite(known.watched_s)
    return watched, np.log1p(known.watched_s[watched])


def item_tallies(events: EventTable, train: NDArray[np.bool_]) -> dict[Task, Tally]:
    """Return every item's training outcomes, clicks and log1p seconds, (num_items + 1,) each."""
    trained = np.flatnonzero(train)
    known = outcomes(events, trained)
    found: dict[Task, Tally] = {}
    for task in VALUE_TASKS:
        has_one, values = _outcomes_of(task, known)
        found[task] = _tally(events.window.items[trained[has_one]], values, events.num_items)
    return found


def _tally(items: NDArray[np.int64], values: Floats, num_items: int) -> Tally:
    counts = np.bincount(items, minlength=num_items + 1)
    totals = np.bincount(items, weights=values, minlength=num_items + 1)
    return Tally(torch.from_numpy(counts).float(), torch.from_numpy(totals).float())


def _key_rates(keys: NDArray[np.int64], values: Floats, asked: NDArray[np.int64]) -> Floats:
    """Return the smoothed mean of the values of each asked key."""
    size = int(max(keys.max(), asked.max())) + 1
    totals = np.bincount(keys, weights=values, minlength=size)
    counts = np.bincount(keys, minlength=size)
    rates: Floats = (totals + PRIOR_EVENTS * values.mean()) / (counts + PRIOR_EVENTS)
    return rates[asked]


def _rates(
    keys: NDArray[np.int64], trained: NDArray[np.int64], values: Floats, rows: NDArray[np.int64]
) -> Floats:
    """Return the smoothed mean value of each target row's key."""
    return _key_rates(keys[trained], values, keys[rows])


def _own_rates(keys: NDArray[np.int64], trained: NDArray[np.int64], values: Floats) -> Floats:
    """Return the smoothed mean value of each training row's key without the row itself."""
    size = int(keys.max()) + 1
    chosen = keys[trained]
    totals = np.bincount(chosen, weights=values, minlength=size)[chosen] - values
    counts = np.bincount(chosen, minlength=size)[chosen] - 1
    rates: Floats = (totals + PRIOR_EVENTS * values.mean()) / (counts + PRIOR_EVENTS)
    return rates


def _regression(
    events: EventTable,
    trained: NDArray[np.int64],
    values: Floats,
    rows: NDArray[np.int64],
    *,
    logistic: bool,
) -> Floats:
    """Fit rates of user and item and the local hour to the outcome; return the target rows' fit."""
    keys = (events.window.items, events.users)
    link = _logit if logistic else np.asarray
    inside = [link(_own_rates(key, trained, values)) for key in keys]
    outside = [link(_rates(key, trained, values, rows)) for key in keys]
    known = torch.from_numpy(np.column_stack([*inside, _hours(events, trained)]))
    asked = torch.from_numpy(np.column_stack([*outside, _hours(events, rows)]))
    center, scale = known.mean(dim=0), known.std(dim=0).clamp(min=1e-6)
    known, asked = (known - center) / scale, (asked - center) / scale
    wanted = torch.from_numpy(values)
    weights = torch.zeros(known.shape[1] + 1, dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS([weights], max_iter=FITTING_STEPS, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        solver.zero_grad()
        fitted = known @ weights[:-1] + weights[-1]
        loss = (
            functional.binary_cross_entropy_with_logits(fitted, wanted)
            if logistic
            else functional.mse_loss(fitted, wanted)
        )
        loss = loss + L2_PENALTY * (weights[:-1] ** 2).sum()
        torch.autograd.backward(loss)
        return loss

    solver.step(closure)  # type: ignore[no-untyped-call]  # torch's own
    predicted: Floats = (asked @ weights[:-1] + weights[-1]).detach().numpy()
    return predicted


def _hours(events: EventTable, rows: NDArray[np.int64]) -> Floats:
    """Return the local hour of rows as one column an hour, (rows, 24)."""
    hours = local_hours(events.window.timestamps_ms[rows], events.window.tz_offsets_min[rows])
    columns: Floats = np.eye(HOURS)[hours]
    return columns


def _logit(rates: Floats) -> Floats:
    clipped = np.clip(rates, 1e-6, 1 - 1e-6)
    result: Floats = np.log(clipped / (1 - clipped))
    return result
