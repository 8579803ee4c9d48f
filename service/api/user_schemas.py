"""The bodies of the calls about one user's data: what is held, the history, erasure, merge."""

import base64
import binascii
import struct
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from service.api.event_schemas import IdText, Strict
from service.api.timestamps import rfc3339
from service.contract.errors import InvalidField
from service.contract.events import check_id
from service.store.outcomes import Erased, Merged
from service.store.people_codec import Held, HeldEvent

MAX_PAGE = 1_000
DEFAULT_PAGE = 100
MAX_CURSOR_CHARS = 64

# Where a page ended: the time and the hash of its last event.
_CURSOR = struct.Struct(">Q6s")

EVENT_EXAMPLE: dict[str, JsonValue] = {
    "event_hash": "1f0c6ab2d93e",
    "item_id": "50",
    "event_type": "rating",
    "timestamp": "2026-01-31T18:30:00.000+01:00",
    "value": 4.0,
}


class HeldEventBody(Strict):
    """One event of a history with every field that is stored; absent ones were not sent."""

    model_config = ConfigDict(json_schema_extra={"examples": [EVENT_EXAMPLE]})
    event_hash: str = Field(description="48 bits of BLAKE2b of the event id, which is not kept")
    item_id: str
    event_type: str
    timestamp: str = Field(description="With the local offset, to a quarter hour; `Z`: not known")
    value: float | None = None
    duration_s: float | None = None
    lat: float | None = None
    lon: float | None = None

    @classmethod
    def of(cls, event: HeldEvent) -> "HeldEventBody":
        """Return the body of an event."""
        numbers: dict[str, Any] = {
            "value": event.value,
            "duration_s": event.duration_s,
            "lat": event.lat,
            "lon": event.lon,
        }
        return cls.model_construct(
            event_hash=event.event_hash,
            item_id=event.item_id,
            event_type=event.event_type,
            timestamp=rfc3339(event.timestamp_ms, event.tz_offset_min),
            **{name: value for name, value in numbers.items() if value is not None},
        )


class SeenRecordBody(Strict):
    """What is kept of an event that left the history; it has no time and no item id."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "item_hash": "e1822db470e60d09",
                    "event_type": "view",
                    "event_hash": "9a1c0d5e7b2a",
                }
            ]
        }
    )
    item_hash: str = Field(description="64 bits of the SHA-1 of the item id")
    event_type: str
    event_hash: str


class StreamEntryBody(Strict):
    """One entry of the event stream that names the user, as it is stored."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "entry_id": "1769880600123-0",
                    "field": "event",
                    "payload": {"event_id": "e-1", "user_id": "anna", "item_id": "50"},
                }
            ]
        }
    )
    entry_id: str = Field(description="Milliseconds of its arrival, and a number")
    field: str
    payload: dict[str, Any]


class ShownRecordBody(Strict):
    """What is kept of an item that was shown to the user lately."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"item_hash": "e1822db470e60d09", "timestamp": "2026-01-31T17:31:00.000Z"}]
        }
    )
    item_hash: str = Field(description="64 bits of the SHA-1 of the item id")
    timestamp: str


class UserData(Strict):
    """Everything that is held of a user; of a user never heard of, the same without entries."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "user_id": "anna",
                    "num_events": 1,
                    "num_seen": 0,
                    "num_stream_entries": 0,
                    "expires_at": "2027-01-31T17:30:00.000Z",
                    "events": [EVENT_EXAMPLE],
                    "seen": [],
                    "stream": [],
                    "shown": [],
                }
            ]
        }
    )
    user_id: str
    num_events: int
    num_seen: int
    num_stream_entries: int
    expires_at: str | None = Field(None, description="When it goes if no other event comes")
    erased_at: str | None = Field(None, description="Events that are not newer are refused")
    events: list[HeldEventBody] = Field(description="The history, newest first")
    seen: list[SeenRecordBody] = Field(description="What is kept of events that left the history")
    stream: list[StreamEntryBody] = Field(description="What collectors are still to be shown")
    shown: list[ShownRecordBody] = Field(description="What was shown in the last seven days")

    @classmethod
    def of(cls, user_id: str, held: Held, now_ms: int) -> "UserData":
        """Return the body of all that is held."""
        expires = held.expires_in_ms
        return cls.model_construct(
            user_id=user_id,
            num_events=len(held.events),
            num_seen=len(held.seen),
            num_stream_entries=len(held.stream),
            expires_at=None if expires is None else rfc3339(now_ms + expires),
            erased_at=None if held.erased_ms is None else rfc3339(held.erased_ms),
            events=[HeldEventBody.of(event) for event in reversed(held.events)],
            seen=[
                SeenRecordBody.model_construct(
                    item_hash=record.item_hash,
                    event_type=record.event_type,
                    event_hash=record.event_hash,
                )
                for record in held.seen
            ],
            stream=[
                StreamEntryBody.model_construct(
                    entry_id=entry.entry_id, field=entry.field, payload=dict(entry.payload)
                )
                for entry in held.stream
            ],
            shown=[
                ShownRecordBody.model_construct(
                    item_hash=record.item_hash, timestamp=rfc3339(record.timestamp_ms)
                )
                for record in held.shown
            ],
        )


