import json
import struct
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.contract.events import (
    EVENT_TYPES,
    MAX_TIMESTAMP_MS,
    Event,
    ItemId,
    UserId,
)
from service.contract.vocabulary import item_hash
from service.errors import StoreMismatch
from service.store.history_codec import (
    HEADER_BYTES,
    RECORD_BYTES,
    SEEN_BYTES,
    decode_history,
    encode_event,
    encode_payload,
    event_hash,
)
from tests.fakes import NOON_MS, history_of

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


def packed(events: list[Event]) -> bytes:
    """Put a history together as the script does."""
    header = struct.pack("<BH", 1, len(events))
    ids = b"".join(event.item_id.encode() + b"\0" for event in events)
    return header + b"".join(map(encode_event, events)) + ids


@settings(deadline=None, max_examples=60)
@given(st.lists(EVENTS, max_size=6))
def test_a_history_comes_back_as_it_was_stored(events: list[Event]) -> None:
    """Any Unicode id, any time to the year 9999, unknown numbers as NaN."""
    read, expected = decode_history(packed(events), None), history_of(events)
    assert read.item_ids == expected.item_ids
    for name in ("event_types", "timestamps_ms", "tz_offsets_min"):
        np.testing.assert_array_equal(getattr(read, name), getattr(expected, name))
        assert getattr(read, name).dtype == np.int64
    for name in ("values", "durations_s", "lats", "lons"):
        np.testing.assert_array_equal(getattr(read, name), getattr(expected, name))
        assert getattr(read, name).dtype == np.float32


def test_a_record_has_the_offsets_that_the_script_knows() -> None:
    """`append_events.lua` reads time at byte 0, the id's hash at 6 and the type at 12."""
    record = encode_event(make_event(event_type="click", timestamp_ms=(5 << 32) + 7))
    assert (len(record), RECORD_BYTES, HEADER_BYTES, SEEN_BYTES) == (30, 30, 3, 15)
    assert int.from_bytes(record[:6], "little") == (5 << 32) + 7
    assert record[6:12] == event_hash("e1")
    assert record[12] == EVENT_TYPES.index("click") + 1


def test_an_offset_is_kept_in_quarter_hours() -> None:
    """Kathmandu is at +05:45 = 345 minutes; local mean times of old are rounded."""
    offsets = [345, -210, 352, None, 0]
    events = [make_event(tz_offset_min=offset) for offset in offsets]
    assert decode_history(packed(events), None).tz_offsets_min.tolist() == [345, -210, 345, 0, 0]


def test_a_number_beyond_32_bits_is_kept_as_the_largest() -> None:
    """An infinite value would make every score of the user NaN."""
    read = decode_history(packed([make_event(value=1e300, duration_s=-1e300)]), None)
    largest = np.finfo(np.float32).max
    assert (read.values[0], read.durations_s[0]) == (largest, -largest)


def test_what_left_the_history_is_known_by_hash_and_type() -> None:
    """`exclude_seen` asks for both."""
    seen = struct.pack("<QB6s", item_hash("i9"), 2, event_hash("e9"))
    read = decode_history(None, seen)
    assert (read.seen_hashes.tolist(), read.seen_types.tolist()) == ([item_hash("i9")], [2])
    assert len(read) == 0


def test_an_absent_history_is_empty() -> None:
    """A cold user is no error."""
    read = decode_history(None, None)
    assert len(read) == len(read.timestamps_ms) == len(read.seen_hashes) == 0


@pytest.mark.parametrize(
    ("stored", "seen"),
    [
        (b"\x01", None),
        (b"\x02\x00\x00", None),
        (b"\x01\x01\x00", None),
        (packed([make_event()])[:-1], None),
        (packed([make_event()]) + b"x\0", None),
        (None, b"x" * 16),
    ],
    ids=["short", "layout", "records", "id cut", "id too many", "seen"],
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
    whole = replace(event, recommendation_id=recommendation_id, context=context)
    known = {name: value for name, value in asdict(whole).items() if value not in (None, {})}
    assert json.loads(encode_payload(whole)) == known
