"""How a history looks in Redis: one packed string, decoded by NumPy without a loop.

History: layout version (uint8), number of events (uint16), one record per event, oldest first,
then the item ids in UTF-8, each followed by NUL. Seen: one record per event that left the history,
in the order of leaving. All numbers are little endian. `scripts/append_events.lua` knows the same
offsets.
"""

import hashlib
import json
import struct
from dataclasses import dataclass
from json.encoder import encode_basestring
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.contract.events import EVENT_TYPE_CODES, Event
from service.contract.features import NUMBER_COLUMNS, WINDOW_INPUTS, Past
from service.errors import StoreMismatch

LAYOUT_VERSION = 1
EVENT_HASH_BYTES = 6
TZ_UNIT_MIN = 15
TZ_UNKNOWN = -128
FLOAT32_MAX = float(np.finfo(np.float32).max)

_PAYLOAD_NUMBERS = ("tz_offset_min", "value", "duration_s", "lat", "lon")
_HEADER = struct.Struct("<BH")
_RECORD = struct.Struct("<IH6sBb4f")
_RECORD_DTYPE = np.dtype(
    [
        ("time_low", "<u4"),
        ("time_high", "<u2"),
        ("event_hash", "V6"),
        ("event_type", "u1"),
        ("tz_quarters", "i1"),
        ("value", "<f4"),
        ("duration_s", "<f4"),
        ("lat", "<f4"),
        ("lon", "<f4"),
    ]
)
_SEEN_DTYPE = np.dtype([("item_hash", "<u8"), ("event_type", "u1"), ("event_hash", "V6")])
HEADER_BYTES = _HEADER.size
RECORD_BYTES = _RECORD.size
SEEN_BYTES = _SEEN_DTYPE.itemsize


@dataclass(frozen=True, slots=True)
class History(Past):
    """All events kept for a user, oldest first, and what is known of those that left.

    `seen_hashes` and `seen_types`, each (num_seen,), are the `item_hash` and event type code of
    events that no longer are in the history.
    """

    seen_hashes: NDArray[np.uint64]
    seen_types: NDArray[np.uint8]

    @classmethod
    def empty(cls) -> "History":
        """Return the history of a user without events."""
        arrays: dict[str, Any] = {name: np.zeros(0, WINDOW_INPUTS[name]) for name in NUMBER_COLUMNS}
        return cls(
            item_ids=(),
            seen_hashes=np.zeros(0, np.uint64),
            seen_types=np.zeros(0, np.uint8),
            **arrays,
        )


def event_hash(event_id: str) -> bytes:
    """Return the 6 bytes that stand for an event id in its user's history."""
    return hashlib.blake2b(event_id.encode(), digest_size=EVENT_HASH_BYTES).digest()


def encode_event(event: Event) -> bytes:
    """Return an event's record; the offset from UTC is rounded to quarter hours."""
    offset = event.tz_offset_min
    high, low = divmod(event.timestamp_ms, 1 << 32)
    return _RECORD.pack(
        low,
        high,
        event_hash(event.event_id),
        EVENT_TYPE_CODES[event.event_type],
        TZ_UNKNOWN if offset is None else round(offset / TZ_UNIT_MIN),
        *(_float32(x) for x in (event.value, event.duration_s, event.lat, event.lon)),
    )


def encode_payload(event: Event) -> bytes:
    """Return an event as the stream carries it: JSON without the fields that are not known."""
    # By hand, in a quarter of the time of `json.dumps`; numbers are written as it writes them.
    texts = [("event_id", event.event_id), ("user_id", event.user_id), ("item_id", event.item_id)]
    parts = [f'"{name}":{encode_basestring(text)}' for name, text in texts]
    parts += [f'"event_type":"{event.event_type}"', f'"timestamp_ms":{event.timestamp_ms}']
    for name in _PAYLOAD_NUMBERS:
        number = getattr(event, name)
        if number is not None:
            parts.append(f'"{name}":{number!r}')
    if event.recommendation_id is not None:
        parts.append(f'"recommendation_id":{encode_basestring(event.recommendation_id)}')
    if event.context:
        context = json.dumps(dict(event.context), ensure_ascii=False, separators=(",", ":"))
        parts.append(f'"context":{context}')
    return f"{{{','.join(parts)}}}".encode()


def decode_history(packed: bytes | None, seen: bytes | None, oldest_ms: int = 0) -> History:
    """Return the history in two stored values, without events from before `oldest_ms`.

    Raises StoreMismatch if they are something else.
    """
    if not packed and not seen:
        return History.empty()
    item_ids, records = unpack_history(packed, oldest_ms)
    overflow = unpack_seen(seen)
    quarters = records["tz_quarters"].astype(np.int64)
    return History(
        item_ids=item_ids,
        event_types=records["event_type"].astype(np.int64),
        timestamps_ms=record_times_ms(records),
        tz_offsets_min=np.where(quarters == TZ_UNKNOWN, 0, quarters * TZ_UNIT_MIN),
        values=records["value"].astype(np.float32),
        durations_s=records["duration_s"].astype(np.float32),
        lats=records["lat"].astype(np.float32),
        lons=records["lon"].astype(np.float32),
        seen_hashes=overflow["item_hash"].astype(np.uint64),
        seen_types=overflow["event_type"].astype(np.uint8),
    )


def unpack_history(
    packed: bytes | None, oldest_ms: int = 0
) -> tuple[tuple[str, ...], NDArray[np.void]]:
    """Return the item ids and the records, both (num_events,), of events since `oldest_ms`."""
    if not packed:
        return (), np.zeros(0, _RECORD_DTYPE)
    if len(packed) < HEADER_BYTES:
        raise StoreMismatch(f"history: {len(packed)} bytes are shorter than its header")
    version, count = _HEADER.unpack_from(packed)
    ids_start = HEADER_BYTES + count * RECORD_BYTES
    if version != LAYOUT_VERSION or len(packed) < ids_start:
        raise StoreMismatch(
            f"history: layout {version} with {count} events in {len(packed)} bytes, "
            f"this build reads layout {LAYOUT_VERSION}"
        )
    item_ids = tuple(packed[ids_start:].decode().split("\0")[:-1])
    if len(item_ids) != count:
        raise StoreMismatch(f"history: {len(item_ids)} item ids for {count} events")
    records = np.frombuffer(packed, _RECORD_DTYPE, count, HEADER_BYTES)
    num_expired = int(np.searchsorted(record_times_ms(records), oldest_ms))
    return item_ids[num_expired:], records[num_expired:]


def record_times_ms(records: NDArray[np.void]) -> NDArray[np.int64]:
    """Return the records' times, ms since the epoch, (num_events,)."""
    high = records["time_high"].astype(np.int64)
    return (high << 32) | records["time_low"].astype(np.int64)


def unpack_seen(seen: bytes | None) -> NDArray[np.void]:
    """Return the records of what left a history, (num_seen,)."""
    if seen and len(seen) % SEEN_BYTES:
        raise StoreMismatch(f"seen items: {len(seen)} bytes are no multiple of {SEEN_BYTES}")
    return np.frombuffer(seen or b"", _SEEN_DTYPE)


def _float32(value: float | None) -> float:
    """Return a number that fits 32 bits: the nearest if it is too large, NaN if unknown."""
    return float("nan") if value is None else min(max(value, -FLOAT32_MAX), FLOAT32_MAX)
