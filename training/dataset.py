"""From events to batches: training sequences bucketed by length, evaluation cases in order."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from service.contract.features import Arrays, Window, encode_spans
from training.config import LoopConfig
from training.data import EventTable
from training.model.batch import Batch, serving_batch
from training.model_config import RequestTime

# Shuffled sequences are sorted by length within pools of this many batches: padding stays small
# while what shares a batch still changes from epoch to epoch.
POOL_BATCHES = 8


@dataclass(frozen=True, slots=True)
class TrainingBatch:
    """Windows and, for every position, what came next.

    `targets` is (batch, window) int64, 0 where there is nothing to predict; `target_types` and
    `target_durations_s` are of the same events.
    """

    batch: Batch
    targets: Tensor
    target_types: Tensor
    target_durations_s: Tensor

    def select(self, rows: Tensor | slice) -> "TrainingBatch":
        """Return the batch of the chosen windows."""
        return TrainingBatch(
            self.batch.select(rows),
            self.targets[rows],
            self.target_types[rows],
            self.target_durations_s[rows],
        )

    def to(self, device: torch.device) -> "TrainingBatch":
        """Return the batch on a device."""
        return TrainingBatch(
            self.batch.to(device),
            self.targets.to(device),
            self.target_types.to(device),
            self.target_durations_s.to(device),
        )


def past_window(events: EventTable, row: int, max_len: int) -> Window:
    """Return what the user of `row` did before it, at most the last `max_len` events."""
    start = int(events.user_starts[events.users[row]])
    return events.window.select(slice(max(start, row - max_len), row))


class TrainingSet:
    """Each user's training events as one sequence of at most window_len + 1 events.

    Longer histories are cut into consecutive sequences, so that every event is a target once;
    the newest one is full, the oldest takes the rest.
    """

    def __init__(
        self,
        events: EventTable,
        train: NDArray[np.bool_],
        window_len: int,
        time: RequestTime,
    ) -> None:
        self._events = events
        self._time = time
        self._window_len = window_len
        self._ends = training_ends(events, train)
        self._spans = self._cut(0)

    def _cut(self, shift: NDArray[np.int64] | int) -> NDArray[np.int64]:
        starts = self._events.user_starts[:-1]
        return training_spans(starts, self._ends, self._window_len, shift)

    def __len__(self) -> int:
        return len(self._spans)

    @property
    def num_targets(self) -> int:
        """Return how many positions an epoch trains."""
        return int((self._spans[:, 1] - self._spans[:, 0] - 1).sum())

    def epoch(self, loop: LoopConfig, rng: np.random.Generator) -> Iterator[TrainingBatch]:
        """Yield the epoch's batches in an order that `rng` alone decides."""
        for rows in self.batches(loop, rng):
            yield self.batch(rows)

    def batches(self, loop: LoopConfig, rng: np.random.Generator) -> list[NDArray[np.int64]]:
        """Return the sequences of each batch of an epoch, in random order."""
        if loop.shift_windows:
            self._spans = self._cut(rng.integers(self._window_len, size=len(self._ends)))
        lengths = self._spans[:, 1] - self._spans[:, 0]
        return bucketed_batches(lengths, loop.batch_size, rng, loop.batch_tokens)

    def batch(self, rows: NDArray[np.int64]) -> TrainingBatch:
        """Return the batch of the chosen sequences."""
        spans = self._spans[rows]
        window, length = self._events.window, int((spans[:, 1] - spans[:, 0]).max()) - 1
        inputs = encode_spans(window, spans[:, 0], spans[:, 1] - 1, length)
        nexts = encode_spans(window, spans[:, 0] + 1, spans[:, 1], length)
        batch = serving_batch(to_tensors(inputs))
        known = torch.from_numpy(nexts["timestamps_ms"]) * int(self._time == "known")
        offsets = torch.from_numpy(nexts["tz_offsets_min"])
        return TrainingBatch(
            replace(batch, query_times_ms=known, query_tz_offsets_min=offsets),
            torch.from_numpy(nexts["items"]),
            torch.from_numpy(nexts["event_types"]),
            torch.from_numpy(nexts["durations_s"]),
        )


