"""The collector on streams in memory: once each, whatever happens in between."""

import json
from pathlib import Path
from typing import Any

import pytest

from service.errors import StoreUnavailable
from tests.builders import DAY_MS
from tests.fakes import NOON_MS
from tests.service.collector.builders import FakeStreams
from tests.service.collector.conftest import Start


@pytest.fixture
def streams() -> FakeStreams:
    """Return empty streams."""
    return FakeStreams()


def add(streams: FakeStreams, *numbers: int, **overrides: Any) -> list[str]:
    """Append events named by numbers and return their ids."""
    fields = [overrides | {"event_id": f"e{number}"} for number in numbers]
    return [streams.add_event(**one).event_id for one in fields]


async def test_every_event_is_in_the_files_once_in_the_order_of_the_stream(
    streams: FakeStreams, start: Start
) -> None:
    """Also across pages of a read and files of the least size."""
    expected = add(streams, *range(1_203))
    running = start(streams, max_rows=100)
    await running.drain()
    assert running.event_ids() == expected
    assert len(running.files()) == 13
    assert running.count("rows_total", tree="events") == 1_203


async def test_a_restart_goes_on_where_the_files_end(streams: FakeStreams, start: Start) -> None:
    """Nothing but the names of the files says how far it was."""
    expected = add(streams, 1, 2)
    running = start(streams)
    await running.drain()
    expected += add(streams, 3)
    running.restart()
    await running.drain()
    await running.drain()
    assert running.event_ids() == expected
    assert len(running.files()) == 2


async def test_what_was_read_and_not_written_is_read_again(
    streams: FakeStreams, start: Start
) -> None:
    """A crash before the file is whole leaves the cursor where it was."""
    expected = add(streams, 1, 2)
    running = start(streams)
    await running.collector.step()
    assert running.files() == []
    running.restart()
    await running.drain()
    assert running.event_ids() == expected


async def test_a_half_written_file_is_no_file(streams: FakeStreams, start: Start) -> None:
    """It was written aside when the process was killed; the next start removes it."""
    expected = add(streams, 1)
    running = start(streams)
    await running.drain()
    (path,) = running.paths()
    half = path.with_name(f".{path.name}.writing")
    path.rename(half)
    half.write_bytes(half.read_bytes()[:50])
    running.restart()
    await running.drain()
    assert running.event_ids() == expected
    assert not half.exists()


async def test_a_file_never_spans_two_days(streams: FakeStreams, start: Start) -> None:
    """So that a day can be imported, moved or removed as a whole: days of the stream, in UTC."""
    add(streams, 1)
    add(streams, 2, at_ms=NOON_MS + DAY_MS)
    running = start(streams)
    await running.drain()
    assert [name.split("/")[0] for name in running.files()] == ["day=2026-01-14", "day=2026-01-15"]


async def test_an_event_that_comes_again_within_the_horizon_is_written_once(
    streams: FakeStreams, start: Start
) -> None:
    """The service forgets old events and accepts a late retry; another user's id is another."""
    add(streams, 1, 2, 1)
    running = start(streams)
    await running.drain()
    running.restart()
    add(streams, 2, 3)
    add(streams, 1, user_id="bert")
    await running.drain()
    assert running.event_ids() == ["e1", "e2", "e3", "e1"]
    assert running.count("skipped_total", reason="duplicate") == 1


async def test_the_horizon_is_so_many_events(streams: FakeStreams, start: Start) -> None:
    """Memory is bounded: the second-last event is forgotten with a horizon of one."""
    add(streams, 1, 2, 2, 1)
    running = start(streams, dedup_events=1)
    await running.drain()
    assert running.event_ids() == ["e1", "e2", "e1"]


async def test_entries_without_a_row_move_the_cursor(streams: FakeStreams, start: Start) -> None:
    """Else they would be read and counted again at every start."""
    streams.add(later=b"{}")
    streams.add(event=b"no JSON")
    running = start(streams)
    await running.drain()
    assert running.count("skipped_total", reason="unknown") == 1
    assert running.count("skipped_total", reason="invalid") == 1
    running.restart()
    await running.drain()
    assert running.count("skipped_total", reason="unknown") == 0
    assert running.files() == []


