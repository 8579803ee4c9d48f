"""An erased user's rows leave the files, those of others stay, and the cursor never goes back."""

from pathlib import Path

import pytest

from service.collector import disk
from service.collector.folder import Folder
from service.contract.events import user_hash
from service.store.stream import StreamId
from tests.fakes import NOON_MS
from tests.service.collector.builders import FakeStreams, Running
from tests.service.collector.conftest import Start

HOUR_MS = 3_600_000


@pytest.fixture
def streams() -> FakeStreams:
    """Return empty streams."""
    return FakeStreams()


def blocker(path: Path) -> Path:
    """Return where a file is written aside; a folder there makes writing it fail."""
    return path.with_name(f".{path.name}.writing")


def bytes_of(running: Running) -> bytes:
    """Return everything that is in the folder, names included."""
    paths = [path for path in running.out.rglob("*") if path.is_file()]
    return b"".join(path.name.encode() + path.read_bytes() for path in paths)


async def test_an_erased_user_is_in_no_file_and_others_are_as_before(
    streams: FakeStreams, start: Start
) -> None:
    """Neither the id nor its stand-in, nor an item that only this user had, is in any byte."""
    running = start(streams, max_rows=2)
    for user_id, item_id in (("anna", "odd-thing"), ("bert", "b"), ("bert", "c"), ("carl", "d")):
        streams.add_event(user_id=user_id, item_id=item_id)
    await running.drain()
    assert b"odd-thing" in bytes_of(running)
    streams.rebuild_without("anna")
    streams.add_mark("anna")
    await running.drain()
    assert [row["user_id"] for row in running.rows()] == ["bert", "bert", "carl"]
    found = bytes_of(running)
    for secret in ("anna", user_hash("anna")[:16], "odd-thing"):
        assert secret.encode() not in found
    assert running.count("erased_rows_total") == 1


async def test_what_waits_for_its_file_is_erased_too(streams: FakeStreams, start: Start) -> None:
    """It was read before the erasure took it out of the stream, and must not come back."""
    running = start(streams)
    streams.add_event(user_id="anna")
    streams.add_event(user_id="bert")
    await running.collector.step()
    streams.rebuild_without("anna")
    streams.add_mark("anna")
    await running.drain()
    assert [row["user_id"] for row in running.rows()] == ["bert"]


async def test_events_after_the_erasure_stay(streams: FakeStreams, start: Start) -> None:
    """Somebody who comes back is welcome: only rows up to the mark's time go."""
    running = start(streams)
    streams.add_event(event_id="old", timestamp_ms=NOON_MS - HOUR_MS)
    streams.add_event(event_id="at", timestamp_ms=NOON_MS)
    streams.add_event(event_id="new", timestamp_ms=NOON_MS + 1)
    await running.drain()
    streams.add_mark("anna", before_ms=NOON_MS)
    streams.add_event(event_id="later", timestamp_ms=NOON_MS + 2)
    await running.drain()
    assert running.event_ids() == ["new", "later"]


async def test_exposures_of_the_user_go_whatever_their_time(
    streams: FakeStreams, start: Start
) -> None:
    """What was shown before the mark is in files before it; others' exposures stay."""
    running = start(streams)
    for user_id in ("anna", "bert"):
        streams.add(exposure=f'{{"user_id":"{user_id}"}}'.encode(), at_ms=NOON_MS + HOUR_MS)
    await running.drain()
    streams.add_mark("anna", before_ms=NOON_MS)
    await running.drain()
    assert [row["user_id"] for row in running.rows("exposures")] == ["bert"]


async def test_a_file_that_is_left_empty_goes_and_its_entries_are_not_read_again(
    streams: FakeStreams, start: Start
) -> None:
    """The stream still has them here, so a cursor that went back would write them again."""
    running = start(streams)
    streams.add_event(user_id="anna")
    await running.drain()
    streams.add_mark("anna")
    await running.drain()
    assert running.files() == []
    running.restart()
    await running.drain()
    assert running.files() == []


async def test_a_mark_that_was_half_done_is_done_again(streams: FakeStreams, start: Start) -> None:
    """The process died after the first of two files; the cursor had not passed the mark."""
    running = start(streams, max_rows=3)
    for number in range(6):
        streams.add_event(user_id="anna" if number % 2 else "bert", event_id=f"e{number}")
    await running.drain()
    streams.add_mark("anna")
    blocked = blocker(running.paths()[1])
    blocked.mkdir()
    with pytest.raises(OSError, match="directory"):
        await running.drain()
    assert running.event_ids() == ["e0", "e2", "e3", "e4", "e5"]
    blocked.rmdir()
    running.restart()
    await running.drain()
    assert running.event_ids() == ["e0", "e2", "e4"]


async def test_the_same_mark_again_changes_nothing(streams: FakeStreams, start: Start) -> None:
    """An erasure may be asked for twice; files are not written again."""
    running = start(streams)
    streams.add_event(user_id="anna")
    streams.add_event(user_id="bert")
    streams.add_mark("anna")
    await running.drain()
    before = [path.stat().st_ino for path in running.paths()]
    streams.add_mark("anna")
    await running.drain()
    assert [path.stat().st_ino for path in running.paths()] == before


def test_a_file_that_is_replaced_is_the_old_or_the_new(tmp_path: Path) -> None:
    """A disk that fails in between leaves the old one, and nothing aside."""
    path = tmp_path / "file"
    disk.write_whole(path, b"old")
    aside = path.with_name(".file.writing")
    aside.mkdir()
    with pytest.raises(OSError, match="directory"):
        disk.write_whole(path, b"new")
    assert path.read_bytes() == b"old"


def test_a_cursor_survives_the_removal_of_its_file(tmp_path: Path) -> None:
    """The state says what the names no longer do."""
    folder = Folder(tmp_path)
    folder.note(3, StreamId(7, 1), 12)
    folder.close()
    again = Folder(tmp_path)
    assert (again.cursor(3), again.noted_position(3)) == (StreamId(7, 1), 12)
    again.close()
