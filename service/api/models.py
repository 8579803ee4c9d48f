"""Models: which there are, which is served, and switching between them."""

from fastapi import APIRouter

from service.api.dependencies import ServicesDep, problems
from service.api.model_schemas import ModelsResponse, SwitchResponse

router = APIRouter(tags=["models"])


@router.get("/v1/models", responses=problems(503))
async def list_models(services: ServicesDep) -> ModelsResponse:
    """List the bundles that are there, and which of them each process serves."""
    return ModelsResponse.of(await services.models.overview(), await services.presence.all())


@router.post("/v1/models/rollback", responses=problems(404, 409, 503))
async def roll_back(services: ServicesDep) -> SwitchResponse:
    """Serve the model that was active before, on every process; twice changes nothing in all."""
    return SwitchResponse.of(await services.models.roll_back())


@router.post("/v1/models/{version}/activate", responses=problems(404, 409, 422, 503))
async def activate(version: str, services: ServicesDep) -> SwitchResponse:
    """Serve a model on every process, once it has passed its own check; else nothing changes."""
    return SwitchResponse.of(await services.models.activate(version))
