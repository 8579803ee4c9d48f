"""How a history looks in Redis: one packed string, decoded by NumPy without a loop.

History: layout version (uint8), number of events (uint16), flags of the number columns that there
are (uint8), then column by column, the events in each oldest first: times (6 bytes), hashes of the
event ids (6), types (1), offsets from UTC (1), and of the number columns (4 bytes each) those that
any event has a number in; at the end the item ids in UTF-8, each followed by NUL. Seen: one record
per event that left the history, in the order of leaving. All numbers are little endian.
`scripts/append_events.lua` knows the same columns. Layout 1, whole records of 30 bytes, is read
too; the next append to such a history writes it anew.
"""

import hashlib
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from json.encoder import encode_basestring
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.contract.events import EVENT_TYPE_CODES, Event
from service.contract.features import NUMBER_COLUMNS, WINDOW_INPUTS, Past
from service.errors import StoreMismatch

LAYOUT_VERSION = 2
EVENT_HASH_BYTES = 6
TZ_UNIT_MIN = 15
TZ_UNKNOWN = -128
FLOAT32_MAX = float(np.finfo(np.float32).max)

TIME_BYTES = 6
NUMBER_BYTES = 4
# Of every event: time, hash, type, offset.
FIXED_BYTES = TIME_BYTES + EVENT_HASH_BYTES + 1 + 1
# The number columns; the place is the bit of the flag.
NUMBERS = ("value", "duration_s", "lat", "lon")
_PAYLOAD_NUMBERS = ("tz_offset_min", *NUMBERS)
_HEADER = struct.Struct("<BHB")
_TIME_DTYPE = np.dtype([("low", "<u4"), ("high", "<u2")])
_RECORDS_LAYOUT = 1
_RECORDS_HEADER = struct.Struct("<BH")
_RECORD_DTYPE = np.dtype(
    [
        ("time", _TIME_DTYPE),
        ("event_hash", "V6"),
        ("event_type", "u1"),
        ("tz_quarters", "i1"),
        *((name, "<f4") for name in NUMBERS),
    ]
)
_SEEN_DTYPE = np.dtype([("item_hash", "<u8"), ("event_type", "u1"), ("event_hash", "V6")])
_FIXED_DTYPES = (_TIME_DTYPE, np.dtype(f"V{EVENT_HASH_BYTES}"), np.dtype("u1"), np.dtype("i1"))
_NUMBER_DTYPE = np.dtype("<f4")
_UNKNOWN_NUMBER = struct.pack("<f", float("nan"))
# A copy is made in half of the time of a new one.
_EVENT_HASH = hashlib.blake2b(digest_size=EVENT_HASH_BYTES)
HEADER_BYTES = _HEADER.size
_NOTHING_LEFT = np.zeros(0, _SEEN_DTYPE)
_NO_EVENTS = _HEADER.pack(LAYOUT_VERSION, 0, 0)
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


class PackedHistory(NamedTuple):
    """What Redis has of a user, not yet decoded; events from before `oldest_ms` do not count."""

    history: bytes | None
    seen: bytes | None
    oldest_ms: int = 0

    def decode(self) -> History:
        """Return the history; raises StoreMismatch if the values are something else."""
        return decode_history(*self)


@dataclass(frozen=True, slots=True)
class StoredColumns:
    """A stored history column by column, all (num_events,), as the layout has them.

    `event_hashes` are 6 bytes each; `numbers` are those of NUMBERS that are stored, float32.
    """

    item_ids: tuple[str, ...]
    times: NDArray[np.void]
    event_hashes: NDArray[np.void]
    event_types: NDArray[np.uint8]
    tz_quarters: NDArray[np.int8]
    numbers: Mapping[str, NDArray[np.float32]]

    @property
    def timestamps_ms(self) -> NDArray[np.int64]:
        """The times, ms since the epoch."""
        return _times_ms(self.times)

    @property
    def tz_offsets_min(self) -> NDArray[np.int64]:
        """The offsets from UTC in minutes, 0 where unknown."""
        minutes = self.tz_quarters.astype(np.int64)
        minutes *= TZ_UNIT_MIN
        minutes[minutes == TZ_UNKNOWN * TZ_UNIT_MIN] = 0
        return minutes

    def number(self, name: str) -> NDArray[np.float32]:
        """Return a number column, NaN where a number is not known."""
        column = self.numbers.get(name)
        return _unknown(len(self.item_ids)) if column is None else column.astype(np.float32)

    def since(self, oldest_ms: int) -> "StoredColumns":
        """Return the events that are not older than a time."""
        # Most histories have none older, and the first event says so.
        if not self.item_ids or _times_ms(self.times[:1])[0] >= oldest_ms:
            return self
        num_expired = int(np.searchsorted(self.timestamps_ms, oldest_ms))
        return self.part(num_expired, len(self.item_ids))

    def part(self, start: int, stop: int) -> "StoredColumns":
        """Return the events from one place to before another one."""
        return StoredColumns(
            self.item_ids[start:stop],
            self.times[start:stop],
            self.event_hashes[start:stop],
            self.event_types[start:stop],
            self.tz_quarters[start:stop],
            {name: column[start:stop] for name, column in self.numbers.items()},
        )

    def pack(self) -> bytes:
        """Return the columns as a history of the current layout."""
        fixed = (self.times, self.event_hashes, self.event_types, self.tz_quarters)
        return _packed(
            self.item_ids,
            [column.tobytes() for column in fixed],
            {name: column.tobytes() for name, column in self.numbers.items()},
        )


