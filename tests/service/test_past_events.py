"""Events of before there was a service: the newest of each user, with ids that stay the same."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from service.errors import PastEventsRefused
from service.past_events import COLUMNS, read_past_events


def write_events(folder: Path) -> None:
    """Write three events of anna and one of bob, in no order."""
    rows = [("anna", "c", 3), ("anna", "a", 1), ("bob", "a", 9), ("anna", "b", 2)]
    blank = dict.fromkeys(COLUMNS) | {"event_type": "view"}
    table = [blank | {"user_id": u, "item_id": i, "timestamp_ms": at} for u, i, at in rows]
    pq.write_table(pa.Table.from_pylist(table), folder / "events.parquet")


def test_the_newest_events_of_each_user_are_read_oldest_first(tmp_path: Path) -> None:
    """A history holds no more, so that the rest would only push itself out."""
    write_events(tmp_path)
    events = read_past_events(tmp_path, max_events=2)
    assert [(e.user_id, e.item_id) for e in events] == [("anna", "b"), ("anna", "c"), ("bob", "a")]


def test_an_event_without_an_id_gets_the_same_one_every_time(tmp_path: Path) -> None:
    """A restart stores nothing twice."""
    write_events(tmp_path)
    first, second = (read_past_events(tmp_path, max_events=9) for _ in range(2))
    assert first == second
    assert len({event.event_id for event in first}) == 4


def test_a_folder_that_is_no_dataset_is_named(tmp_path: Path) -> None:
    """The message says what makes one."""
    with pytest.raises(PastEventsRefused, match=r"events\.parquet: cannot be read.*--history"):
        read_past_events(tmp_path, max_events=9)
