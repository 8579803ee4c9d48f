import json
import struct
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.contract.events import (
    EVENT_TYPE_CODES,
    EVENT_TYPES,
    MAX_TIMESTAMP_MS,
    Event,
    ItemId,
    UserId,
)
from service.contract.vocabulary import item_hash
from service.errors import StoreMismatch
from service.store.history_codec import (
    FIXED_BYTES,
    HEADER_BYTES,
    NUMBER_BYTES,
    SEEN_BYTES,
    decode_history,
    encode_events,
    encode_payload,
    event_hash,
    unpack_history,
)
from tests.fakes import NOON_MS, history_of
from tests.integration.store.builders import packed_records

IDS = st.text(st.characters(exclude_characters="\x00", codec="utf-8"), min_size=1, max_size=24)
FLOAT32 = st.none() | st.floats(width=32, allow_nan=False, allow_infinity=False)
EVENTS = st.builds(
    Event,
    event_id=IDS,
    user_id=st.just(UserId("anna")),
    item_id=IDS.map(ItemId),
    event_type=st.sampled_from(EVENT_TYPES),
    timestamp_ms=st.integers(1, MAX_TIMESTAMP_MS),
    tz_offset_min=st.none() | st.integers(-18 * 4, 18 * 4).map(lambda n: 15 * n),
    value=FLOAT32,
    duration_s=FLOAT32,
    lat=FLOAT32,
    lon=FLOAT32,
)


def make_event(**overrides: object) -> Event:
    """Return one event of the test's user."""
    fields: dict[str, object] = {
        "event_id": "e1",
        "user_id": "anna",
        "item_id": "i1",
        "event_type": "view",
        "timestamp_ms": NOON_MS,
    }
    return Event(**(fields | overrides))  # type: ignore[arg-type]  # overrides are of their fields


@settings(deadline=None, max_examples=60)
@given(st.lists(EVENTS, max_size=6), st.sampled_from([encode_events, packed_records]))
def test_a_history_comes_back_as_it_was_stored(
    events: list[Event], pack: Callable[[list[Event]], bytes]
) -> None:
    """Any Unicode id, any time to the year 9999, unknown numbers as NaN; the older layout too."""
    read, expected = decode_history(pack(events), None), history_of(events)
    assert read.item_ids == expected.item_ids
    for name in ("event_types", "timestamps_ms", "tz_offsets_min"):
        np.testing.assert_array_equal(getattr(read, name), getattr(expected, name))
        assert getattr(read, name).dtype == np.int64
    for name in ("values", "durations_s", "lats", "lons"):
        np.testing.assert_array_equal(getattr(read, name), getattr(expected, name))
        assert getattr(read, name).dtype == np.float32


def test_the_columns_are_where_the_script_looks() -> None:
    """`append_events.lua` takes them apart by their widths: 6, 6, 1, 1, then 4 for each flag."""
    first = make_event(event_type="click", timestamp_ms=(5 << 32) + 7, lat=48.5, lon=2.25)
    second = make_event(event_id="e2", item_id="i2", timestamp_ms=6 << 32, tz_offset_min=60)
    stored = encode_events([first, second])
    assert stored[:4] == bytes([2, 2, 0, 0b1100])
    assert stored[4:16] == ((5 << 32) + 7).to_bytes(6, "little") + (6 << 32).to_bytes(6, "little")
    assert stored[16:28] == event_hash("e1") + event_hash("e2")
    assert stored[28:30] == bytes([EVENT_TYPE_CODES["click"], EVENT_TYPE_CODES["view"]])
    assert stored[30:32] == bytes([0x80, 4])
    assert stored[32:48] == struct.pack("<4f", 48.5, np.nan, 2.25, np.nan)
    assert stored[48:] == b"i1\0i2\0"
    assert (HEADER_BYTES, FIXED_BYTES, NUMBER_BYTES, SEEN_BYTES) == (4, 14, 4, 15)