def event_hash(event_id: str) -> bytes:
    """Return the 6 bytes that stand for an event id in its user's history."""
    digest = _EVENT_HASH.copy()
    digest.update(event_id.encode())
    return digest.digest()


class EventColumns:
    """New events in the columns of the layout; those that stand together make a history.

    Those of many users are taken at once: a column of five has nearly the cost of one of fifty.
    """

    def __init__(self, events: Sequence[Event]) -> None:
        """Take events; offsets from UTC are rounded to quarter hours."""
        self._events = events
        rows = zip(*events, strict=True) if events else ((),) * len(Event._fields)
        event_ids, _, item_ids, types, times_ms, offsets, *numbers, _, _ = rows
        self._item_ids = item_ids
        self.timestamps_ms: Sequence[int] = times_ms
        quarters = [TZ_UNKNOWN if o is None else round(o / TZ_UNIT_MIN) for o in offsets]
        self._fixed = (
            (TIME_BYTES, b"".join([time.to_bytes(TIME_BYTES, "little") for time in times_ms])),
            (EVENT_HASH_BYTES, b"".join([event_hash(event_id) for event_id in event_ids])),
            (1, bytes([EVENT_TYPE_CODES[event_type] for event_type in types])),
            (1, struct.pack(f"<{len(events)}b", *quarters)),
        )
        self._numbers = {
            name: struct.pack(f"<{len(events)}f", *map(_float32, column))
            for name, column in zip(NUMBERS, numbers, strict=True)
            if column.count(None) < len(events)
        }

    def history(self, start: int, stop: int) -> bytes:
        """Return what is from one place to before another one as a history; see `_packed`.

        It has to be of one user and in order of time.
        """
        fixed = [column[width * start : width * stop] for width, column in self._fixed]
        numbers = {
            name: column[NUMBER_BYTES * start : NUMBER_BYTES * stop]
            for name, column in self._numbers.items()
        }
        unknown = _UNKNOWN_NUMBER * (stop - start)
        known = {name: column for name, column in numbers.items() if column != unknown}
        return _packed(self._item_ids[start:stop], fixed, known)

    def payloads(self, start: int, stop: int) -> bytes:
        """Return the same events as the stream carries them, with NUL between."""
        return b"\0".join([encode_payload(event) for event in self._events[start:stop]])


def encode_events(events: Sequence[Event]) -> bytes:
    """Return events of one user, in order of time, as a history."""
    return EventColumns(events).history(0, len(events))


def encode_payload(event: Event) -> bytes:
    """Return an event as the stream carries it: JSON without the fields that are not known."""
    # By hand, in a quarter of the time of `json.dumps`; numbers are written as it writes them.
    quoted = encode_basestring
    text = (
        f'{{"event_id":{quoted(event.event_id)},"user_id":{quoted(event.user_id)}'
        f',"item_id":{quoted(event.item_id)},"event_type":"{event.event_type}"'
        f',"timestamp_ms":{event.timestamp_ms}'
    )
    numbers = (event.tz_offset_min, event.value, event.duration_s, event.lat, event.lon)
    if numbers.count(None) < len(numbers):
        for name, number in zip(_PAYLOAD_NUMBERS, numbers, strict=True):
            if number is not None:
                text += f',"{name}":{number!r}'
    if event.recommendation_id is not None:
        text += f',"recommendation_id":{quoted(event.recommendation_id)}'
    if event.context:
        context = json.dumps(dict(event.context), ensure_ascii=False, separators=(",", ":"))
        text += f',"context":{context}'
    return (text + "}").encode()


def decode_history(packed: bytes | None, seen: bytes | None, oldest_ms: int = 0) -> History:
    """Return the history in two stored values, without events from before `oldest_ms`.

    Raises StoreMismatch if they are something else.
    """
    if not packed and not seen:
        return History.empty()
    stored = unpack_history(packed, oldest_ms)
    overflow = unpack_seen(seen) if seen else _NOTHING_LEFT
    return History(
        item_ids=stored.item_ids,
        event_types=stored.event_types.astype(np.int64),
        timestamps_ms=stored.timestamps_ms,
        tz_offsets_min=stored.tz_offsets_min,
        values=stored.number("value"),
        durations_s=stored.number("duration_s"),
        lats=stored.number("lat"),
        lons=stored.number("lon"),
        seen_hashes=overflow["item_hash"].astype(np.uint64),
        seen_types=overflow["event_type"].astype(np.uint8),
    )


