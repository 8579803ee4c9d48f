"""What endpoints are given, as Annotated aliases; the only Depends in the project."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

from fastapi import Depends, Request

from service.blend_terms import Blend
from service.catalogue import LiveCatalogue
from service.contract.events import Event
from service.errors import Forbidden
from service.exposures import Exposures
from service.metrics import Metrics
from service.models import ModelRegistry
from service.presence import Presence
from service.problems import Problem
from service.recommender import Recommender
from service.store.breaker import Circuits
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
    catalogue: LiveCatalogue
    models: ModelRegistry
    presence: Presence
    history: EventStore
    exposures: Exposures
    people: People
    circuits: Circuits
    metrics: Metrics
    clock: Callable[[], int]
    max_future_ms: int
    blends: Mapping[str, Blend]

    def latest_event_ms(self) -> int:
        """Return the latest time that an event may have: now, and what clocks differ by."""
        return self.clock() + self.max_future_ms


def services_of(request: Request) -> Services:
    """Return what the lifespan built, for an endpoint that does without Depends."""
    services: Services = request.state.services
    return services


# Async although it waits for nothing: the framework runs others on a thread.
async def _services(request: Request) -> Services:
    return services_of(request)


class GrantedAccess(Protocol):
    """What the guard took a request for, before the framework chose its route."""

    @property
    def method(self) -> str:
        """The method."""
        ...

    @property
    def template(self) -> str:
        """The route's template."""
        ...


def check_access(request: Request) -> None:
    """Refuse a request whose route is not the one that its key was asked for.

    The guard and the framework match paths by themselves; if they ever differ, the door is shut.
    """
    access: GrantedAccess | None = getattr(request.state, "access", None)
    template = getattr(request.scope["route"], "path_format", None)
    if access is None or (access.method, access.template) != (request.method, template):
        raise Forbidden(f"{request.method} {template} has no entry in the table of scopes")


def check_may_see_history(request: Request) -> None:
    """Refuse to tell a user's history, as an explanation does, to a key that may not read it."""
    if request.state.gate is not None and "privacy" not in request.state.scopes:
        raise Forbidden(
            "`explain` for a stored user shows the user's history, for which the key needs the "
            "scope 'privacy' too; explanations of a session's own `events` need `recommend` alone"
        )


async def _check_access(request: Request) -> None:
    check_access(request)


SAME_ROUTE = Depends(_check_access)

ServicesDep = Annotated[Services, Depends(_services)]


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the documentation of an endpoint's problem responses."""
    what = {
        400: "The body is no JSON",
        404: "There is no such model or item; `detail` says where it was looked for",
        409: "The model cannot be served, or there is none before it; nothing was changed",
        410: "The cursor's list is gone; ask for the first page again",
        413: "The body is too large",
        422: "A field is wrong; `errors` says which, and the fix",
        507: "As many items are live as may be",
        503: "Not possible at the moment; `Retry-After` says when to try again",
    }
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {
        status: {"model": Problem, "description": what[status], "content": content}
        for status in statuses
    }