def training_ends(events: EventTable, train: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the row after each user's last training event, (users,) int64.

    A user's training events are a prefix of their events under every split, which is checked.
    """
    counts = np.bincount(events.users[train], minlength=events.num_users)
    ends = events.user_starts[:-1] + counts
    before = np.arange(len(train)) < ends[events.users]
    if not bool((before == train).all()):
        raise ValueError("training events of a user are not a prefix of their events")
    return ends


def training_spans(
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    window_len: int,
    shift: NDArray[np.int64] | int = 0,
) -> NDArray[np.int64]:
    """Return [first, last) rows of the training sequences, (sequences, 2) int64.

    Users' events are rows [starts, ends). A sequence predicts at most `window_len` events, and
    neighbouring ones share one event: the last of the older is the first of the newer. Where a
    history is longer, the newest sequence predicts `shift` events fewer; the oldest takes the rest.
    """
    targets = ends - starts - 1
    shifts = np.where(targets > window_len, shift, 0)
    counts = np.where(targets > 0, -(-(targets + shifts) // window_len), 0)
    order = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    lasts = np.repeat(ends + shifts, counts) - order * window_len
    firsts = np.maximum(lasts - window_len - 1, np.repeat(starts, counts))
    lasts = np.minimum(lasts, np.repeat(ends, counts))
    return np.stack([firsts, lasts], axis=1).astype(np.int64)


def bucketed_batches(
    lengths: NDArray[np.int64], batch_size: int, rng: np.random.Generator, batch_tokens: int = 0
) -> list[NDArray[np.int64]]:
    """Return batches of row numbers, similar lengths together, in random order.

    With `batch_tokens` above 0 a batch takes rows while rows x longest stays within it, at least
    one; else `batch_size` rows.
    """
    shuffled = rng.permutation(len(lengths))
    mean = max(1.0, float(lengths.mean())) if len(lengths) else 1.0
    rows_of_batch = max(1, int(batch_tokens / mean)) if batch_tokens else batch_size
    pool = rows_of_batch * POOL_BATCHES
    batches: list[NDArray[np.int64]] = []
    for start in range(0, len(shuffled), pool):
        rows = shuffled[start : start + pool]
        rows = rows[np.argsort(lengths[rows], kind="stable")]
        cuts = (
            _budget_cuts(lengths[rows], batch_tokens)
            if batch_tokens
            else range(batch_size, len(rows), batch_size)
        )
        batches += np.split(rows, cuts)
    return [batches[place] for place in rng.permutation(len(batches))]


def _budget_cuts(ordered: NDArray[np.int64], batch_tokens: int) -> list[int]:
    """Return where to cut ascending lengths so that each part's rows x longest fits the budget."""
    cuts, first = [], 0
    for place, length in enumerate(ordered.tolist()):
        if place > first and (place - first + 1) * length > batch_tokens:
            cuts.append(place)
            first = place
    return cuts


def case_batches(
    events: EventTable,
    rows: NDArray[np.int64],
    window_len: int,
    request_time: RequestTime,
    batch_size: int = 256,
) -> Iterator[tuple[NDArray[np.int64], Arrays]]:
    """Yield (target rows, encoded arrays) of evaluation cases, in order of their window length.

    A case asks at its target's time and local offset, or at no time. Windows are padded to the
    longest of their batch: padding changes no score, only the cost.
    """
    starts = events.user_starts[events.users[rows]]
    lengths = np.minimum(rows - starts, window_len)
    order = np.argsort(lengths, kind="stable")
    ordered, lengths = rows[order], lengths[order]
    known = request_time == "known"
    for at in range(0, len(ordered), batch_size):
        chosen = ordered[at : at + batch_size]
        longest = max(1, int(lengths[at : at + batch_size].max()))
        firsts = events.user_starts[events.users[chosen]]
        arrays = encode_spans(events.window, firsts, chosen, longest)
        arrays["request_time_ms"] = events.window.timestamps_ms[chosen] * int(known)
        arrays["request_tz_offset_min"] = events.window.tz_offsets_min[chosen] * int(known)
        unknown = np.full(len(chosen), np.nan, np.float32)
        yield chosen, arrays | {"request_lat": unknown, "request_lon": unknown}


def to_tensors(arrays: Arrays) -> dict[str, Tensor]:
    """Return encoded arrays as tensors that share their memory."""
    return {name: torch.from_numpy(column) for name, column in arrays.items()}


def inference_batch(arrays: Arrays) -> Batch:
    """Turn encoded arrays, (batch, window) and (batch,), into the model's batch."""
    return serving_batch(to_tensors(arrays))
