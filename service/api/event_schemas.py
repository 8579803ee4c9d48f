"""The body of POST /v1/events: each event is right or wrong by itself."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
)
from pydantic_core import PydanticCustomError

from service.api.attempts import Attempt
from service.contract.errors import InvalidField
from service.contract.events import (
    EVENT_TYPE_CODES,
    EVENT_TYPES,
    MAX_CONTEXT_ENTRIES,
    MAX_EVENT_ID_CHARS,
    MAX_ID_CHARS,
    MAX_TIMESTAMP_MS,
    MIN_TIMESTAMP_MS,
    NO_CONTEXT,
    Event,
    Scalar,
    check_amount,
    check_coordinates,
    check_id,
    derive_event_id,
    parse_timestamp,
)
from service.problems import FieldProblem

MAX_EVENTS_PER_CALL = 1_000
MAX_CONTEXT_CHARS = 256

EventStatus = Literal["accepted", "duplicate", "rejected"]

IdText = Annotated[str, Field(min_length=1, max_length=MAX_ID_CHARS)]
EventIdText = Annotated[str, Field(min_length=1, max_length=MAX_EVENT_ID_CHARS)]
Seconds = Annotated[float, Field(ge=0)]
Latitude = Annotated[float, Field(ge=-90, le=90)]
Longitude = Annotated[float, Field(ge=-180, le=180)]
EventTypeText = Annotated[str, Field(json_schema_extra={"enum": list(EVENT_TYPES)})]


def only(kinds: tuple[type, ...], fix: str, *, or_null: bool = True) -> BeforeValidator:
    """Return a validator that refuses other JSON types with one error, not one for each kind."""

    def check(value: Any) -> Any:
        if not (value is None and or_null) and type(value) not in kinds:
            raise PydanticCustomError("kind", fix)
        return value

    return BeforeValidator(check)


# What `parse_timestamp` takes of whole numbers, for the document only: its error says more.
Milliseconds = Annotated[
    int, Field(json_schema_extra={"minimum": MIN_TIMESTAMP_MS, "maximum": MAX_TIMESTAMP_MS})
]
TimestampValue = Annotated[
    str | Milliseconds,
    Field(description="RFC 3339 with an offset, or whole milliseconds since 1970 in UTC"),
    only((str, int), "must be RFC 3339 text with an offset, or whole milliseconds since 1970"),
]
ContextValue = Annotated[
    str | int | float | bool,
    only((str, int, float, bool), "must be a text, a number, true or false"),
]


class Strict(BaseModel):
    """A body that takes no unknown field, no text for a number, and no NaN."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class SessionEvent(Strict):
    """An event of the user that the request is about."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "item_id": "50",
                    "event_type": "rating",
                    "timestamp": "2026-01-31T18:30:00+01:00",
                    "value": 4,
                    "lat": 48.8566,
                    "lon": 2.3522,
                }
            ]
        }
    )
    item_id: IdText
    event_type: EventTypeText
    timestamp: TimestampValue
    event_id: EventIdText | None = Field(
        None, description="Yours, so that a retry is a duplicate; derived from the rest if absent"
    )
    value: float | None = Field(None, description="A rating, for example")
    duration_s: Seconds | None = None
    lat: Latitude | None = None
    lon: Longitude | None = None
    recommendation_id: IdText | None = None
    context: Annotated[dict[str, ContextValue], Field(max_length=MAX_CONTEXT_ENTRIES)] = {}

    def to_event(self, user_id: str, latest_ms: int) -> Event:
        """Return the event; raises InvalidField, also for a time after `latest_ms`."""
        return event_of(self.__dict__, user_id, latest_ms)


class UserEvent(SessionEvent):
    """One user did one thing to one item at one time and, if known, at one place."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "user_id": "anna",
                    "item_id": "50",
                    "event_type": "view",
                    "timestamp": "2026-01-31T18:30:00+01:00",
                }
            ]
        }
    )
    user_id: IdText

    def to_own_event(self, latest_ms: int) -> Event:
        """Return the event of the user it names; see `to_event`."""
        return self.to_event(check_id("user_id", self.user_id), latest_ms)


EventAttempt: TypeAlias = Attempt[UserEvent]