class EventsParams(BaseModel):
    """Which part of a history."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(DEFAULT_PAGE, ge=1, le=MAX_PAGE, description="Events in one answer")
    cursor: str | None = Field(
        None, max_length=MAX_CURSOR_CHARS, description="`next_cursor` of the answer before"
    )


class EventsPage(Strict):
    """One page of a history, newest first."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"user_id": "anna", "events": [EVENT_EXAMPLE], "next_cursor": None}]
        }
    )
    user_id: str
    events: list[HeldEventBody]
    next_cursor: str | None = Field(description="For the page of older events; null at the end")

    @classmethod
    def of(cls, user_id: str, events: Sequence[HeldEvent], params: EventsParams) -> "EventsPage":
        """Return the page of a history, oldest first, that was asked for; raises InvalidField."""
        end = len(events) if params.cursor is None else _place_of(events, params.cursor)
        start = max(0, end - params.limit)
        return cls.model_construct(
            user_id=user_id,
            events=[HeldEventBody.of(event) for event in reversed(events[start:end])],
            next_cursor=_cursor_at(events[start]) if start else None,
        )


class ErasureBody(Strict):
    """What an erasure removed; events that are not newer than `erased_at` are refused from now."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "events": 12,
                    "seen": 0,
                    "stream_entries": 12,
                    "erased_at": "2026-01-31T17:30:00.000Z",
                }
            ]
        }
    )
    events: int = Field(description="Events of the history")
    seen: int = Field(description="Records of events that had left it")
    stream_entries: int = Field(description="Entries of the event stream")
    erased_at: str

    @classmethod
    def of(cls, erased: Erased) -> "ErasureBody":
        """Return the body of an erasure."""
        return cls(
            events=erased.num_events,
            seen=erased.num_seen,
            stream_entries=erased.num_stream_entries,
            erased_at=rfc3339(erased.erased_ms),
        )


class MergeRequest(Strict):
    """Whose history goes, and to whom."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"from_user_id": "device-7", "into_user_id": "anna"}]}
    )
    from_user_id: IdText
    into_user_id: IdText

    def users(self) -> tuple[str, str]:
        """Return both ids; raises InvalidField, also if they are one."""
        source = check_id("from_user_id", self.from_user_id)
        target = check_id("into_user_id", self.into_user_id)
        if source == target:
            raise InvalidField("into_user_id", target, "must be another user than from_user_id")
        return source, target


class MergeBody(Strict):
    """What a merge gave; the user who gave it is erased."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "events": 12,
                    "duplicates": 0,
                    "left_out": 0,
                    "seen": 0,
                    "erased": {
                        "events": 12,
                        "seen": 0,
                        "stream_entries": 12,
                        "erased_at": "2026-01-31T17:30:00.000Z",
                    },
                }
            ]
        }
    )
    events: int = Field(description="Events that the other user has now")
    duplicates: int = Field(description="Events that the other user had already")
    left_out: int = Field(description="Events older than the other user's erasure, or than is kept")
    seen: int = Field(description="Records of events that had left the history")
    erased: ErasureBody

    @classmethod
    def of(cls, merged: Merged) -> "MergeBody":
        """Return the body of a merge."""
        return cls(
            events=merged.num_events,
            duplicates=merged.num_duplicates,
            left_out=merged.num_left_out,
            seen=merged.num_seen,
            erased=ErasureBody.of(merged.erased),
        )


# The id in a query string instead of the path, where some ids cannot be written.
class UserParams(BaseModel):
    """Which user."""

    model_config = ConfigDict(extra="forbid")

    user_id: Annotated[str, Field(min_length=1, description="Any id, percent-encoded")]


def _cursor_at(event: HeldEvent) -> str:
    packed = _CURSOR.pack(event.timestamp_ms, bytes.fromhex(event.event_hash))
    return base64.urlsafe_b64encode(packed).rstrip(b"=").decode()


def _place_of(events: Sequence[HeldEvent], cursor: str) -> int:
    """Return the number of events that are older than where the last page ended.

    Its event may have gone since: to make room for newer ones, and then all older ones went first.
    """
    timestamp_ms, event_hash = _parsed(cursor)
    for place in range(len(events) - 1, -1, -1):
        if events[place].event_hash == event_hash:
            return place
    return sum(event.timestamp_ms < timestamp_ms for event in events)


def _parsed(cursor: str) -> tuple[int, str]:
    try:
        packed = base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True)
        timestamp_ms, event_hash = _CURSOR.unpack(packed)
    except (binascii.Error, struct.error, ValueError) as exc:
        fix = "must be the next_cursor of an earlier answer"
        raise InvalidField("cursor", cursor, fix) from exc
    return timestamp_ms, event_hash.hex()
