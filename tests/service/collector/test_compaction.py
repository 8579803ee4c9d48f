"""Days that are over become few files, without losing, repeating or reordering an event."""

import shutil
from pathlib import Path

import pytest

from service.collector.compaction import merge_past_days
from tests.builders import DAY_MS
from tests.fakes import NOON_MS
from tests.service.collector.builders import FakeStreams, Running
from tests.service.collector.conftest import Start

FIRST_DAY = NOON_MS // DAY_MS


@pytest.fixture
def streams() -> FakeStreams:
    """Return a stream of ten events on one day and one on the next."""
    streams = FakeStreams()
    for _ in range(10):
        streams.add_event()
    streams.add_event(at_ms=NOON_MS + DAY_MS)
    return streams


async def tomorrow(running: Running) -> None:
    """Let a day go by, and collect."""
    running.now_s += DAY_MS / 1000
    running.restart()
    await running.drain()


async def test_a_day_that_is_over_becomes_one_file(streams: FakeStreams, start: Start) -> None:
    """Its rows stay in their order, and a restart reads nothing again."""
    running = start(streams, max_rows=2)
    await running.drain()
    before = running.rows()
    assert len(running.files()) == 6
    await tomorrow(running)
    assert len(running.files()) == 2
    assert running.rows() == before
    running.restart()
    await running.drain()
    assert running.rows() == before


async def test_a_day_that_may_still_grow_is_left_alone(start: Start) -> None:
    """The partition's cursor is on it: what was added before midnight may not be read yet."""
    streams = FakeStreams()
    for _ in range(4):
        streams.add_event()
    running = start(streams, max_rows=2)
    await running.drain()
    await tomorrow(running)
    assert len(running.files()) == 2


async def test_a_damaged_old_file_does_not_hold_up_new_events(
    streams: FakeStreams, start: Start
) -> None:
    """It is told and counted; with a horizon of one event it is not read at the start either."""
    running = start(streams, max_rows=2, dedup_events=1)
    await running.drain()
    running.paths()[0].write_bytes(b"damaged")
    streams.add_event(event_id="new", at_ms=NOON_MS + DAY_MS)
    await tomorrow(running)
    assert running.count("errors_total", kind="disk") == 1
    assert b"new" in running.paths()[-1].read_bytes()


async def test_files_are_merged_up_to_a_size(streams: FakeStreams, start: Start) -> None:
    """Five files of two rows, at most four rows each: 4 + 4 + 2, beside the other day's."""
    running = start(streams, max_rows=2)
    await running.drain()
    assert merge_past_days(running.folder, FIRST_DAY + 1, max_rows=4) == 2
    assert len(running.files()) == 3 + 1
    assert len(running.event_ids()) == 11


async def test_parts_that_a_crash_left_beside_the_whole_are_removed(
    streams: FakeStreams, start: Start, tmp_path: Path
) -> None:
    """Else every row of them would be there twice."""
    running = start(streams, max_rows=2)
    await running.drain()
    before = running.rows()
    shutil.copytree(tmp_path / "events", tmp_path / "parts")
    await tomorrow(running)
    # The first and the third part had not been removed when the process died.
    for path in sorted((tmp_path / "parts").glob("*/*.parquet"))[:3:2]:
        path.rename(tmp_path / "events" / path.parent.name / path.name)
    assert len(running.event_ids()) == 11 + 4
    running.restart()
    await running.drain()
    assert running.rows() == before


async def test_an_erasure_reaches_merged_files(streams: FakeStreams, start: Start) -> None:
    """Their footers name the users of all their rows."""
    running = start(streams, max_rows=2)
    streams.add_event(user_id="bert", at_ms=NOON_MS + DAY_MS)
    await running.drain()
    await tomorrow(running)
    streams.add_mark("anna", before_ms=NOON_MS + DAY_MS)
    await running.drain()
    assert [row["user_id"] for row in running.rows()] == ["bert"]
    assert len(running.files()) == 1
