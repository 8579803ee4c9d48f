"""The catalogue: say something of items, read them, let them go, find similar ones."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from service.api.about_schemas import AboutBody, CardsParams, CardsResponse
from service.api.answer_schemas import SimilarResponse, similar_response
from service.api.dependencies import Services, ServicesDep, problems
from service.api.item_schemas import (
    ItemBatch,
    ItemBatchResponse,
    ItemBody,
    ItemResult,
    ItemView,
    NamedItemBody,
)
from service.api.paths import ITEM
from service.contract.events import check_id
from service.problems import FieldProblem
from service.store.catalogue import ItemChange

router = APIRouter(tags=["catalogue"])
MAX_SIMILAR = 500


@router.get(
    ITEM + "/similar",
    response_model=SimilarResponse,
    responses=problems(404, 422),
)
async def similar_items(
    item_id: str, services: ServicesDep, k: Annotated[int, Query(ge=1, le=MAX_SIMILAR)] = 10
) -> Response:
    """Return the items that are most like one."""
    return similar_response(item_id, await services.catalogue.similar(item_id, k))


@router.get("/v1/about")
async def about(services: ServicesDep) -> AboutBody:
    """Say what is served here, for a page that shows it."""
    return AboutBody.of(services.catalogue.model)


@router.get("/v1/items", responses=problems(422))
async def list_cards(
    params: Annotated[CardsParams, Query()], services: ServicesDep
) -> CardsResponse:
    """Return the titles, categories and places of several items; unknown ones are left out."""
    return CardsResponse.of(services.catalogue.items(params.item_id))


@router.put(ITEM, responses=problems(400, 413, 422, 503, 507))
async def put_item(item_id: str, body: ItemBody, services: ServicesDep) -> ItemView:
    """Say what an item is, in place of what was said before; it can be recommended at once."""
    change = ItemChange(check_id("item_id", item_id), body.said(), replaces=True)
    await services.catalogue.change([change])
    return ItemView.of(services.catalogue.item(item_id))


@router.post(
    "/v1/items", response_model_exclude_none=True, responses=problems(400, 413, 422, 503, 507)
)
async def post_items(body: ItemBatch, services: ServicesDep) -> ItemBatchResponse:
    """Say something of several items, beside what was said before; each is right by itself."""
    checked = [attempt.convert(NamedItemBody.to_change) for attempt in body.items]
    return await store_items(checked, services)


@router.get(ITEM, responses=problems(404, 422))
async def get_item(item_id: str, services: ServicesDep) -> ItemView:
    """Return an item as it is served."""
    return ItemView.of(services.catalogue.item(item_id))


@router.delete(ITEM, status_code=204, responses=problems(404, 422, 503, 507))
async def delete_item(item_id: str, services: ServicesDep) -> Response:
    """Let an item be no more: shown to nobody until something is said of it again."""
    await services.catalogue.delete(check_id("item_id", item_id))
    return Response(status_code=204)


async def store_items(
    checked: list[ItemChange | FieldProblem], services: Services
) -> ItemBatchResponse:
    """Store the changes that are right and return what became of each, in the given order."""
    right = [change for change in checked if isinstance(change, ItemChange)]
    if right:
        await services.catalogue.change(right)
    results = [
        ItemResult(item_id=one.item_id, status="accepted")
        if isinstance(one, ItemChange)
        else ItemResult(status="rejected", error=one)
        for one in checked
    ]
    return ItemBatchResponse(
        accepted=len(right), rejected=len(checked) - len(right), results=results
    )
