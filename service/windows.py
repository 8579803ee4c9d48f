"""From what a user did, stored or sent along, to the window that the model sees."""

from collections.abc import Sequence

import numpy as np

from service.contract.events import EVENT_TYPE_CODES, EVENT_TYPES, EVENT_WEIGHTS, Event
from service.contract.features import NUMBER_COLUMNS, Float32s, Int64s, Past, Window
from service.contract.vocabulary import Vocabulary

# By a type's code: its place in EVENT_TYPES, from 1.
WEIGHT_OF_CODE = np.array([0.0, *EVENT_WEIGHTS.values()], np.float32)


def past_of_events(events: Sequence[Event]) -> Past:
    """Return events as a past, ordered by time; events of one time keep their order."""
    ordered = sorted(events, key=lambda event: event.timestamp_ms)
    return Past(
        item_ids=tuple(event.item_id for event in ordered),
        event_types=np.array([EVENT_TYPE_CODES[e.event_type] for e in ordered], np.int64),
        timestamps_ms=np.array([e.timestamp_ms for e in ordered], np.int64),
        tz_offsets_min=np.array([e.tz_offset_min or 0 for e in ordered], np.int64),
        values=_known_or_nan([e.value for e in ordered]),
        durations_s=_known_or_nan([e.duration_s for e in ordered]),
        lats=_known_or_nan([e.lat for e in ordered]),
        lons=_known_or_nan([e.lon for e in ordered]),
    )


def merge_pasts(stored: Past, sent: Past) -> Past:
    """Return both pasts as one, by time; a sent event that is stored already counts once.

    Two events are the same one if item, type and time agree. Stored events come first where times
    are equal.
    """
    if not len(stored) or not len(sent):
        return stored if len(stored) else sent
    there = set(_identities(stored))
    new = [place for place, key in enumerate(_identities(sent)) if key not in there]
    item_ids = stored.item_ids + tuple(sent.item_ids[place] for place in new)
    columns = {
        name: np.concatenate([getattr(stored, name), getattr(sent, name)[new]])
        for name in NUMBER_COLUMNS
    }
    order = np.argsort(columns["timestamps_ms"], kind="stable")
    return Past(
        tuple(item_ids[place] for place in order.tolist()),
        **{name: column[order] for name, column in columns.items()},
    )


def type_index_of_code(event_types: Vocabulary) -> Int64s:
    """Return the bundle's index of each event type code, 0 for types the bundle lacks."""
    return np.concatenate([np.zeros(1, np.int64), event_types.indices(EVENT_TYPES)])


def build_window(past: Past, items: Int64s, type_indices: Int64s) -> Window:
    """Return the window of a past; events on items that the bundle lacks are left out.

    `items` are the past's item indices, 0 where unknown; `type_indices` is by type code.
    """
    window = Window(
        items=items,
        event_types=type_indices[past.event_types],
        **{name: getattr(past, name) for name in NUMBER_COLUMNS if name != "event_types"},
    )
    known = items > 0
    return window if known.all() else window.select(known)


def _known_or_nan(values: Sequence[float | None]) -> Float32s:
    return np.array([np.nan if value is None else value for value in values], np.float32)


def _identities(past: Past) -> list[tuple[str, int, int]]:
    return list(
        zip(past.item_ids, past.event_types.tolist(), past.timestamps_ms.tolist(), strict=True)
    )