async def test_exposures_have_a_tree_of_their_own(streams: FakeStreams, start: Start) -> None:
    """The importer reads the events' tree and must not meet other columns there."""
    add(streams, 1)
    streams.add(exposure=json.dumps({"user_id": "anna", "recommendation_id": "r"}).encode())
    running = start(streams)
    await running.drain()
    assert running.event_ids() == ["e1"]
    assert [row["recommendation_id"] for row in running.rows("exposures")] == ["r"]


async def test_exposures_that_were_written_before_a_crash_are_not_written_again(
    streams: FakeStreams, start: Start
) -> None:
    """Of one batch they are written first; here the events' file then did not come to be."""
    streams.add(exposure=b'{"user_id":"anna"}')
    add(streams, 1)
    running = start(streams)
    await running.drain()
    for path in running.paths():
        path.unlink()
    streams.add(exposure=b'{"user_id":"bert"}')
    for _ in range(2):
        running.restart()
        await running.drain()
    assert running.event_ids() == ["e1"]
    assert [row["user_id"] for row in running.rows("exposures")] == ["anna", "bert"]


async def test_files_close_by_size_or_by_age(streams: FakeStreams, start: Start) -> None:
    """A busy partition must not grow in memory, a quiet one not wait for ever."""
    running = start(streams, max_rows=2, max_age_s=60)
    add(streams, 1, 2, 3)
    await running.collector.step()
    assert running.event_ids() == ["e1", "e2"]
    running.now_s += 59
    await running.collector.step()
    assert len(running.files()) == 1
    running.now_s += 1
    await running.collector.step()
    assert running.event_ids() == ["e1", "e2", "e3"]


async def test_a_folder_that_cannot_be_written_loses_nothing(
    streams: FakeStreams, start: Start, tmp_path: Path
) -> None:
    """A file stands where the tree should be; once it is gone the same collector goes on."""
    expected = add(streams, 1, 2)
    (tmp_path / "events").touch()
    running = start(streams, max_rows=1)
    for _ in range(3):
        with pytest.raises(OSError, match="events"):
            await running.drain()
    (tmp_path / "events").unlink()
    expected += add(streams, 3)
    await running.drain()
    assert running.event_ids() == expected


async def test_what_was_read_while_the_disk_was_full_survives_a_trim(
    streams: FakeStreams, start: Start, tmp_path: Path
) -> None:
    """It is kept in memory, up to twice the entries of a file."""
    (tmp_path / "events").touch()
    expected = add(streams, 1, 2, 3)
    running = start(streams, max_rows=2)
    with pytest.raises(OSError, match="events"):
        await running.drain()
    streams.trim(0)
    (tmp_path / "events").unlink()
    await running.drain()
    assert running.event_ids() == expected


async def test_redis_may_be_away_and_its_partitions_unknown_at_first(start: Start) -> None:
    """A store that nothing was written to has no partitions yet, and that is no error."""
    streams = FakeStreams(num_partitions=None)
    running = start(streams)
    await running.drain()
    streams.partitions = 2
    add(streams, 1)
    add(streams, 2, partition=1)
    streams.down = True
    with pytest.raises(StoreUnavailable):
        await running.drain()
    streams.down = False
    await running.drain()
    assert sorted(running.event_ids()) == ["e1", "e2"]


async def test_the_lag_counts_what_is_in_no_file(streams: FakeStreams, start: Start) -> None:
    """Read or not: both would be lost with the stream."""
    running = start(streams)
    add(streams, *range(620))
    await running.collector.step()
    assert running.count("lag_entries") == 620
    (running.out / "events").touch()
    with pytest.raises(OSError, match="events"):
        await running.drain()
    assert running.count("lag_entries") == 620
    (running.out / "events").unlink()
    await running.drain()
    assert running.count("lag_entries") == 0


async def test_the_lag_is_as_old_as_what_waits_the_longest(
    streams: FakeStreams, start: Start
) -> None:
    """A gauge of entries says nothing on how long they wait; none is 0 seconds old."""
    running = start(streams, max_age_s=1_000.0)
    await running.collector.step()
    assert running.count("lag_seconds") == 0
    add(streams, 1, at_ms=NOON_MS)
    add(streams, 2, at_ms=NOON_MS + 30_000)
    running.now_s += 90
    await running.collector.step()
    assert running.count("lag_seconds") == 90
    await running.drain()
    assert running.count("lag_seconds") == 0
