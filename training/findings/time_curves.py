"""What the model has learned of gaps, distances and hours, in a person's units."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from service.contract.features import Arrays
from training.dataset import inference_batch
from training.model.batch import Batch
from training.model.lookup import BIAS_GAIN
from training.model.place import (
    DISTANCE_UNIT_KM,
    MAX_LOG2_DISTANCE,
    NUM_DISTANCE_BUCKETS,
    distance_bucket,
    event_places,
    haversine_km,
)
from training.model.sequence_model import SequenceModel
from training.model.time import (
    BUCKETS_PER_NAT,
    FIRST_BUCKET,
    HOURS,
    MS_PER_DAY,
    MS_PER_HOUR,
    MS_PER_MINUTE,
    MS_PER_SECOND,
    NUM_GAP_BUCKETS,
    WEEKDAYS,
    asking_times,
    gap_bucket,
)

# A Monday, 1970-01-05, in milliseconds: the week that requests are moved to.
MONDAY_MS = 4 * MS_PER_DAY
# Scores of a week's hours that are made at most, of 4 bytes, one hour after another.
MOST_SCORES = 1 << 20
MOST_WINDOWS = 64


def bias_curves(model: SequenceModel, arrays: Arrays) -> dict[str, Any]:
    """Return the learned attention bias by `gap` and by `distance`, of a model that has them.

    A curve has the lower edges of its buckets, `at` (seconds, kilometres), how many pairs of the
    windows' last queries and their events fell into each, `pairs`, and `heads`, a bias each. Of
    buckets, those that a pair fell into.
    """
    batch = inference_batch(arrays)
    found: dict[str, Any] = {}
    if model.gap_bias is not None:
        asked = asking_times(batch, model.request_time is not None)[:, -1:]
        buckets = gap_bucket(asked - batch.timestamps_ms)[batch.items > 0]
        edges = [_gap_s(bucket) for bucket in range(NUM_GAP_BUCKETS)]
        found["gap"] = _curve(model.gap_bias.table.weight, buckets, edges)
    if model.distance_bias is not None:
        lats, lons = event_places(batch, model.items.item_lats, model.items.item_lons)
        far = haversine_km(lats[:, -1:], lons[:, -1:], lats, lons)
        edges = [0.0, *(_distance_km(bucket) for bucket in range(1, NUM_DISTANCE_BUCKETS))]
        buckets = distance_bucket(far)[batch.items > 0]
        found["distance"] = _curve(model.distance_bias.table.weight, buckets[buckets > 0], edges)
    return {name: curve for name, curve in found.items() if curve["at"]}


def _curve(table: Tensor, buckets: Tensor, edges: Sequence[float]) -> dict[str, Any]:
    """Return a curve of a table (buckets, heads) over the buckets that pairs fall into."""
    counts = torch.bincount(buckets, minlength=len(edges)).tolist()
    met = [bucket for bucket, count in enumerate(counts) if count]
    biases = (table.detach() * BIAS_GAIN)[met].T
    return {
        "at": [edges[bucket] for bucket in met],
        "pairs": [counts[bucket] for bucket in met],
        "heads": biases.tolist(),
    }


def _gap_s(bucket: int) -> float:
    """Return the shortest gap of a bucket, in seconds: `gap_bucket` turned round."""
    return max(0.0, math.exp((bucket + FIRST_BUCKET) / BUCKETS_PER_NAT) / MS_PER_SECOND - 1)


def _distance_km(bucket: int) -> float:
    """Return the shortest distance of a bucket from 1, in km: `distance_bucket` turned round."""
    log2 = (bucket - 1) * MAX_LOG2_DISTANCE / (NUM_DISTANCE_BUCKETS - 2)
    return float((2**log2 - 1) * DISTANCE_UNIT_KM)


def week_profile(
    model: SequenceModel, arrays: Arrays, groups: NDArray[np.int64], num_groups: int
) -> dict[str, Any] | None:
    """Return how predictions move with the hour of the week, None for a model that knows no hours.

    The windows are asked at every hour of a week, at the same gap since their last event; so what
    differs is what the hour and the weekday alone do. `shift` is (7, 24): half the absolute
    difference, summed over items, of an hour's mean prediction from the week's. `hours` is
    (groups, 24), the mean probability of the groups' items by hour of day, `groups` (num_items +
    1,) being the group of each item.
    """
    if model.request_time is None or model.config.tasks[0] != "next-item":
        return None
    batch = inference_batch(arrays)
    batch = batch.select(batch.query_times_ms[:, -1] > 0)
    batch = batch.select(slice(max(2, min(MOST_WINDOWS, MOST_SCORES // len(groups)))))
    if not len(batch.items):
        return None
    means = np.stack(list(_by_hour(model, batch)))  # (7 · 24, num_items + 1)
    shift = np.abs(means - means.mean(axis=0)).sum(axis=1) / 2
    totals = np.stack([np.bincount(groups, mean, num_groups) for mean in means])
    by_day = totals.reshape(WEEKDAYS, HOURS, num_groups).mean(axis=0)
    return {
        "shift": shift.reshape(WEEKDAYS, HOURS).tolist(),
        "hours": by_day.T.tolist(),
        "windows": len(batch.items),
    }


def _by_hour(model: SequenceModel, batch: Batch) -> Iterator[NDArray[np.float64]]:
    """Yield the mean probabilities of all items, (num_items + 1,), for every hour of a week."""
    request_time = model.request_time
    assert request_time is not None  # noqa: S101 - the caller asked
    kept: list[Tensor] = []
    handle = request_time.register_forward_pre_hook(lambda _, inputs: kept.append(inputs[0]))
    with torch.inference_mode():
        try:
            output = model(batch, 1)
        finally:
            handle.remove()
        vectors = model.item_vectors(table=output.table)
        last = batch.timestamps_ms[:, -1:]
        gaps = batch.query_times_ms[:, -1:] - last
        offsets = batch.query_tz_offsets_min * MS_PER_MINUTE
        for hour in range(WEEKDAYS * HOURS):
            # Local clocks show the hour, wherever the user is.
            times = MONDAY_MS + hour * MS_PER_HOUR - offsets
            asked = replace(batch, query_times_ms=times)
            hidden = request_time(kept[0], asked, times[:, -1:] - gaps)
            scores = model.query(replace(output, hidden=hidden))[:, 0] @ vectors.T
            chances = torch.softmax(scores[:, 1:], dim=1).double().mean(dim=0)
            yield np.concatenate([[0.0], chances.numpy()])
