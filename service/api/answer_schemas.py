"""The answers of the recommendation calls."""

from collections.abc import Sequence
from typing import Any

from pydantic import ConfigDict, Field
from pydantic_core import to_json
from starlette.responses import Response

from service.api.event_schemas import Strict
from service.api.list_schemas import cursor_text
from service.contract.exposures import Source
from service.recommendation import Recommendation, RecommendedItem

JSON = "application/json"


class RecommendedItemBody(Strict):
    """One recommended item; `rank` orders it, scores compare only within source "model"."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"item_id": "172", "score": 7.31, "rank": 1, "source": "model"}]
        }
    )
    item_id: str
    score: float
    rank: int
    source: Source
    title: str | None = None
    propensity: float | None = Field(
        None, description="With exploration: how probable this item was at this place"
    )
    parts: dict[str, float] | None = Field(
        None, description="With `explain`: what each term of the blend added to the score"
    )


class SimilarResponse(Strict):
    """The items most like one, best first."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "item_id": "50",
                    "items": [{"item_id": "172", "score": 0.93, "rank": 1, "source": "similar"}],
                }
            ]
        }
    )
    item_id: str
    items: list[RecommendedItemBody]


class RecommendResponse(Strict):
    """The list, best first, and what was missing while it was made."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "recommendation_id": "0b2f6c1e9d5a4c1c8a9b7f3e2d1c0b9a",
                    "model_version": "3f9a1c0d5e7b2a48",
                    "items": [
                        {
                            "item_id": "172",
                            "score": 7.31,
                            "rank": 1,
                            "source": "model",
                            "title": "Empire Strikes Back, The (1980)",
                        }
                    ],
                    "source": "model",
                    "degraded": [],
                    "unknown_candidates": [],
                }
            ]
        }
    )
    recommendation_id: str = Field(description="Send it back with the events it led to")
    model_version: str
    items: list[RecommendedItemBody]
    source: Source | None = Field(None, description="The first item's source")
    degraded: list[str] = Field(
        description="`redis`: without the stored history; `model`: without the model; "
        "`all-seen`: all was seen, so seen items are shown"
    )
    unknown_candidates: list[str] = Field(description="Candidates that the bundle does not know")
    next_cursor: str | None = Field(
        None, description="With `paginate`: send it back for what follows; absent at the end"
    )


def similar_response(item_id: str, items: Sequence[RecommendedItem]) -> Response:
    """Return the response of the items most like one, a `SimilarResponse`."""
    document = {"item_id": item_id, "items": [_item_document(item) for item in items]}
    return Response(to_json(document), media_type=JSON)


def answer_response(answer: Recommendation) -> Response:
    """Return the response of an answer, a `RecommendResponse` without fields that are None.

    Made straight from what was computed: to build the model, check it and dump it again takes
    longer than the ranking.
    """
    document: dict[str, Any] = {
        "recommendation_id": answer.recommendation_id,
        "model_version": answer.model_version,
        "items": [_item_document(item, explores=answer.explores) for item in answer.items],
        "degraded": answer.degraded,
        "unknown_candidates": answer.unknown_candidates,
    }
    if answer.source is not None:
        document["source"] = answer.source
    if answer.next_page is not None:
        document["next_cursor"] = cursor_text(*answer.next_page)
    return Response(to_json(document), media_type=JSON)


def _item_document(item: RecommendedItem, *, explores: bool = False) -> dict[str, Any]:
    """Return a `RecommendedItemBody` as JSON has it, without fields that are None."""
    document: dict[str, Any] = {
        "item_id": item.item_id,
        "score": item.score,
        "rank": item.rank,
        "source": item.source,
    }
    if item.title is not None:
        document["title"] = item.title
    if explores:
        document["propensity"] = item.propensity
    if item.parts is not None:
        document["parts"] = item.parts
    return document
