"""Windows, targets and batches."""

import numpy as np
import pytest

from tests.training import builders
from training.config import LoopConfig
from training.dataset import (
    TrainingSet,
    bucketed_batches,
    case_batches,
    training_ends,
    training_spans,
)
from training.splits import leave_one_out

LOOP = LoopConfig(batch_size=8)


def test_every_training_event_but_the_first_is_a_target_once() -> None:
    """A history of 8 training events and windows of 3 gives 7 targets in 3 sequences."""
    events = builders.events(["abcdefgh"])
    ends = training_ends(events, np.ones(8, bool))
    spans = training_spans(events.user_starts[:-1], ends, 3)
    assert spans.tolist() == [[4, 8], [1, 5], [0, 2]]
    targets = [row for first, last in spans for row in range(first + 1, last)]
    assert sorted(targets) == list(range(1, 8))


@pytest.mark.parametrize("shift", [0, 1, 2])
def test_cuts_that_move_still_train_every_event_once(shift: int) -> None:
    """Wherever long histories are cut; what fits into one window is never cut."""
    events = builders.events(["abcdefgh", "abcd", "a"])
    ends = training_ends(events, np.ones(13, bool))
    spans = training_spans(events.user_starts[:-1], ends, 3, np.full(3, shift))
    targets = [row for first, last in spans for row in range(first + 1, last)]
    assert sorted(targets) == [*range(1, 8), *range(9, 12)]
    assert max(last - first for first, last in spans) <= 4
    assert [8, 12] in spans.tolist()
    assert [4, 8] in spans.tolist() if shift == 0 else [4 + shift, 8] in spans.tolist()


def test_windows_are_cut_elsewhere_every_epoch_when_asked() -> None:
    """`loop.shift_windows` draws the cuts from the epoch's generator, so a resumed run agrees."""
    events = builders.events(["abcdefghij" * 3])
    training = TrainingSet(events, np.ones(30, bool), 6, "unknown")
    loop = LoopConfig(batch_size=8, shift_windows=True)

    def cuts(seed: int) -> list[int]:
        (batch,) = training.epoch(loop, np.random.default_rng(seed))
        assert int((batch.targets > 0).sum()) == training.num_targets == 29
        return sorted((batch.targets > 0).sum(dim=1).tolist())

    assert cuts(3) == cuts(3)
    assert len({tuple(cuts(seed)) for seed in range(20)}) > 1


def test_targets_are_the_next_items_and_their_times_ask() -> None:
    """Position i reads event i and is asked at the time of event i + 1."""
    events = builders.events(["abcde"])
    training = TrainingSet(events, leave_one_out(events).train, 4, "known")
    (batch,) = training.epoch(LOOP, np.random.default_rng(0))
    assert training.num_targets == 2
    assert batch.batch.items.tolist() == [[1, 2]]
    assert batch.targets.tolist() == [[2, 3]]
    times = events.window.timestamps_ms
    assert batch.batch.query_times_ms.tolist() == [times[1:3].tolist()]


def test_shorter_sequences_are_padded_on_the_left() -> None:
    """Inputs, targets and target times of one event stay in one column."""
    events = builders.events(["abcdef", "fedc"])
    training = TrainingSet(events, leave_one_out(events).train, 4, "known")
    (batch,) = training.epoch(LOOP, np.random.default_rng(0))
    rows = sorted(zip(batch.batch.items.tolist(), batch.targets.tolist(), strict=True))
    assert rows == [([0, 0, 6], [0, 0, 5]), ([1, 2, 3], [2, 3, 4])]
    assert ((batch.targets > 0) == (batch.batch.query_times_ms > 0)).all()


def test_unknown_request_times_are_zero() -> None:
    """The switch reaches the batch: no target's time is in it."""
    events = builders.events(["abcde"])
    training = TrainingSet(events, leave_one_out(events).train, 4, "unknown")
    (batch,) = training.epoch(LOOP, np.random.default_rng(0))
    assert batch.batch.query_times_ms.abs().sum().item() == 0


def test_batches_cover_every_row_once_and_keep_lengths_together() -> None:
    """Bucketing must not lose, repeat or blow up."""
    lengths = np.random.default_rng(1).integers(1, 200, 1000)
    batches = bucketed_batches(lengths, 16, np.random.default_rng(2))
    assert sorted(np.concatenate(batches)) == list(range(1000))
    padded = sum(int(lengths[rows].max()) * len(rows) for rows in batches)
    assert padded < 1.15 * lengths.sum()


def test_a_token_budget_bounds_every_batch() -> None:
    """Rows x longest stays within the budget, a longer sequence goes alone, none is lost."""
    lengths = np.append(np.random.default_rng(1).integers(1, 200, 1000), 5000)
    batches = bucketed_batches(lengths, 1, np.random.default_rng(2), batch_tokens=2000)
    assert sorted(np.concatenate(batches)) == list(range(1001))
    sizes = {int(lengths[rows].max()) * len(rows) for rows in batches}
    assert {size for size in sizes if size > 2000} == {5000}
    assert len(batches) < 1.4 * lengths.sum() / 2000


def test_one_seed_gives_one_order() -> None:
    """Resuming depends on it."""
    lengths = np.arange(100)
    first, second = (
        [rows.tolist() for rows in bucketed_batches(lengths, 7, np.random.default_rng(3))]
        for _ in range(2)
    )
    assert first == second


def test_a_case_sees_what_its_user_did_before_the_target() -> None:
    """The test window of abcd holds abc, not d, and nothing of the other user."""
    events = builders.events(["abcd", "bcda"])
    split = leave_one_out(events)
    ((rows, arrays),) = case_batches(events, split.test, 10, "known")
    assert rows.tolist() == [3, 7]
    assert arrays["items"].tolist() == [[1, 2, 3], [2, 3, 4]]
    assert arrays["request_time_ms"].tolist() == events.window.timestamps_ms[[3, 7]].tolist()
