"""Event fields: what is accepted, and what an error says."""

import hashlib
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.contract.errors import InvalidField
from service.contract.events import (
    EVENT_TYPES,
    check_amount,
    check_coordinates,
    check_id,
    derive_event_id,
    parse_timestamp,
    user_hash,
)


def test_a_timestamp_with_an_offset_keeps_the_local_offset() -> None:
    """Hour of day is local: 18:30 at +05:30 is 13:00 UTC, 330 minutes ahead."""
    parsed = parse_timestamp("1970-01-01T18:30:00+05:30")
    assert parsed == (13 * 3600 * 1000, 330)


def test_z_says_that_the_local_offset_is_unknown() -> None:
    """RFC 3339, section 4.3: Z gives the instant, not where the user lives."""
    assert parse_timestamp("1970-01-01T00:00:01Z") == (1000, None)


def test_whole_numbers_are_milliseconds() -> None:
    """Unix milliseconds pass through."""
    assert parse_timestamp(1_700_000_000_123) == (1_700_000_000_123, None)


@pytest.mark.parametrize(
    "bad",
    ["", "yesterday", "2024-02-30T00:00:00Z", "2024-01-01T00:00:00", "2024-01-01", 0, -5, 10**18],
)
def test_other_timestamps_are_refused_with_field_and_fix(bad: str | int) -> None:
    """A time without an offset could be anywhere on the globe."""
    with pytest.raises(InvalidField, match=r"^timestamp: .* must be"):
        parse_timestamp(bad)


@pytest.mark.parametrize(
    ("lat", "lon", "field"),
    [
        (math.nan, 0.0, "lat"),
        (0.0, math.inf, "lon"),
        (90.1, 0.0, "lat"),
        (0.0, -180.5, "lon"),
        (None, 1.0, "lat"),
        (1.0, None, "lon"),
    ],
)
def test_coordinates_off_the_globe_name_the_field(
    lat: float | None, lon: float | None, field: str
) -> None:
    """Half a coordinate and NaN are as wrong as 91 degrees."""
    with pytest.raises(InvalidField) as caught:
        check_coordinates(lat, lon)
    assert caught.value.field == field


@pytest.mark.parametrize("bad", ["", "x" * 129, "a\x00b", "\ud800"])
def test_ids_that_cannot_be_stored_are_refused(bad: str) -> None:
    """NUL separates ids in stored histories; a lone surrogate has no UTF-8."""
    with pytest.raises(InvalidField, match="item_id"):
        check_id("item_id", bad)


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1))
def test_any_other_unicode_is_an_id(text: str) -> None:
    """Outside ids are opaque; only their length is bounded."""
    assert check_id("item_id", text[:128]) == text[:128]


def test_amounts_must_be_finite_and_large_enough() -> None:
    """A negative dwell time is a bug of the client."""
    check_amount("duration_s", 0.0, minimum=0.0)
    check_amount("value", None)
    with pytest.raises(InvalidField, match="at least 0"):
        check_amount("duration_s", -0.1, minimum=0.0)
    with pytest.raises(InvalidField, match="finite"):
        check_amount("value", math.nan)


def test_a_derived_id_depends_on_every_field() -> None:
    """A retry is a duplicate; the same item a second later is a repeat and stays."""
    base = derive_event_id("u", "i", "view", 1000)
    assert base == derive_event_id("u", "i", "view", 1000)
    others = {
        derive_event_id("u", "i", "view", 2000),
        derive_event_id("u", "i", "click", 1000),
        derive_event_id("u", "j", "view", 1000),
        derive_event_id("v", "i", "view", 1000),
        derive_event_id("u", "i", "view", 1000, value=1.0),
        derive_event_id("u", "i", "view", 1000, lat=1.0, lon=2.0),
        derive_event_id("u", "i", "view", 1000, lat=2.0, lon=1.0),
    }
    assert len(others | {base}) == 8


@given(
    st.tuples(st.text(), st.text(), st.sampled_from(EVENT_TYPES), st.integers(0, 10**14)),
    st.lists(st.none() | st.floats(allow_nan=False, allow_infinity=False), min_size=4, max_size=4),
)
def test_a_derived_id_is_the_hash_of_the_fields_as_json(
    first: tuple[str, str, str, int], numbers: list[float | None]
) -> None:
    """Stored histories hold these ids: another notation would make every retry a new event."""
    text = json.dumps([*first, *numbers], separators=(",", ":"))
    value, duration_s, lat, lon = numbers
    derived = derive_event_id(*first, value=value, duration_s=duration_s, lat=lat, lon=lon)
    assert derived == hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def test_an_erased_user_is_stood_for_by_digits_that_do_not_hold_the_id() -> None:
    """Every process must find the same stand-in, so it depends on the id alone."""
    assert user_hash("anna") == user_hash("anna") != user_hash("Anna")
    assert len(user_hash("anna")) == 32
    assert "anna" not in user_hash("anna")
