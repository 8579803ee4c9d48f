"""Splits: who trains, who is held out, and that no future leaks."""

import dataclasses

import numpy as np
import pyarrow as pa
import pytest

from tests.training import builders
from training.config import SplitConfig, TrainingError
from training.data import EVENT_SCHEMA, event_table
from training.splits import (
    check_no_future,
    global_temporal,
    leave_one_out,
    make_split,
    trajectories,
)


def test_leave_one_out_holds_out_the_last_two_events() -> None:
    """Of abcd the d is test, the c validation; two events only train."""
    split = leave_one_out(builders.events(["abcd", "xy"]))
    assert split.test.tolist() == [3]
    assert split.validation.tolist() == [2]
    assert split.train.tolist() == [True, True, False, False, True, True]


def test_the_temporal_split_cuts_all_users_at_the_same_instants() -> None:
    """Ten days: the first 80 % train, day 9 validates, day 10 tests, for both users."""
    events = builders.events(["abcdefghij", "ABCDEFGHIJ"])
    split = global_temporal(events, 0.8, 0.9)
    times = events.window.timestamps_ms
    assert times[split.train].max() < times[split.validation].min()
    assert times[split.validation].max() < times[split.test].min()
    assert sorted(set(events.users[split.test])) == [0, 1]


def test_a_first_event_is_no_temporal_case() -> None:
    """Without a past there is no window; a cold user is measured elsewhere."""
    table = builders.table(["abcdefghij", "Z"])
    times = table["timestamp_ms"].to_pylist()
    times[-1] = times[-2]
    late = table.set_column(table.column_names.index("timestamp_ms"), "timestamp_ms", [times])
    split = global_temporal(event_table(late), 0.5, 0.7)
    assert split.test.tolist() == [7, 8, 9]


@pytest.mark.parametrize("protocol", ["leave-one-out", "temporal"])
def test_a_planted_leak_is_caught(protocol: str) -> None:
    """A target that also trains is what every inflated figure has in common."""
    events = builders.events(["abcdefghij", "ABCDEFGHIJ"])
    split = make_split(events, SplitConfig(protocol=protocol))  # type: ignore[arg-type]  # a Literal by parametrize
    leaky = split.train.copy()
    leaky[split.test[0]] = True
    with pytest.raises(TrainingError, match="leak"):
        check_no_future(events, dataclasses.replace(split, train=leaky))


def test_training_on_what_follows_the_own_target_is_caught() -> None:
    """With the second event as the target, the third one trains on its future."""
    events = builders.events(["abcde"])
    split = leave_one_out(events)
    train = np.array([True, False, True, False, False])
    leaky = dataclasses.replace(split, validation=np.array([1]), train=train)
    with pytest.raises(TrainingError, match="leak: a user trains on events after"):
        check_no_future(events, leaky)


def test_the_hash_names_the_targets() -> None:
    """Equal hashes mean equal cases; one other target is another hash."""
    assert leave_one_out(builders.events(["abcd"])).sha256 == (
        leave_one_out(builders.events(["abcd"])).sha256
    )
    assert leave_one_out(builders.events(["abcd"])).sha256 != (
        leave_one_out(builders.events(["abdc"])).sha256
    )


def test_a_split_without_cases_says_so() -> None:
    """Everybody has two events: nothing can be held out."""
    with pytest.raises(TrainingError, match="no validation cases among 4 events of 2 users"):
        make_split(builders.events(["ab", "cd"]), SplitConfig())


def test_a_trajectory_case_is_the_last_event_of_a_session() -> None:
    """Sessions of up to a day; those of one event, and those cut by an instant, are no case."""
    hour = 3_600_000
    # Ten days, two events a day, an hour apart: ten sessions of two events.
    days = [day * 24 * hour + extra for day in range(10) for extra in (0, hour)]
    rows = [
        {"user_id": "u", "item_id": f"i{place % 3}", "event_type": "view", "timestamp_ms": at + 1}
        for place, at in enumerate(days)
    ]
    table = pa.Table.from_pylist(
        [dict.fromkeys(EVENT_SCHEMA.names) | row for row in rows], schema=EVENT_SCHEMA
    )
    split = trajectories(event_table(table), 0.8, 0.9, session_hours=12.0)
    assert split.train.sum() == 16
    assert split.validation.tolist() == [17]
    assert split.test.tolist() == [19]


def test_trajectory_targets_have_been_trained_on() -> None:
    """GETNext's protocol leaves out places and users that training never saw."""
    events = builders.events(["aaaaaaaab" + "z"], step_ms=1000)
    split = trajectories(events, 0.7, 0.8, session_hours=1e-3)
    assert events.window.items[split.test].max(initial=0) <= 2
