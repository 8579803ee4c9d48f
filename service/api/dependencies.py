"""What endpoints are given, as Annotated aliases; the only Depends in the project."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

from fastapi import Depends, Request

from service.contract.events import Event
from service.metrics import Metrics
from service.problems import Problem
from service.recommender import Recommender
from service.store.outcomes import Appended, Erased, Merged
from service.store.people_codec import Held, HeldEvent


class EventStore(Protocol):
    """Stores events and says whether it answers; both raise StoreUnavailable."""

    async def append(self, events: Sequence[Event]) -> list[Appended]:
        """Store events; say of each what became of it."""
        ...

    async def ping(self) -> Any:
        """Return if the store answers."""
        ...


class People(Protocol):
    """Shows, forgets and joins what is held of users; all raise StoreUnavailable."""

    async def held(self, user_id: str) -> Held:
        """Return everything that is held of a user."""
        ...

    async def events(self, user_id: str) -> tuple[HeldEvent, ...]:
        """Return a user's history, oldest first."""
        ...

    async def erase(self, user_id: str) -> Erased:
        """Forget a user."""
        ...

    async def merge(self, from_user_id: str, into_user_id: str) -> Merged:
        """Give one user's history to another one and forget the first; raises UserChanging."""
        ...


@dataclass(frozen=True, slots=True)
class Services:
    """What the lifespan built, for one running application."""

    recommender: Recommender
    history: EventStore
    people: People
    metrics: Metrics
    clock: Callable[[], int]
    max_future_ms: int
    model_version: str

    def latest_event_ms(self) -> int:
        """Return the latest time that an event may have: now, and what clocks differ by."""
        return self.clock() + self.max_future_ms


# Async although it waits for nothing: the framework runs others on a thread.
async def _services(request: Request) -> Services:
    services: Services = request.state.services
    return services


ServicesDep = Annotated[Services, Depends(_services)]


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the documentation of an endpoint's problem responses."""
    what = {
        400: "The body is no JSON",
        413: "The body is too large",
        422: "A field is wrong; `errors` says which, and the fix",
        503: "Not possible at the moment; `Retry-After` says when to try again",
    }
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {
        status: {"model": Problem, "description": what[status], "content": content}
        for status in statuses
    }
