import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.api.event_schemas import EventBatch, UserEvent
from service.api.posted_events import PlainEvent, PostedEvents, Rejected
from service.contract.events import EVENT_TYPES, Event
from tests.builders import event_json
from tests.fakes import NOON_MS

# Right and wrong values side by side: most entries are right but for one field or two.
NUMBERS = (
    st.none()
    | st.integers(-200, 200)
    | st.floats(-200, 200)
    | st.sampled_from([2**70, 1e300, -0.0, True, "4", [], float("nan"), float("inf")])
)
TEXTS = st.text(min_size=1, max_size=8) | st.sampled_from(
    ["", "a\0b", "\ud800", "x" * 129, 7, None]
)
OPTIONAL: dict[str, st.SearchStrategy[Any]] = {
    "event_id": TEXTS,
    "value": NUMBERS,
    "duration_s": NUMBERS,
    "lat": NUMBERS,
    "lon": NUMBERS,
    "recommendation_id": TEXTS,
    "context": st.dictionaries(st.text(max_size=3), NUMBERS | TEXTS, max_size=3) | st.none(),
    "unknown": st.just(1),
}
REQUIRED = {
    "user_id": st.just("anna") | TEXTS,
    "item_id": st.just("drama-1") | TEXTS,
    "event_type": st.sampled_from([*EVENT_TYPES, "viewed", 1]),
    "timestamp": st.sampled_from(
        [NOON_MS, NOON_MS + 10**9, -1, 1.0, 1e3, True, "2026-01-14T13:00:00+01:00", "noon"]
    ),
}
ENTRIES: st.SearchStrategy[object] = st.fixed_dictionaries(
    REQUIRED, optional=OPTIONAL
) | st.sampled_from([{}, 7, None, []])


def careful(body: bytes) -> list[Event | Rejected]:
    """Read a body entry by entry, as the framework does."""
    batch = EventBatch.model_validate(json.loads(body))
    return PostedEvents(attempts=batch.events).read(NOON_MS)


@settings(deadline=None, max_examples=400)
@given(st.lists(ENTRIES, min_size=1, max_size=3))
def test_what_is_read_at_once_is_read_the_same_entry_by_entry(entries: list[object]) -> None:
    """The quick way may refuse a body, which is then read with care, but never differ."""
    body = json.dumps({"events": entries}).encode()
    quick = PostedEvents.of_bytes(body)
    if quick is not None:
        assert quick.read(NOON_MS) == careful(body)


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"event_id": "e-1", "value": 4, "duration_s": 1.5, "lat": 48.85, "lon": 2.35},
        {"timestamp": "2026-01-14T10:00:00+01:00", "recommendation_id": "r-1"},
        {"context": {"device": "tv", "ad": False, "position": 3, "speed": 0.5}},
        {"user_id": "Zoë", "item_id": "映画-7"},
        {"value": None, "lat": None, "lon": None, "event_id": None},
    ],
)
def test_a_body_that_is_right_is_read_at_once(overrides: dict[str, object]) -> None:
    """Otherwise every post would pay for two readings."""
    body = json.dumps({"events": [event_json(**overrides)] * 2}).encode()
    quick = PostedEvents.of_bytes(body)
    assert quick is not None
    assert quick.read(NOON_MS) == careful(body)


def test_of_a_field_that_is_sent_twice_the_last_counts_either_way() -> None:
    """JSON leaves it open (RFC 8259, section 4); one service should not have two answers."""
    twice = json.dumps({"events": [event_json(item_id="first")]})
    body = twice.replace('"item_id"', '"item_id": "zero", "item_id"').encode()
    quick = PostedEvents.of_bytes(body)
    assert quick is not None
    [event] = quick.read(NOON_MS)
    assert [event] == careful(body)
    assert isinstance(event, Event)
    assert event.item_id == "first"


def test_both_ways_know_the_same_fields() -> None:
    """A field that only one of them had would be refused or lost by the other."""
    assert PlainEvent.__annotations__.keys() == UserEvent.model_fields.keys()
