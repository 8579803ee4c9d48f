"""From events to batches: training sequences bucketed by length, evaluation cases in order."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from service.contract.features import Arrays, RequestPoint, Window, encode_windows
from training.config import RequestTime
from training.data import EventTable
from training.model import Batch

# Shuffled sequences are sorted by length within pools of this many batches: padding stays small
# while what shares a batch still changes from epoch to epoch.
POOL_BATCHES = 8


@dataclass(frozen=True, slots=True)
class TrainingBatch:
    """Windows and, for every position, the item that came next.

    `targets` is (batch, window) int64, 0 where there is nothing to predict.
    """

    batch: Batch
    targets: Tensor


def past_window(events: EventTable, row: int, max_len: int) -> Window:
    """Return what the user of `row` did before it, at most the last `max_len` events."""
    start = int(events.user_starts[events.users[row]])
    return events.window.select(slice(max(start, row - max_len), row))


def request_point(events: EventTable, row: int, request_time: RequestTime) -> RequestPoint:
    """Return the request that an evaluation case makes: at the target's time, or at none."""
    if request_time == "unknown":
        return RequestPoint()
    window = events.window
    return RequestPoint(int(window.timestamps_ms[row]), int(window.tz_offsets_min[row]))


class TrainingSet:
    """Each user's training events as one sequence of at most window_len + 1 events.

    Longer histories are cut into consecutive sequences, so that every event is a target once;
    the newest one is full, the oldest takes the rest.
    """

    def __init__(
        self, events: EventTable, train: NDArray[np.bool_], window_len: int, time: RequestTime
    ) -> None:
        self._events = events
        self._time = time
        self._spans = training_spans(events, train, window_len)

    def __len__(self) -> int:
        return len(self._spans)

    def epoch(self, batch_size: int, rng: np.random.Generator) -> Iterator[TrainingBatch]:
        """Yield the epoch's batches in an order that `rng` alone decides."""
        for rows in bucketed_batches(self._spans[:, 1] - self._spans[:, 0], batch_size, rng):
            yield self._batch(self._spans[rows])

    def num_batches(self, batch_size: int) -> int:
        """Return how many batches an epoch has."""
        return -(-len(self._spans) // batch_size)

    def _batch(self, spans: NDArray[np.int64]) -> TrainingBatch:
        inputs = [self._events.window.select(slice(first, last - 1)) for first, last in spans]
        nexts = [self._events.window.select(slice(first + 1, last)) for first, last in spans]
        requests = [RequestPoint() for _ in spans]
        length = int((spans[:, 1] - spans[:, 0]).max()) - 1
        arrays = encode_windows(inputs, requests, length)
        targets = encode_windows(nexts, requests, length)
        known = self._time == "known"
        batch = Batch(
            items=torch.from_numpy(arrays["items"]),
            timestamps_ms=torch.from_numpy(arrays["timestamps_ms"]),
            query_times_ms=torch.from_numpy(targets["timestamps_ms"] * known),
            query_tz_offsets_min=torch.from_numpy(targets["tz_offsets_min"]),
        )
        return TrainingBatch(batch, torch.from_numpy(targets["items"]))


def training_spans(
    events: EventTable, train: NDArray[np.bool_], window_len: int
) -> NDArray[np.int64]:
    """Return [first, last) rows of the training sequences, (sequences, 2) int64.

    A user's training events are a prefix of their events under both splits, which is checked.
    Neighbouring sequences share one event: the last of the older is the first of the newer.
    """
    counts = np.bincount(events.users[train], minlength=events.num_users)
    spans = []
    for start, count in zip(events.user_starts[:-1], counts, strict=True):
        end = int(start + count)
        if not bool(train[start:end].all()):
            raise ValueError("training events of a user are not a prefix of their events")
        while end - start >= 2:  # noqa: PLR2004 - one event to read and one to predict
            first = max(int(start), end - window_len - 1)
            spans.append((first, end))
            end = first + 1
    return np.array(spans, np.int64).reshape(-1, 2)


def bucketed_batches(
    lengths: NDArray[np.int64], batch_size: int, rng: np.random.Generator
) -> Iterator[NDArray[np.int64]]:
    """Yield batches of row numbers, similar lengths together, in random order."""
    shuffled = rng.permutation(len(lengths))
    pool = batch_size * POOL_BATCHES
    batches: list[NDArray[np.int64]] = []
    for start in range(0, len(shuffled), pool):
        rows = shuffled[start : start + pool]
        rows = rows[np.argsort(lengths[rows], kind="stable")]
        batches += [rows[at : at + batch_size] for at in range(0, len(rows), batch_size)]
    for place in rng.permutation(len(batches)):
        yield batches[place]


def case_batches(
    events: EventTable,
    rows: NDArray[np.int64],
    window_len: int,
    request_time: RequestTime,
    batch_size: int = 256,
) -> Iterator[tuple[NDArray[np.int64], Arrays]]:
    """Yield (target rows, encoded arrays) of evaluation cases, in order of their window length.

    Windows are padded to the longest of their batch: padding changes no score, only the cost.
    """
    starts = events.user_starts[events.users[rows]]
    lengths = np.minimum(rows - starts, window_len)
    ordered = rows[np.argsort(lengths, kind="stable")]
    for at in range(0, len(ordered), batch_size):
        chosen = ordered[at : at + batch_size]
        windows = [past_window(events, int(row), window_len) for row in chosen]
        requests = [request_point(events, int(row), request_time) for row in chosen]
        longest = max(1, *(len(window) for window in windows))
        yield chosen, encode_windows(windows, requests, longest)


def inference_batch(arrays: Arrays) -> Batch:
    """Turn encoded arrays, (batch, window) and (batch,), into the model's batch."""
    timestamps = torch.from_numpy(arrays["timestamps_ms"])
    return serving_batch(
        torch.from_numpy(arrays["items"]),
        timestamps,
        torch.from_numpy(arrays["request_time_ms"]),
        torch.from_numpy(arrays["request_tz_offset_min"]),
    )


def serving_batch(
    items: Tensor, timestamps_ms: Tensor, request_time_ms: Tensor, request_tz_offset_min: Tensor
) -> Batch:
    """Build the batch of a request; torch operations only, so it is part of the exported graph.

    Position i was asked at the time of event i + 1, the last one at the time of the request.
    """
    query_times = torch.cat([timestamps_ms[:, 1:], request_time_ms[:, None]], dim=1)
    offsets = request_tz_offset_min[:, None].expand_as(timestamps_ms)
    return Batch(items, timestamps_ms, query_times, offsets)
