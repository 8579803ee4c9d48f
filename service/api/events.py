"""Events: stored in one atomic step each, told apart as accepted, duplicate or rejected."""

from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any, TypeAlias

from fastapi import APIRouter, Body
from pydantic_core import to_json
from starlette.responses import Response

from service.api.dependencies import EventStore, ServicesDep, problems
from service.api.event_schemas import EventBatchResponse
from service.api.posted_events import EventsRoute, PostedEvents, Rejected
from service.api.timestamps import rfc3339
from service.contract.events import Event
from service.metrics import Metrics
from service.problems import FieldProblem, shown
from service.store.outcomes import Appended

# The fields of an `EventResult`; a model for each event would take longer than all else here.
Result: TypeAlias = dict[str, Any]

router = APIRouter(tags=["events"], route_class=EventsRoute)


@router.post(
    "/v1/events",
    response_model=EventBatchResponse,
    response_model_exclude_none=True,
    responses=problems(400, 413, 422, 503),
)
async def post_events(body: Annotated[PostedEvents, Body()], services: ServicesDep) -> Response:
    """Store events; after the answer every read sees them. A retry is safe: it is a duplicate."""
    events = body.read(services.latest_event_ms())
    results = await store_events(services.history, events)
    stored = newly_stored(events, results)
    if stored:
        delay_ms = max(0, services.clock() - stored[-1].timestamp_ms)
        services.metrics.event_delay.observe(delay_ms / 1000)
    services.exposures.attribute(stored)
    return answer(results, services.metrics)


async def store_events(history: EventStore, events: Sequence[Event | Rejected]) -> list[Result]:
    """Store what is an event and return what became of each, in the given order."""
    right = [event for event in events if isinstance(event, Event)]
    appended = iter(await history.append(right) if right else ())
    return [
        result_of(event, next(appended))
        if isinstance(event, Event)
        else _rejected(event.event_id, event.error)
        for event in events
    ]


def newly_stored(events: Sequence[Event | Rejected], results: Sequence[Result]) -> list[Event]:
    """Return the events of a batch that were not there before."""
    return [
        event
        for event, result in zip(events, results, strict=True)
        if result["status"] == "accepted" and isinstance(event, Event)
    ]


def result_of(event: Event, appended: Appended) -> Result:
    """Return what became of an event that the store was given."""
    if appended.kind in ("accepted", "duplicate"):
        return {"event_id": event.event_id, "status": appended.kind}
    limit = rfc3339(appended.limit_ms)
    if appended.kind == "expired":
        field, value = "timestamp", rfc3339(event.timestamp_ms)
        fix = f"is before {limit}, and events older than that are not kept; leave it out"
    else:
        field, value = "user_id", event.user_id
        fix = f"was erased at {limit}; events before that are not stored"
    return _rejected(event.event_id, FieldProblem(field=field, value=shown(value), fix=fix))


def answer(results: Sequence[Result], metrics: Metrics) -> Response:
    """Return the answer of a batch, its sums in the metrics too."""
    counts = Counter([result["status"] for result in results])
    for status, number in counts.items():
        metrics.events.labels(status).inc(number)
    sums = {
        "accepted": counts["accepted"],
        "duplicates": counts["duplicate"],
        "rejected": counts["rejected"],
    }
    return Response(to_json(sums | {"results": results}), media_type="application/json")


def _rejected(event_id: str | None, error: FieldProblem) -> Result:
    named = {} if event_id is None else {"event_id": event_id}
    return named | {"status": "rejected", "error": error}
