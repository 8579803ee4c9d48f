"""What POST /v1/events was sent: its events, each read or wrong by itself.

Nearly every body is right, and is read from its bytes at once. Any other is read as FastAPI reads
bodies, entry by entry, so that its errors say what is wrong and how to put it right.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, NotRequired

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    TypeAdapter,
    ValidationError,
    with_config,
)
from pydantic_core import core_schema
from typing_extensions import TypedDict

from service.api.attempts import Attempt
from service.api.direct_routes import BodyRoute
from service.api.event_schemas import (
    MAX_EVENTS_PER_CALL,
    EventAttempt,
    EventBatch,
    EventIdText,
    IdText,
    Latitude,
    Longitude,
    Seconds,
    UserEvent,
    right_event,
)
from service.contract.errors import InvalidField
from service.contract.events import (
    MAX_CONTEXT_ENTRIES,
    MAX_EVENT_ID_CHARS,
    Event,
    Scalar,
    check_id,
)
from service.problems import FieldProblem, field_problem

_STRICT = with_config(ConfigDict(extra="forbid", strict=True, allow_inf_nan=False))


# Dictionaries take a third of the time of models, and no validator here is a Python function.
@_STRICT
class PlainEvent(TypedDict):
    """The fields of a `UserEvent`; what this refuses, that one explains."""

    user_id: IdText
    item_id: IdText
    event_type: str
    # In this order: which of several fits is not searched for, the first is taken.
    timestamp: Annotated[int | str, Field(union_mode="left_to_right")]
    event_id: NotRequired[EventIdText | None]
    value: NotRequired[float | None]
    duration_s: NotRequired[Seconds | None]
    lat: NotRequired[Latitude | None]
    lon: NotRequired[Longitude | None]
    recommendation_id: NotRequired[IdText | None]
    context: NotRequired[Annotated[dict[str, Scalar], Field(max_length=MAX_CONTEXT_ENTRIES)]]


@_STRICT
class PlainBatch(TypedDict):
    """The fields of an `EventBatch`."""

    events: Annotated[list[PlainEvent], Field(min_length=1, max_length=MAX_EVENTS_PER_CALL)]


_NUL = b"\\u0000"
_PLAIN_BATCH: TypeAdapter[PlainBatch] = TypeAdapter(PlainBatch)


@dataclass(frozen=True, slots=True)
class Rejected:
    """An entry that is no event, by the id that its caller gave it, and what is wrong with it."""

    event_id: str | None
    error: FieldProblem


class PostedEvents:
    """The entries of a body. Its JSON schema is the one of `EventBatch`."""

    def __init__(
        self, plain: Sequence[PlainEvent] = (), attempts: Sequence[EventAttempt] = ()
    ) -> None:
        self._plain = plain
        self._attempts = attempts

    @classmethod
    def of_bytes(cls, body: bytes) -> "PostedEvents | None":
        """Return the entries of a body that is right, None if it has to be read with more care."""
        # What has no NUL in any text has none in its ids, which is all that the schema cannot say.
        if _NUL in body:
            return None
        try:
            return cls(plain=_PLAIN_BATCH.validate_json(body)["events"])
        except ValidationError:
            return None

    @classmethod
    def __get_pydantic_core_schema__(
        cls, _source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        """Validate as an `EventBatch` what was not read from its bytes."""
        return core_schema.no_info_wrap_validator_function(cls._of_value, handler(EventBatch))

    @classmethod
    def _of_value(cls, value: Any, validate: core_schema.ValidatorFunctionWrapHandler) -> Any:
        return cls(attempts=validate(value).events)

    def read(self, latest_ms: int) -> list[Event | Rejected]:
        """Return the events, none of them later than `latest_ms`, in the order of the body."""
        plain = [_read_plain(fields, latest_ms) for fields in self._plain]
        return plain + [_read_attempt(attempt, latest_ms) for attempt in self._attempts]


class EventsRoute(BodyRoute):
    """Reads events that are right at once."""

    def parse(self, model: type[BaseModel], body: bytes) -> Any:
        """Return the events, or None if the body has to be read with more care."""
        return PostedEvents.of_bytes(body)


def _read_plain(fields: PlainEvent, latest_ms: int) -> Event | Rejected:
    try:
        return right_event(fields, fields["user_id"], latest_ms)
    except InvalidField as exc:
        return Rejected(fields.get("event_id"), field_problem(exc))


def _read_attempt(attempt: Attempt[UserEvent], latest_ms: int) -> Event | Rejected:
    read = attempt.convert(lambda event: event.to_own_event(latest_ms))
    if isinstance(read, FieldProblem):
        return Rejected(_sayable(attempt.said("event_id")), read)
    return read


def _sayable(event_id: str | None) -> str | None:
    """Return the caller's event id if it can be said back, so that errors can be matched."""
    try:
        return None if event_id is None else check_id("event_id", event_id, MAX_EVENT_ID_CHARS)
    except InvalidField:
        return None