@given(st.lists(EVENTS, min_size=1, max_size=6), st.integers(0, 6), st.integers(0, 6))
def test_a_part_of_a_history_is_a_history(events: list[Event], start: int, stop: int) -> None:
    """A merge gives a user's events to another one in parts."""
    part = unpack_history(packed_records(events)).part(start, stop).pack()
    read = decode_history(part, None)
    assert read.item_ids == tuple(event.item_id for event in events[start:stop])
    assert read.timestamps_ms.tolist() == [event.timestamp_ms for event in events[start:stop]]


def test_an_offset_is_kept_in_quarter_hours() -> None:
    """Kathmandu is at +05:45 = 345 minutes; local mean times of old are rounded."""
    offsets = [345, -210, 352, None, 0]
    events = [make_event(tz_offset_min=offset) for offset in offsets]
    assert decode_history(encode_events(events), None).tz_offsets_min.tolist() == [
        345,
        -210,
        345,
        0,
        0,
    ]


def test_a_number_beyond_32_bits_is_kept_as_the_largest() -> None:
    """An infinite value would make every score of the user NaN."""
    read = decode_history(encode_events([make_event(value=1e300, duration_s=-1e300)]), None)
    largest = np.finfo(np.float32).max
    assert (read.values[0], read.durations_s[0]) == (largest, -largest)


def test_what_left_the_history_is_known_by_hash_and_type() -> None:
    """`exclude_seen` asks for both."""
    seen = struct.pack("<QB6s", item_hash("i9"), 2, event_hash("e9"))
    read = decode_history(None, seen)
    assert (read.seen_hashes.tolist(), read.seen_types.tolist()) == ([item_hash("i9")], [2])
    assert len(read) == 0


def test_a_number_that_no_record_has_gets_no_column() -> None:
    """A whole record has all four; what is written anew of them is as small as what is sent now."""
    events = [make_event(value=1.5), make_event(event_id="e2", lat=48.5)]
    stored = unpack_history(packed_records(events))
    assert [*stored.numbers] == ["value", "lat"]
    assert stored.pack() == encode_events(events)


def test_an_absent_history_is_empty() -> None:
    """A cold user is no error."""
    read = decode_history(None, None)
    assert len(read) == len(read.timestamps_ms) == len(read.seen_hashes) == 0


@pytest.mark.parametrize(
    ("stored", "seen"),
    [
        (b"\x01", None),
        (b"\x03\x00\x00\x00", None),
        (b"\x02\x00\x00", None),
        (b"\x02\x01\x00\x00", None),
        (b"\x01\x01\x00", None),
        (encode_events([make_event()])[:-1], None),
        (encode_events([make_event()]) + b"x\0", None),
        (None, b"x" * 16),
    ],
    ids=["short", "layout", "short 2", "columns", "records", "id cut", "id too many", "seen"],
)
def test_a_value_of_another_layout_is_refused(stored: bytes | None, seen: bytes | None) -> None:
    """Half a history would be a wrong answer that nobody notices."""
    with pytest.raises(StoreMismatch):
        decode_history(stored, seen)


def test_the_stream_carries_what_is_known_of_an_event() -> None:
    """The collector writes training data from it, so nothing may be lost or invented."""
    event = make_event(item_id="café", tz_offset_min=60, value=4.5, context={"page": "home"})
    assert json.loads(encode_payload(event)) == {
        "event_id": "e1",
        "user_id": "anna",
        "item_id": "café",
        "event_type": "view",
        "timestamp_ms": NOON_MS,
        "tz_offset_min": 60,
        "value": 4.5,
        "context": {"page": "home"},
    }


@settings(deadline=None, max_examples=60)
@given(EVENTS, st.none() | IDS, st.dictionaries(IDS, IDS | st.integers() | st.booleans()))
def test_the_stream_carries_any_event_as_json(
    event: Event, recommendation_id: str | None, context: dict[str, str | int | bool]
) -> None:
    """The JSON is put together by hand, so quotes and control characters have to be escaped."""
    whole = event._replace(recommendation_id=recommendation_id, context=context)
    known = {name: value for name, value in whole._asdict().items() if value not in (None, {})}
    assert json.loads(encode_payload(whole)) == known
