"""Recommendations: for a stored user, and for whatever a caller sends along."""

from typing import Annotated

from fastapi import APIRouter, Query

from service.api.answer_schemas import RecommendResponse
from service.api.dependencies import ServicesDep, problems
from service.api.paths import USER
from service.api.rank_schemas import RankRequest
from service.api.schemas import RecommendParams, RecommendRequest
from service.recommendation import PageQuery

router = APIRouter(tags=["recommendations"])


@router.get(
    USER + "/recommendations",
    response_model_exclude_none=True,
    responses=problems(422, 503),
)
async def recommend_to_user(
    user_id: str, params: Annotated[RecommendParams, Query()], services: ServicesDep
) -> RecommendResponse:
    """Recommend to a user from the stored history, every event posted until now included."""
    return RecommendResponse.of(await services.recommender.recommend(params.to_query(user_id)))


@router.post(
    "/v1/recommendations",
    response_model_exclude_none=True,
    responses=problems(400, 410, 413, 422, 503),
)
async def recommend(body: RecommendRequest, services: ServicesDep) -> RecommendResponse:
    """Recommend for a stored user, an anonymous session's events, or both; stores no event."""
    query = body.to_query(services.latest_event_ms())
    if isinstance(query, PageQuery):
        return RecommendResponse.of(await services.recommender.page(query))
    return RecommendResponse.of(await services.recommender.recommend(query))


@router.post("/v1/rank", response_model_exclude_none=True, responses=problems(400, 413, 422, 503))
async def rank(body: RankRequest, services: ServicesDep) -> RecommendResponse:
    """Order the caller's candidates by a blend of the model's score and named numbers."""
    query = body.to_query(services.latest_event_ms(), services.blends)
    return RecommendResponse.of(await services.recommender.rank(query))
