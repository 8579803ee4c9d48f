"""The body of POST /v1/events: each event is right or wrong by itself."""

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    ValidationError,
)
from pydantic_core import PydanticCustomError, core_schema

from service.contract.errors import InvalidField
from service.contract.events import (
    EVENT_TYPES,
    MAX_CONTEXT_ENTRIES,
    MAX_EVENT_ID_CHARS,
    MAX_ID_CHARS,
    MAX_TIMESTAMP_MS,
    MIN_TIMESTAMP_MS,
    Event,
    ItemId,
    UserId,
    check_amount,
    check_coordinates,
    check_id,
    derive_event_id,
    parse_timestamp,
)
from service.problems import FieldProblem, field_problem, field_problems

MAX_EVENTS_PER_CALL = 1_000
MAX_CONTEXT_CHARS = 256

EventStatus = Literal["accepted", "duplicate", "rejected"]

IdText = Annotated[str, Field(min_length=1, max_length=MAX_ID_CHARS)]
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
    event_id: Annotated[str, Field(min_length=1, max_length=MAX_EVENT_ID_CHARS)] | None = Field(
        None, description="Yours, so that a retry is a duplicate; derived from the rest if absent"
    )
    value: float | None = Field(None, description="A rating, for example")
    duration_s: float | None = Field(None, ge=0)
    lat: float | None = Field(None, ge=-90, le=90)
    lon: float | None = Field(None, ge=-180, le=180)
    recommendation_id: Annotated[str, Field(min_length=1, max_length=MAX_ID_CHARS)] | None = None
    context: Annotated[dict[str, ContextValue], Field(max_length=MAX_CONTEXT_ENTRIES)] = {}

    def to_event(self, user_id: str, latest_ms: int) -> Event:
        """Return the event; raises InvalidField, also for a time after `latest_ms`."""
        self._check()
        timestamp_ms, tz_offset_min = parse_timestamp(self.timestamp)
        if timestamp_ms > latest_ms:
            raise InvalidField(
                "timestamp", self.timestamp, "lies in the future; check the clock and the offset"
            )
        amounts = {
            "value": self.value,
            "duration_s": self.duration_s,
            "lat": self.lat,
            "lon": self.lon,
        }
        return Event(
            event_id=self.event_id
            or derive_event_id(user_id, self.item_id, self.event_type, timestamp_ms, **amounts),
            user_id=UserId(user_id),
            item_id=ItemId(self.item_id),
            event_type=self.event_type,
            timestamp_ms=timestamp_ms,
            tz_offset_min=tz_offset_min,
            recommendation_id=self.recommendation_id,
            context=self.context,
            **amounts,
        )

    def _check(self) -> None:
        check_id("item_id", self.item_id)
        check_event_type("event_type", self.event_type)
        if self.event_id is not None:
            check_id("event_id", self.event_id, MAX_EVENT_ID_CHARS)
        if self.recommendation_id is not None:
            check_id("recommendation_id", self.recommendation_id)
        check_coordinates(self.lat, self.lon)
        check_amount("value", self.value)
        check_amount("duration_s", self.duration_s, minimum=0)
        for key, value in self.context.items():
            for text in (key, value):
                if isinstance(text, str) and text:
                    check_id("context", text, MAX_CONTEXT_CHARS)


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


class EventAttempt:
    """One entry of a batch, right or wrong by itself: one bad event does not lose the others.

    Its JSON schema is UserEvent's.
    """

    def __init__(self, raw: object, body: UserEvent | None, problem: FieldProblem | None) -> None:
        self.raw = raw
        self.body = body
        self.problem = problem

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        """Validate as UserEvent, and keep what is wrong instead of raising it."""
        return core_schema.no_info_wrap_validator_function(cls._attempt, handler(UserEvent))

    @classmethod
    def _attempt(cls, raw: Any, validate: core_schema.ValidatorFunctionWrapHandler) -> Any:
        try:
            return cls(raw, validate(raw), None)
        except ValidationError as exc:
            return cls(raw, None, field_problems(exc.errors(include_url=False))[0])

    def to_event(self, latest_ms: int) -> Event | FieldProblem:
        """Return the event, or what is wrong with it."""
        if self.body is None:
            return self.problem or FieldProblem(field="event", value="", fix="must be an object")
        try:
            return self.body.to_own_event(latest_ms)
        except InvalidField as exc:
            return field_problem(exc)

    @property
    def event_id(self) -> str | None:
        """Return the caller's event id if it can be said back, so that errors can be matched."""
        given = self.raw.get("event_id") if isinstance(self.raw, dict) else None
        try:
            return check_id("event_id", given, MAX_EVENT_ID_CHARS) if type(given) is str else None
        except InvalidField:
            return None


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


def check_event_type(field: str, text: str) -> str:
    """Return a known event type, or raise InvalidField that lists them."""
    if text not in EVENT_TYPES:
        raise InvalidField(field, text, f"must be one of {', '.join(EVENT_TYPES)}")
    return text
