"""The file of what could not be delivered: all of it comes back, and damage is told."""

import multiprocessing
import stat
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sojourn_client import Event, SpoolInUse
from sojourn_client.spool import Spool, line_of
from tests.client.answering import event, opened

numbers = st.none() | st.floats(allow_nan=False, allow_infinity=False)
events = st.builds(
    Event,
    # Half of a surrogate pair is a text too, and a line end is none of the file's.
    user_id=st.text(st.characters(exclude_categories=()), min_size=1),
    item_id=st.text(min_size=1),
    event_type=st.text(),
    timestamp=st.integers() | st.text() | st.datetimes(timezones=st.timezones()),
    event_id=st.text(),
    value=numbers,
    lat=numbers,
    lon=numbers,
    context=st.dictionaries(st.text(), st.booleans() | st.integers() | st.text()),
)


@contextmanager
def new_spool() -> Iterator[Spool]:
    """Own an empty spool for a while; hypothesis has no fixture for each example."""
    with tempfile.TemporaryDirectory() as folder, opened(Path(folder) / "spool") as spool:
        yield spool


@given(st.lists(events))
def test_what_is_written_is_read_again(written: list[Event]) -> None:
    """Whatever ids hold, in order, and not one more."""
    with new_spool() as spool:
        assert spool.write(written) == len(written)
        assert spool.path.exists() == bool(written)
        found = spool.read()
    assert (found.events, found.damages) == (written, [])


@given(st.lists(events, min_size=1, max_size=5), st.data())
def test_a_changed_byte_costs_its_line_and_is_told(
    written: list[Event], data: st.DataObject
) -> None:
    """A disk or a hand may spoil it: the other events come back, the damaged line is kept."""
    with new_spool() as spool:
        spool.write(written)
        raw = bytearray(spool.path.read_bytes())
        place = data.draw(st.integers(0, len(raw) - 1))
        raw[place] ^= data.draw(st.integers(1, 255))
        spool.path.write_bytes(raw)
        found = spool.read()
        kept = spool.damaged_path.read_bytes()
        again = spool.read()
        assert spool.damaged_path.read_bytes() == kept
    # A line end that is no more joins two lines; one that is new parts a line.
    assert 1 <= len(found.damages) <= 2
    assert len(written) - 2 <= len(found.events) < len(written)
    assert all(one in written for one in found.events)
    assert again.events == found.events
    assert all(line in kept for line in raw.split(b"\n") if line and line not in lines(written))


@given(st.lists(events, min_size=1, max_size=3), st.integers(min_value=1))
def test_a_file_that_was_cut_off_gives_all_whole_lines(written: list[Event], cut: int) -> None:
    """As after a full disk."""
    with new_spool() as spool:
        spool.write(written)
        raw = spool.path.read_bytes()
        left = raw[: len(raw) - min(cut, len(raw))]
        spool.path.write_bytes(left)
        found = spool.read()
    # A line that has lost nothing but its end is whole.
    num_whole = sum(left.startswith(whole[:-1]) for whole in beginnings(written))
    assert found.events == written[:num_whole]


def beginnings(written: list[Event]) -> list[bytes]:
    """Return the file's text up to the end of each line."""
    return [b"".join(map(line_of, written[:number])) for number in range(1, len(written) + 1)]


def lines(written: list[Event]) -> list[bytes]:
    """Return the lines without their ends."""
    return [line_of(one)[:-1] for one in written]


def test_a_spool_has_one_owner_at_a_time(tmp_path: Path) -> None:
    """Two would send and delete each other's events."""
    path = tmp_path / "spool"
    with opened(path), pytest.raises(SpoolInUse, match="give each its own"):
        Spool(path)
    with opened(path) as spool:
        assert spool.read().events == []


# Python warns of a fork beside threads, which other tests may have left.
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_child_of_a_fork_does_not_keep_a_spool_that_its_parent_gave_up(tmp_path: Path) -> None:
    """It has the lock's file open too, and may live for long."""
    path, forking = tmp_path / "spool", multiprocessing.get_context("fork")
    may_end = forking.Event()
    with opened(path):
        child = forking.Process(target=may_end.wait, args=(30,))
        child.start()
    try:
        with opened(path) as spool:
            assert spool.read().events == []
    finally:
        may_end.set()
        child.join(10)


def test_a_spool_is_for_its_owners_eyes(tmp_path: Path) -> None:
    """It says who did what."""
    with opened(tmp_path / "deep" / "spool") as spool:
        spool.write([event()])
    assert stat.S_IMODE(spool.path.stat().st_mode) == 0o600


def test_a_line_of_another_version_is_told_and_kept(tmp_path: Path) -> None:
    """A field that this version does not know would be lost if it were left out."""
    with opened(tmp_path / "spool") as spool:
        spool.write([event()])
        line = spool.path.read_bytes()
        spool.path.write_bytes(line + damaged_fields(line))
        found = spool.read()
    assert [damage.line_number for damage in found.damages] == [2]
    assert "no event of this version" in found.damages[0].reason
    assert len(found.events) == 1


def damaged_fields(line: bytes) -> bytes:
    """Return the line with another name of a field, and the checksum that belongs to it."""
    text = line[9:-1].replace(b'"item_id"', b'"item_no"')
    return b"%08x %s\n" % (zlib.crc32(text), text)
