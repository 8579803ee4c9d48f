"""What is held of a user: shown, paged through, erased, given to another user."""

from typing import Annotated

from fastapi import APIRouter, Query

from service.api.dependencies import Services, ServicesDep, problems
from service.api.paths import USER
from service.api.user_schemas import (
    ErasureBody,
    EventsPage,
    EventsParams,
    MergeBody,
    MergeRequest,
    UserData,
    UserParams,
)
from service.contract.events import check_id

router = APIRouter(tags=["people"])

# A user id takes all that is left of a path, so the routes with something behind it come first.


@router.post("/v1/users/merge", responses=problems(400, 413, 422, 503))
async def merge_users(body: MergeRequest, services: ServicesDep) -> MergeBody:
    """Give one user's history to another one and erase the first; safe to repeat."""
    users = body.users()
    merged = await services.people.merge(*users)
    services.recommender.forget(users)
    return MergeBody.of(merged)


@router.get("/v1/users", response_model_exclude_unset=True, responses=problems(422, 503))
async def export_any_user(
    params: Annotated[UserParams, Query()], services: ServicesDep
) -> UserData:
    """Return everything that is held of a user; for ids that a path cannot hold."""
    return await _export(params.user_id, services)


@router.delete("/v1/users", responses=problems(422, 503))
async def erase_any_user(
    params: Annotated[UserParams, Query()], services: ServicesDep
) -> ErasureBody:
    """Erase a user; for ids that a path cannot hold."""
    return await _erase(params.user_id, services)


@router.get(USER + "/events", response_model_exclude_unset=True, responses=problems(422, 503))
async def list_events(
    user_id: str, params: Annotated[EventsParams, Query()], services: ServicesDep
) -> EventsPage:
    """Return a part of a user's history, newest first."""
    events = await services.people.events(check_id("user_id", user_id))
    return EventsPage.of(user_id, events, params)


@router.get(USER, response_model_exclude_unset=True, responses=problems(422, 503))
async def export_user(user_id: str, services: ServicesDep) -> UserData:
    """Return everything that is held of a user."""
    return await _export(user_id, services)


@router.delete(USER, responses=problems(422, 503))
async def erase_user(user_id: str, services: ServicesDep) -> ErasureBody:
    """Erase a user completely; events from before are refused from now on. Safe to repeat."""
    return await _erase(user_id, services)


async def _export(user_id: str, services: Services) -> UserData:
    held = await services.people.held(check_id("user_id", user_id))
    return UserData.of(user_id, held, services.clock())


async def _erase(user_id: str, services: Services) -> ErasureBody:
    user = check_id("user_id", user_id)
    erased = await services.people.erase(user)
    services.recommender.forget((user,))
    return ErasureBody.of(erased)
