"""What is held of one user, decoded for the user's own eyes: every field, nothing summed up."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from service.contract.events import EVENT_TYPES
from service.store.exposures import decode_shown
from service.store.history_codec import (
    NUMBERS,
    TZ_UNIT_MIN,
    TZ_UNKNOWN,
    unpack_history,
    unpack_seen,
)


@dataclass(frozen=True, slots=True)
class HeldEvent:
    """One event of a history; of the event's id only a hash is kept, here 12 hexadecimal digits.

    The offset from UTC is in minutes, rounded to quarter hours; None is what was not sent.
    """

    event_hash: str
    item_id: str
    event_type: str
    timestamp_ms: int
    tz_offset_min: int | None
    value: float | None
    duration_s: float | None
    lat: float | None
    lon: float | None


@dataclass(frozen=True, slots=True)
class SeenRecord:
    """What is kept of an event that left the history: hashes of item and event id, and its type.

    The item's is 16 hexadecimal digits, the first of its SHA-1.
    """

    item_hash: str
    event_type: str
    event_hash: str


@dataclass(frozen=True, slots=True)
class StreamEntry:
    """One field of an entry of the event stream whose JSON names the user."""

    entry_id: str
    field: str
    payload: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ShownRecord:
    """What is kept of an item that was shown: a hash of its id, as in SeenRecord, and when."""

    item_hash: str
    timestamp_ms: int


@dataclass(frozen=True, slots=True)
class Held:
    """Everything that is held of a user; events are oldest first, None is nothing.

    `expires_in_ms` is how long the history lives without another event; `erased_ms` is the time of
    an erasure while it is remembered.
    """

    events: tuple[HeldEvent, ...] = ()
    seen: tuple[SeenRecord, ...] = ()
    stream: tuple[StreamEntry, ...] = ()
    shown: tuple[ShownRecord, ...] = ()
    expires_in_ms: int | None = None
    erased_ms: int | None = None


def held_events(packed: bytes | None, oldest_ms: int = 0) -> tuple[HeldEvent, ...]:
    """Return the events of a stored history since `oldest_ms`; raises StoreMismatch."""
    stored = unpack_history(packed, oldest_ms)
    rows = zip(
        stored.item_ids,
        stored.timestamps_ms.tolist(),
        stored.event_hashes,
        stored.event_types.tolist(),
        stored.tz_quarters.tolist(),
        *(map(_known, stored.number(name)) for name in NUMBERS),
        strict=True,
    )
    return tuple(
        HeldEvent(
            event_hash.tobytes().hex(),
            item_id,
            _type_name(code),
            timestamp_ms,
            None if quarters == TZ_UNKNOWN else quarters * TZ_UNIT_MIN,
            *numbers,
        )
        for item_id, timestamp_ms, event_hash, code, quarters, *numbers in rows
    )


def seen_records(packed: bytes | None) -> tuple[SeenRecord, ...]:
    """Return what is kept of events that left the history; raises StoreMismatch."""
    return tuple(
        SeenRecord(
            item_hash=f"{int(record['item_hash']):016x}",
            event_type=_type_name(int(record["event_type"])),
            event_hash=record["event_hash"].tobytes().hex(),
        )
        for record in unpack_seen(packed)
    )


def shown_records(packed: bytes | None) -> tuple[ShownRecord, ...]:
    """Return what is kept of what was shown; raises StoreMismatch."""
    shown = decode_shown(packed)
    pairs = zip(shown.item_hashes.tolist(), shown.timestamps_ms.tolist(), strict=True)
    return tuple(ShownRecord(f"{item:016x}", time_ms) for item, time_ms in pairs)


def entries_of_user(
    entry_id: bytes, fields: Mapping[bytes, bytes], user_id: str
) -> list[StreamEntry]:
    """Return the fields of an entry whose JSON names the user, as `erase_user.lua` finds them."""
    found = []
    for name, value in fields.items():
        payload = _json_object(value, user_id)
        if payload is not None:
            found.append(StreamEntry(entry_id.decode(), name.decode(), payload))
    return found


def _type_name(code: int) -> str:
    # A type of a newer build is told by its code rather than left out.
    return EVENT_TYPES[code - 1] if 0 < code <= len(EVENT_TYPES) else f"type {code}"


def _known(number: np.float32) -> float | None:
    """Return the shortest decimal that means the stored 32 bits: 48.86, not 48.86000061."""
    return None if np.isnan(number) else float(str(number))


def _json_object(value: bytes, user_id: str) -> Mapping[str, Any] | None:
    if user_id.encode() not in value and b"\\" not in value:
        # As in the script: without a backslash the id stands in the text as it is.
        return None
    try:
        payload = json.loads(value)
    except ValueError:
        return None
    is_own = isinstance(payload, dict) and payload.get("user_id") == user_id
    return payload if is_own else None
