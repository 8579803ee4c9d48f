"""Recommendations: for a stored user, and for whatever a caller sends along."""

from fastapi import APIRouter, FastAPI, Request
from starlette.responses import Response

from service.api.answer_schemas import RecommendResponse, answer_response
from service.api.dependencies import ServicesDep, check_may_see_history, problems, services_of
from service.api.direct_routes import BodyRoute, DirectRoute
from service.api.paths import USER
from service.api.query_strings import query_parameters, query_reader
from service.api.rank_schemas import RankRequest
from service.api.schemas import RecommendParams, RecommendRequest
from service.recommendation import PageQuery

router = APIRouter(tags=["recommendations"], route_class=BodyRoute)
read_params = query_reader(RecommendParams, lists={"exclude_seen"})


async def recommend_to_user(request: Request) -> Response:
    """Recommend to a user from the stored history, every event posted until now included."""
    params = read_params(request.scope["query_string"])
    if params.explain:
        check_may_see_history(request)
    query = params.to_query(request.path_params["user_id"])
    return answer_response(await services_of(request).recommender.recommend(query))


def add_to(app: FastAPI) -> None:
    """Add the routes to an application; those asked most first, and to its own router.

    A router that is included is searched in two steps, which takes as long as the route itself.
    """
    app.router.add_api_route(
        USER + "/recommendations",
        recommend_to_user,
        methods=["GET"],
        tags=["recommendations"],
        route_class_override=DirectRoute,
        response_model=RecommendResponse,
        responses=problems(422, 503),
        openapi_extra=query_parameters(RecommendParams, "user_id"),
    )
    app.router.add_api_route(
        "/v1/recommendations",
        recommend,
        methods=["POST"],
        tags=["recommendations"],
        route_class_override=BodyRoute,
        response_model=RecommendResponse,
        responses=problems(400, 410, 413, 422, 503),
    )
    app.include_router(router)


async def recommend(body: RecommendRequest, request: Request, services: ServicesDep) -> Response:
    """Recommend for a stored user, an anonymous session's events, or both; stores no event."""
    if body.explain and body.user_id is not None:
        check_may_see_history(request)
    query = body.to_query(services.latest_event_ms())
    if isinstance(query, PageQuery):
        return answer_response(await services.recommender.page(query))
    return answer_response(await services.recommender.recommend(query))


@router.post("/v1/rank", response_model=RecommendResponse, responses=problems(400, 413, 422, 503))
async def rank(body: RankRequest, services: ServicesDep) -> Response:
    """Order the caller's candidates by a blend of the model's score and named numbers."""
    query = body.to_query(services.latest_event_ms(), services.blends)
    return answer_response(await services.recommender.rank(query))
