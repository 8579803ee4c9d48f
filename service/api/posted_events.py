"""What POST /v1/events was sent: its events, each read or wrong by itself.

Nearly every body is right, and is read from its bytes at once. Any other is read as FastAPI reads
bodies, entry by entry, so that its errors say what is wrong and how to put it right.
"""

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, NotRequired

from fastapi import Request
from fastapi.routing import APIRoute
from pydantic import (
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    TypeAdapter,
    ValidationError,
    with_config,
)
from pydantic_core import core_schema
from starlette.responses import Response
from typing_extensions import TypedDict

from service.api.attempts import Attempt
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
    event_of,
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
    timestamp: str | int
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
        return value if isinstance(value, cls) else cls(attempts=validate(value).events)

    def read(self, latest_ms: int) -> list[Event | Rejected]:
        """Return the events, none of them later than `latest_ms`, in the order of the body."""
        plain = [_read_plain(fields, latest_ms) for fields in self._plain]
        return plain + [_read_attempt(attempt, latest_ms) for attempt in self._attempts]


class EventsRequest(Request):
    """A request whose JSON is its events where they can be read at once."""

    async def json(self) -> Any:
        """Return the events, or what the body is in JSON."""
        return PostedEvents.of_bytes(await self.body()) or await super().json()


class EventsRoute(APIRoute):
    """A route whose handler is given an `EventsRequest`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the framework's handler for the other kind of request."""
        handle = super().get_route_handler()

        async def handle_events(request: Request) -> Response:
            return await handle(EventsRequest(request.scope, request.receive))

        return handle_events


def _read_plain(fields: PlainEvent, latest_ms: int) -> Event | Rejected:
    try:
        return event_of(fields, check_id("user_id", fields["user_id"]), latest_ms)
    except InvalidField as exc:
        return Rejected(_sayable(fields.get("event_id")), field_problem(exc))


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