class EventBatch(Strict):
    """Events to store."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "events": [
                        {
                            "user_id": "anna",
                            "item_id": "50",
                            "event_type": "view",
                            "timestamp": "2026-01-31T18:30:00+01:00",
                        }
                    ]
                }
            ]
        }
    )
    events: Annotated[list[EventAttempt], Field(min_length=1, max_length=MAX_EVENTS_PER_CALL)]


class EventResult(Strict):
    """What became of one event, in the order of the request."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"event_id": "e-1", "status": "accepted"}]}
    )
    event_id: str | None = None
    status: EventStatus
    error: FieldProblem | None = None


class EventBatchResponse(Strict):
    """What became of a batch; after it, every read sees the accepted events."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "accepted": 1,
                    "duplicates": 0,
                    "rejected": 1,
                    "results": [
                        {"event_id": "e-1", "status": "accepted"},
                        {
                            "event_id": "e-2",
                            "status": "rejected",
                            "error": {
                                "field": "lat",
                                "value": "91.0",
                                "fix": "must be between -90 and 90 degrees",
                            },
                        },
                    ],
                }
            ]
        }
    )
    accepted: int
    duplicates: int
    rejected: int
    results: list[EventResult]


def event_of(fields: Mapping[str, Any], user_id: str, latest_ms: int) -> Event:
    """Return the event with the fields of a `SessionEvent`, of which those not sent may be absent.

    Raises InvalidField for what the schema cannot say, also for a time after `latest_ms`.
    """
    known = fields.get
    check_id("item_id", fields["item_id"])
    event_id, recommendation_id = known("event_id"), known("recommendation_id")
    check_event_type("event_type", fields["event_type"])
    if event_id is not None:
        check_id("event_id", event_id, MAX_EVENT_ID_CHARS)
    if recommendation_id is not None:
        check_id("recommendation_id", recommendation_id)
    check_coordinates(known("lat"), known("lon"))
    check_amount("value", known("value"))
    check_amount("duration_s", known("duration_s"), minimum=0)
    return right_event(fields, user_id, latest_ms)


def right_event(fields: Mapping[str, Any], user_id: str, latest_ms: int) -> Event:
    """Return the event as `event_of` does; ids, texts and numbers each are known to be right."""
    known = fields.get
    item_id, event_type = fields["item_id"], fields["event_type"]
    if event_type not in EVENT_TYPE_CODES:
        check_event_type("event_type", event_type)
    value, duration_s, lat, lon = known("value"), known("duration_s"), known("lat"), known("lon")
    if (lat is None) != (lon is None):
        check_coordinates(lat, lon)
    context = known("context") or NO_CONTEXT
    if context:
        _check_context(context)
    timestamp_ms, tz_offset_min = _checked_time(fields["timestamp"], latest_ms)
    event_id = known("event_id") or derive_event_id(
        user_id,
        item_id,
        event_type,
        timestamp_ms,
        value=value,
        duration_s=duration_s,
        lat=lat,
        lon=lon,
    )
    # All fields in their order, in two thirds of the time that their names would take.
    return Event._make(
        (
            event_id,
            user_id,
            item_id,
            event_type,
            timestamp_ms,
            tz_offset_min,
            value,
            duration_s,
            lat,
            lon,
            known("recommendation_id"),
            context,
        )
    )


def _checked_time(timestamp: str | int, latest_ms: int) -> tuple[int, int | None]:
    if type(timestamp) is int and MIN_TIMESTAMP_MS <= timestamp <= latest_ms <= MAX_TIMESTAMP_MS:
        return timestamp, None
    timestamp_ms, tz_offset_min = parse_timestamp(timestamp)
    if timestamp_ms > latest_ms:
        raise InvalidField(
            "timestamp", timestamp, "lies in the future; check the clock and the offset"
        )
    return timestamp_ms, tz_offset_min


def _check_context(context: Mapping[str, Scalar]) -> None:
    for pair in context.items():
        for text in pair:
            if isinstance(text, str) and text:
                check_id("context", text, MAX_CONTEXT_CHARS)


def check_event_type(field: str, text: str) -> str:
    """Return a known event type, or raise InvalidField that lists them."""
    if text not in EVENT_TYPES:
        raise InvalidField(field, text, f"must be one of {', '.join(EVENT_TYPES)}")
    return text
