import numpy as np

from service.contract.vocabulary import Vocabulary
from service.windows import build_window, merge_pasts, past_of_events, type_index_of_code
from tests.builders import event
from tests.fakes import NOON_MS

ITEMS = Vocabulary(["a", "b"])


def test_events_are_ordered_by_time_not_by_arrival() -> None:
    """A late event belongs where it happened; equal times keep the order of sending."""
    past = past_of_events(
        [
            event(item_id="b", timestamp_ms=NOON_MS),
            event(item_id="a", timestamp_ms=NOON_MS - 5),
            event(item_id="c", timestamp_ms=NOON_MS),
        ]
    )
    assert past.item_ids == ("a", "b", "c")


def test_a_sent_event_that_is_stored_already_counts_once() -> None:
    """A caller may post an event and send it along as well."""
    stored = past_of_events(
        [event(item_id="a", timestamp_ms=1), event(item_id="b", timestamp_ms=3)]
    )
    sent = past_of_events([event(item_id="c", timestamp_ms=2), event(item_id="b", timestamp_ms=3)])
    merged = merge_pasts(stored, sent)
    assert merged.item_ids == ("a", "c", "b")
    assert merged.timestamps_ms.tolist() == [1, 2, 3]


def test_a_repeated_visit_at_another_time_is_another_event() -> None:
    """Repeats are kept: people come back to the same place."""
    stored = past_of_events([event(item_id="a", timestamp_ms=1)])
    sent = past_of_events([event(item_id="a", timestamp_ms=2)])
    assert merge_pasts(stored, sent).item_ids == ("a", "a")


def test_the_window_skips_unknown_items_and_keeps_unknown_types_as_0() -> None:
    """Stored ids outlive a bundle; what the model never saw must not look like padding."""
    past = past_of_events(
        [
            event(item_id="gone", event_type="view", timestamp_ms=1),
            event(item_id="b", event_type="share", timestamp_ms=2, value=4.0),
            event(item_id="a", event_type="view", timestamp_ms=3, tz_offset_min=60),
        ]
    )
    types = type_index_of_code(Vocabulary(["view"]))
    window = build_window(past, ITEMS.indices(past.item_ids), types)
    assert window.items.tolist() == [2, 1]
    assert window.event_types.tolist() == [0, 1]
    assert window.tz_offsets_min.tolist() == [0, 60]
    np.testing.assert_array_equal(window.values, np.array([4, np.nan], np.float32))
