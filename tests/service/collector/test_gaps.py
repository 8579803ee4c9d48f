"""A stream that was trimmed before it was read is noticed, and nothing else is taken for it."""

import pytest

from tests.service.collector.builders import FakeStreams, Running
from tests.service.collector.conftest import Start


async def collected(start: Start, number: int, *, counts: bool = True) -> Running:
    """Return a collector that was restarted after it had written so many events."""
    streams = FakeStreams(counts=counts)
    add(streams, number)
    running = start(streams)
    await running.drain()
    running.restart()
    return running


def add(streams: FakeStreams, number: int) -> None:
    """Append events of anna."""
    for _ in range(number):
        streams.add_event()


async def test_entries_that_were_trimmed_unread_are_counted(start: Start) -> None:
    """5 written, 20 added, the last 10 left: 20 - 10 = 10 are missing."""
    running = await collected(start, 5)
    add(running.streams, 20)
    running.streams.trim(10)
    await running.drain()
    assert running.count("gaps_total") == 1
    assert running.count("missing_entries_total") == 10


async def test_a_gap_is_told_once(start: Start) -> None:
    """The cursor is behind it afterwards."""
    running = await collected(start, 5)
    add(running.streams, 20)
    running.streams.trim(10)
    await running.drain()
    await running.drain()
    running.restart()
    await running.drain()
    assert running.count("gaps_total") == 0


@pytest.mark.parametrize("left", [10, 11, 15])
async def test_a_trim_up_to_the_cursor_is_no_gap(start: Start, left: int) -> None:
    """5 written, 10 added: with the last 10 left nothing is missing, and with more neither."""
    running = await collected(start, 5)
    add(running.streams, 10)
    running.streams.trim(left)
    await running.drain()
    assert running.count("gaps_total") == 0
    assert len(running.rows()) == 5 + 10


async def test_a_server_that_does_not_count_leaves_the_number_open(start: Start) -> None:
    """Redis before 7: that something may be missing is known, how much is not."""
    running = await collected(start, 5, counts=False)
    add(running.streams, 20)
    running.streams.trim(10)
    await running.drain()
    assert running.count("gaps_total") == 1
    assert running.count("missing_entries_total") == 0


async def test_an_erasure_that_takes_out_all_that_was_read_is_no_gap(start: Start) -> None:
    """The stream then starts after the cursor, with the mark."""
    running = await collected(start, 5)
    running.streams.rebuild_without("anna")
    running.streams.add_mark("anna")
    await running.drain()
    assert running.count("gaps_total") == 0
    assert running.rows() == []


async def test_a_first_start_on_a_trimmed_stream_is_no_gap(start: Start) -> None:
    """What was there before anybody collected was never promised; the log says how much."""
    streams = FakeStreams()
    add(streams, 20)
    streams.trim(10)
    running = start(streams)
    await running.drain()
    assert running.count("gaps_total") == 0
    assert len(running.rows()) == 10