def _times_ms(times: NDArray[np.void]) -> NDArray[np.int64]:
    """Return times as they are stored in ms since the epoch."""
    whole: NDArray[np.int64] = (times["high"].astype(np.int64) << 32) | times["low"]
    return whole


@lru_cache(maxsize=1_024)
def _unknown(count: int) -> NDArray[np.float32]:
    """Return the column of a number that no event has; shared, and so not to be written."""
    column = np.full(count, np.nan, np.float32)
    column.flags.writeable = False
    return column


def unpack_history(packed: bytes | None, oldest_ms: int = 0) -> StoredColumns:
    """Return the columns of events since `oldest_ms`; raises StoreMismatch."""
    packed = packed or _NO_EVENTS
    if packed[0] == _RECORDS_LAYOUT:
        return _unpack_records(packed).since(oldest_ms)
    if packed[0] != LAYOUT_VERSION or len(packed) < HEADER_BYTES:
        raise StoreMismatch(
            f"history: layout {packed[0]} in {len(packed)} bytes, "
            f"this build reads layouts {_RECORDS_LAYOUT} and {LAYOUT_VERSION}"
        )
    _, count, flags = _HEADER.unpack_from(packed)
    columns: list[NDArray[Any]] = []
    at = HEADER_BYTES
    present = [name for bit, name in enumerate(NUMBERS) if flags & 1 << bit]
    for dtype in (*_FIXED_DTYPES, *[_NUMBER_DTYPE] * len(present)):
        columns.append(_column(packed, dtype, count, at))
        at += columns[-1].nbytes
    times, hashes, types, quarters, *numbers = columns
    stored = StoredColumns(
        _unpack_ids(packed[at:], count),
        times,
        hashes,
        types,
        quarters,
        dict(zip(present, numbers, strict=True)),
    )
    return stored.since(oldest_ms)


def _unpack_records(packed: bytes) -> StoredColumns:
    """Return the columns of a history of whole records, layout 1."""
    if len(packed) < _RECORDS_HEADER.size:
        raise StoreMismatch(f"history: {len(packed)} bytes are shorter than its header")
    _, count = _RECORDS_HEADER.unpack_from(packed)
    records = _column(packed, _RECORD_DTYPE, count, _RECORDS_HEADER.size)
    return StoredColumns(
        _unpack_ids(packed[_RECORDS_HEADER.size + records.nbytes :], count),
        records["time"],
        records["event_hash"],
        records["event_type"],
        records["tz_quarters"],
        # A record has all numbers; one that no event has gets no column.
        {name: records[name] for name in NUMBERS if not np.isnan(records[name]).all()},
    )


def _column(packed: bytes, dtype: np.dtype[Any], count: int, at: int) -> NDArray[Any]:
    try:
        return np.frombuffer(packed, dtype, count, at)
    except ValueError as exc:
        raise StoreMismatch(f"history: {count} events in {len(packed)} bytes") from exc


def _unpack_ids(packed: bytes, count: int) -> tuple[str, ...]:
    item_ids = tuple(packed.decode().split("\0")[:-1])
    if len(item_ids) != count:
        raise StoreMismatch(f"history: {len(item_ids)} item ids for {count} events")
    return item_ids


def _packed(item_ids: Sequence[str], fixed: Sequence[bytes], numbers: Mapping[str, bytes]) -> bytes:
    """Return a history of these columns: the fixed ones in order, and the numbers by name."""
    flags, present = 0, []
    if numbers:
        flags = sum(1 << bit for bit, name in enumerate(NUMBERS) if name in numbers)
        present = [numbers[name] for name in NUMBERS if name in numbers]
    ids = "\0".join([*item_ids, ""]).encode()
    header = _HEADER.pack(LAYOUT_VERSION, len(item_ids), flags)
    return b"".join([header, *fixed, *present, ids])


def unpack_seen(seen: bytes | None) -> NDArray[np.void]:
    """Return the records of what left a history, (num_seen,)."""
    if seen and len(seen) % SEEN_BYTES:
        raise StoreMismatch(f"seen items: {len(seen)} bytes are no multiple of {SEEN_BYTES}")
    return np.frombuffer(seen or b"", _SEEN_DTYPE)


def _float32(value: float | None) -> float:
    """Return a number that fits 32 bits: the nearest if it is too large, NaN if unknown."""
    return float("nan") if value is None else min(max(value, -FLOAT32_MAX), FLOAT32_MAX)
