"""Events: stored in one atomic step each, told apart as accepted, duplicate or rejected."""

from collections import Counter
from collections.abc import Sequence

from fastapi import APIRouter

from service.api.dependencies import EventStore, ServicesDep, problems
from service.api.event_schemas import (
    EventAttempt,
    EventBatch,
    EventBatchResponse,
    EventResult,
    said_event_id,
)
from service.api.timestamps import rfc3339
from service.contract.events import Event
from service.metrics import Metrics
from service.problems import FieldProblem, shown
from service.store.outcomes import Appended

router = APIRouter(tags=["events"])


@router.post("/v1/events", response_model_exclude_none=True, responses=problems(400, 413, 422, 503))
async def post_events(body: EventBatch, services: ServicesDep) -> EventBatchResponse:
    """Store events; after the answer every read sees them. A retry is safe: it is a duplicate."""
    latest_ms = services.latest_event_ms()
    checked = [one.convert(lambda event: event.to_own_event(latest_ms)) for one in body.events]
    results = await store_events(services.history, body.events, checked)
    services.exposures.attribute(newly_stored(checked, results))
    return count_results(results, services.metrics)


async def store_events(
    history: EventStore, attempts: Sequence[EventAttempt], checked: Sequence[Event | FieldProblem]
) -> list[EventResult]:
    """Store the events that are right and return what became of each, in the given order."""
    right = [event for event in checked if isinstance(event, Event)]
    appended = iter(await history.append(right) if right else ())
    results = []
    for attempt, event in zip(attempts, checked, strict=True):
        if isinstance(event, FieldProblem):
            rejected = EventResult(event_id=said_event_id(attempt), status="rejected", error=event)
            results.append(rejected)
        else:
            results.append(result_of(event, next(appended)))
    return results


def newly_stored(
    checked: Sequence[Event | FieldProblem], results: Sequence[EventResult]
) -> list[Event]:
    """Return the events of a batch that were not there before."""
    return [
        event
        for event, result in zip(checked, results, strict=True)
        if isinstance(event, Event) and result.status == "accepted"
    ]


def result_of(event: Event, appended: Appended) -> EventResult:
    """Return what became of an event that the store was given."""
    if appended.kind in ("accepted", "duplicate"):
        return EventResult.model_construct(event_id=event.event_id, status=appended.kind)
    limit = rfc3339(appended.limit_ms)
    if appended.kind == "expired":
        field, value = "timestamp", rfc3339(event.timestamp_ms)
        fix = f"is before {limit}, and events older than that are not kept; leave it out"
    else:
        field, value = "user_id", event.user_id
        fix = f"was erased at {limit}; events before that are not stored"
    error = FieldProblem(field=field, value=shown(value), fix=fix)
    return EventResult.model_construct(event_id=event.event_id, status="rejected", error=error)


def count_results(results: list[EventResult], metrics: Metrics) -> EventBatchResponse:
    """Return the answer of a batch, its sums in the metrics too."""
    counts = Counter(result.status for result in results)
    for status, number in counts.items():
        metrics.events.labels(status).inc(number)
    return EventBatchResponse(
        accepted=counts["accepted"],
        duplicates=counts["duplicate"],
        rejected=counts["rejected"],
        results=results,
    )
