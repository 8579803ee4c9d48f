"""Is it alive, is it ready, how is it, and what has it counted."""

from typing import Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict

from service.api.dependencies import Services, ServicesDep
from service.errors import ServiceError

router = APIRouter(tags=["operations"])

NOT_READY_STATUS = 503


class Live(BaseModel):
    """The event loop turns."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"status": "live"}]})
    status: Literal["live"] = "live"


class Readiness(BaseModel):
    """Whether traffic should be sent here, and if not, why not."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"status": "ready", "reasons": []}]})
    status: Literal["ready", "not-ready"]
    reasons: list[str]


class Health(Readiness):
    """The same for people: what is served, and how its parts are."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "status": "not-ready",
                    "reasons": ["redis: Redis did not do 'ping': ConnectionError"],
                    "model_version": "3f9a1c0d5e7b2a48",
                    "model_problems": [],
                    "redis": "unavailable",
                    "redis_breaker": "open",
                }
            ]
        }
    )
    model_version: str
    model_problems: list[str]
    redis: Literal["ok", "unavailable"]
    redis_breaker: Literal["closed", "open", "half-open"]


@router.get("/livez")
async def livez() -> Live:
    """Say that the process turns; touches nothing else, so a dead Redis restarts nobody."""
    return Live()


@router.get("/readyz", responses={NOT_READY_STATUS: {"model": Readiness}})
async def readyz(services: ServicesDep, response: Response) -> Readiness:
    """Say whether the bundle is loaded and checked and Redis answers."""
    health = await check_health(services, response)
    return Readiness(status=health.status, reasons=health.reasons)


@router.get("/healthz", responses={NOT_READY_STATUS: {"model": Health}})
async def healthz(services: ServicesDep, response: Response) -> Health:
    """Say the same as readyz with the parts' state, for people and for compose."""
    return await check_health(services, response)


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(services: ServicesDep) -> Response:
    """Return the Prometheus figures, summed over all workers."""
    text, content_type = services.metrics.render()
    return Response(text, media_type=content_type)


async def check_health(services: Services, response: Response) -> Health:
    """Ask Redis, and set the status of the response; without a bundle there are no services."""
    reasons: list[str] = []
    try:
        await services.history.ping()
    except ServiceError as exc:
        response.status_code = NOT_READY_STATUS
        reasons.append(f"redis: {exc}")
    # A process that cannot follow to another model still answers well with the one it has.
    return Health(
        status="not-ready" if reasons else "ready",
        reasons=reasons,
        model_version=services.models.serving,
        model_problems=list(services.models.problems),
        redis="unavailable" if reasons else "ok",
        redis_breaker=services.circuits.state,
    )
