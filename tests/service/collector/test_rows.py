"""Entries become rows of stable types; what cannot be read is named without its content."""

import json
from typing import Any

import pytest

from service.collector.rows import (
    EVENT_SCHEMA,
    EVENTS,
    EXPOSURES,
    EraseMark,
    Row,
    Skipped,
    parse_entry,
    table_of,
)
from service.contract.events import Event
from service.store.history_codec import encode_payload
from service.store.stream import StreamEntry, StreamId
from tests.builders import event
from tests.fakes import NOON_MS
from tests.service.collector.builders import as_numbers

ENTRY_ID = StreamId(NOON_MS, 3)


def entry(**fields: bytes) -> StreamEntry:
    """Return an entry with these fields."""
    return StreamEntry(ENTRY_ID, fields)


def payload(**overrides: Any) -> bytes:
    """Return the JSON of an event, with some fields replaced or, by None, left out."""
    fields = json.loads(encode_payload(event())) | overrides
    return json.dumps({name: value for name, value in fields.items() if value is not None}).encode()


def test_a_row_holds_every_field_of_an_event() -> None:
    """What is not in the files is lost once the stream is trimmed."""
    whole = event(
        tz_offset_min=-330, value=4.5, duration_s=1.25, lat=48.1, lon=2.3,
        recommendation_id="r1", context={"page": "home", "n": 2},
    )  # fmt: skip
    row = parse_entry(entry(event=encode_payload(whole)))
    assert isinstance(row, Row)
    (stored,) = as_numbers(table_of(EVENTS, [row])).to_pylist()
    expected = whole._replace(context={})._asdict()
    expected["timestamp"] = expected.pop("timestamp_ms")
    assert json.loads(stored.pop("context")) == {"page": "home", "n": 2}
    assert stored == {name: value for name, value in expected.items() if name != "context"}


def test_the_columns_are_those_of_an_event() -> None:
    """A field that is new in the contract must get a column, or it is dropped here silently."""
    fields = {*Event._fields}
    assert set(EVENT_SCHEMA.names) == fields - {"timestamp_ms"} | {"timestamp"}


def test_types_do_not_depend_on_the_rows() -> None:
    """A file of events without a place has the same columns as one with places."""
    row = parse_entry(entry(event=payload(value=4)))
    assert isinstance(row, Row)
    assert table_of(EVENTS, [row]).schema == EVENT_SCHEMA


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"[]",
        b"\xff",
        b'"text"',
        payload(user_id=None),
        payload(user_id=7),
        payload(timestamp_ms="noon"),
        payload(timestamp_ms=10**30),
        payload(tz_offset_min=2**40),
        payload(lat="north"),
        payload(item_id="\ud800"),
    ],
)
def test_an_event_that_cannot_be_read_is_invalid_and_its_content_is_not_told(
    broken: bytes,
) -> None:
    """One bad entry must neither stop the others nor put an id into the log."""
    skipped = parse_entry(entry(event=broken))
    assert isinstance(skipped, Skipped)
    assert skipped.reason == "invalid"
    assert "anna" not in skipped.detail


def test_an_entry_without_a_known_field_is_unknown() -> None:
    """A later build may write what this one does not know."""
    skipped = parse_entry(entry(later=b"{}"))
    assert isinstance(skipped, Skipped)
    assert skipped.reason == "unknown"


def test_an_exposure_is_kept_as_it_is_beside_its_keys() -> None:
    """Its shape may grow; what finds and erases it are the two ids and the time of the entry."""
    text = b'{"recommendation_id":"r1","user_id":"anna","items":["a"],"propensities":[0.5]}'
    row = parse_entry(entry(exposure=text))
    assert isinstance(row, Row)
    assert as_numbers(table_of(EXPOSURES, [row])).to_pylist() == [
        {
            "recommendation_id": "r1",
            "user_id": "anna",
            "timestamp": NOON_MS,
            "exposure": text.decode(),
        }
    ]


def test_a_mark_names_the_stand_in_and_the_time() -> None:
    """The field `erase`, as the store writes it."""
    assert parse_entry(entry(erase=b'{"user":"ab","before_ms":7}')) == EraseMark("ab", 7)
