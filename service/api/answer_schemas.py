"""The answers of the recommendation calls."""

from collections.abc import Sequence
from typing import Any

from pydantic import ConfigDict, Field
from pydantic_core import to_json
from starlette.responses import Response

from service.api.event_schemas import Strict
from service.api.list_schemas import cursor_text
from service.api.timestamps import rfc3339
from service.contract.exposures import Source
from service.recommendation import (
    Explanation,
    ItemExplanation,
    PastEvent,
    Recommendation,
    RecommendedItem,
)

JSON = "application/json"
EXAMPLE_EVENT: dict[str, Any] = {
    "item_id": "50",
    "event_type": "view",
    "timestamp": "2026-01-30T20:00:00.000Z",
}
EXAMPLE_BECAUSE: dict[str, Any] = {**EXAMPLE_EVENT, "position": 0, "contribution": 4.2}


class PastEventBody(Strict):
    """An event of the history that was examined."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE_EVENT]})
    item_id: str
    title: str | None = None
    event_type: str
    timestamp: str


class BecauseBody(PastEventBody):
    """One of the events that speak most for an item; `position` is its place in the history."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE_BECAUSE]})
    position: int
    contribution: float


class ItemExplanationBody(Strict):
    """Why the model scored an item so; the shares add up to its score."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "shares": {"base": 0.9, "history": 6.4},
                    "events": [4.2],
                    "because": [EXAMPLE_BECAUSE],
                }
            ]
        }
    )
    shares: dict[str, float] = Field(description="`base`, `history`, `time`, `place`, ...")
    events: list[float] = Field(
        description="Of each event of the history: the score less the score without the event"
    )
    because: list[BecauseBody]


class ExplanationBody(Strict):
    """What the items' explanations speak of; docs/explanations.md says what is true of it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "method": "leave-one-out",
                    "history": [EXAMPLE_EVENT],
                    "num_events": 1,
                    "unknown": [],
                }
            ]
        }
    )
    method: str
    history: list[PastEventBody] = Field(description="The newest events, oldest first")
    num_events: int = Field(description="How many events the model read")
    unknown: list[str] = Field(description="What this bundle cannot tell")
    attention: list[list[list[list[float]]]] | None = Field(
        None, description="By layer, head, query and key among the events of `history`"
    )


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
    explanation: ItemExplanationBody | None = Field(
        None, description="With `explain`: null if the item is not the model's"
    )
    reason: str | None = Field(None, description="With `explain`: the same in one sentence")


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
        "`all-seen`: all was seen, so seen items are shown; `explanation`: without reasons"
    )
    unknown_candidates: list[str] = Field(description="Candidates that the bundle does not know")
    explanation: ExplanationBody | None = Field(
        None, description="With `explain`: null if no item is the model's, or it was too late"
    )
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
    if answer.explained:
        history = answer.explanation.history if answer.explanation else ()
        document["explanation"] = _explanation_document(answer.explanation)
        for body, item in zip(document["items"], answer.items, strict=True):
            body["explanation"] = _why_document(item.explanation, history)
            body["reason"] = item.reason
    if answer.next_page is not None:
        document["next_cursor"] = cursor_text(*answer.next_page)
    return Response(to_json(document), media_type=JSON)


def _explanation_document(explanation: Explanation | None) -> dict[str, Any] | None:
    """Return an `ExplanationBody` as JSON has it."""
    if explanation is None:
        return None
    return {
        "method": "leave-one-out",
        "history": [_event_document(event) for event in explanation.history],
        "num_events": explanation.num_events,
        "unknown": explanation.unknown,
        "attention": explanation.attention,
    }


def _why_document(
    why: ItemExplanation | None, history: Sequence[PastEvent]
) -> dict[str, Any] | None:
    """Return an `ItemExplanationBody` as JSON has it."""
    if why is None:
        return None
    because = [
        {"position": place, **_event_document(history[place]), "contribution": why.events[place]}
        for place in why.because
    ]
    return {"shares": why.shares, "events": why.events, "because": because}


def _event_document(event: PastEvent) -> dict[str, Any]:
    # Histories keep an unknown offset as 0.
    return {
        "item_id": event.item_id,
        "title": event.title,
        "event_type": event.event_type,
        "timestamp": rfc3339(event.timestamp_ms, event.tz_offset_min or None),
    }


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
