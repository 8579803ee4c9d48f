"""The bodies of the recommendation calls: they refuse unknown fields and convert to a query."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from service.api.event_schemas import (
    MAX_EVENTS_PER_CALL,
    IdText,
    SessionEvent,
    Strict,
    TimestampValue,
    check_event_type,
    only,
)
from service.api.filter_schemas import MAX_CONDITIONS, FilterBody, Place
from service.contract.errors import InvalidField
from service.contract.events import (
    EVENT_TYPES,
    Event,
    ItemId,
    UserId,
    check_coordinates,
    check_id,
    parse_timestamp,
)
from service.contract.exposures import Source
from service.filters import Filter
from service.recommendation import ALL_TYPES, NO_TYPES, Recommendation, RecommendationQuery

MAX_CANDIDATES = 10_000
MAX_K = 500
MAX_TIMESTAMP_DIGITS = 15

# A `+` of an offset that was not percent-encoded arrives as a space.
_SPACE_BEFORE_OFFSET = re.compile(r"(T.*) (\d\d:?\d\d)$")


def _listed(rule: Any) -> Any:
    return [rule] if isinstance(rule, str) else rule


SeenRule = Annotated[
    list[str],
    BeforeValidator(_listed),
    only((str, list), "must be `none`, `all` or a list of event types"),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "enum": ["none", "all"]},
                {"type": "array", "items": {"type": "string", "enum": list(EVENT_TYPES)}},
            ]
        }
    ),
]


class RecommendRequest(Strict):
    """Whom and what to recommend for; without a user or events the answer is what is popular."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"user_id": "anna", "k": 5},
                {
                    "events": [
                        {
                            "item_id": "50",
                            "event_type": "view",
                            "timestamp": "2026-01-31T18:30:00+01:00",
                        }
                    ],
                    "candidates": ["172", "181", "174"],
                    "exclude": ["181"],
                    "exclude_seen": ["purchase"],
                    "now": "2026-01-31T18:35:00+01:00",
                },
            ]
        }
    )
    user_id: IdText | None = None
    events: Annotated[
        list[SessionEvent], Field(max_length=MAX_EVENTS_PER_CALL, default_factory=list)
    ]
    k: int = Field(10, ge=1, le=MAX_K)
    now: TimestampValue | None = None
    place: Place | None = Field(None, description="Where the recommendation is wanted")
    candidates: Annotated[list[IdText], Field(min_length=1, max_length=MAX_CANDIDATES)] | None = (
        Field(None, description="Rank these only; absent ranks the catalogue")
    )
    exclude: Annotated[list[IdText], Field(max_length=MAX_CANDIDATES, default_factory=list)]
    exclude_seen: SeenRule | None = Field(
        None, description="Which events make an item seen; absent: as the bundle says"
    )
    filter: FilterBody | None = Field(
        None, description="Only items of which it is true; what an item does not say is false"
    )

    def to_query(self, latest_ms: int) -> RecommendationQuery:
        """Return what was asked; raises InvalidField."""
        user_id = None if self.user_id is None else check_id("user_id", self.user_id)
        now_ms, tz_offset_min = _parse_now(self.now)
        place = self.place
        return RecommendationQuery(
            k=self.k,
            user_id=None if user_id is None else UserId(user_id),
            events=tuple(self._session_events(user_id or "", latest_ms)),
            now_ms=now_ms,
            tz_offset_min=tz_offset_min,
            lat=place.lat if place else None,
            lon=place.lon if place else None,
            candidates=_checked_ids("candidates", self.candidates),
            exclude=frozenset(_checked_ids("exclude", self.exclude) or ()),
            exclude_seen=_seen_types(self.exclude_seen),
            filter=_checked_filter(self.filter),
        )

    def _session_events(self, user_id: str, latest_ms: int) -> Iterator[Event]:
        for place, body in enumerate(self.events):
            with _inside(f"events.{place}"):
                yield body.to_event(user_id, latest_ms)


class RecommendParams(BaseModel):
    """The query string of a user's recommendations."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    k: int = Field(10, ge=1, le=MAX_K, description="Length of the list")
    now: str | None = Field(
        None,
        description="RFC 3339 with an offset, or ms since 1970; absent: now",
        examples=["2026-01-31T18:35:00+01:00"],
    )
    lat: float | None = Field(None, ge=-90, le=90)
    lon: float | None = Field(None, ge=-180, le=180)
    exclude_seen: list[str] | None = Field(
        None,
        description="`none`, `all`, or event types, repeated or with commas; absent: as the "
        "bundle says",
        examples=[["purchase"]],
    )

    def to_query(self, user_id: str) -> RecommendationQuery:
        """Return what was asked for this user; raises InvalidField."""
        check_coordinates(self.lat, self.lon)
        now_ms, tz_offset_min = _parse_now(self.now)
        return RecommendationQuery(
            k=self.k,
            user_id=UserId(check_id("user_id", user_id)),
            now_ms=now_ms,
            tz_offset_min=tz_offset_min,
            lat=self.lat,
            lon=self.lon,
            exclude_seen=_seen_types(_split(self.exclude_seen)),
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

    @classmethod
    def of(cls, answer: Recommendation) -> "RecommendResponse":
        """Return the body of an answer."""
        return cls(
            recommendation_id=answer.recommendation_id,
            model_version=answer.model_version,
            items=[
                RecommendedItemBody.model_construct(
                    item_id=item.item_id,
                    score=item.score,
                    rank=item.rank,
                    source=item.source,
                    title=item.title,
                )
                for item in answer.items
            ],
            source=answer.source,
            degraded=list(answer.degraded),
            unknown_candidates=list(answer.unknown_candidates),
        )


def _seen_types(names: list[str] | None) -> tuple[str, ...] | None:
    if names is None:
        return None
    if names in (["none"], ["all"]):
        return ALL_TYPES if names == ["all"] else NO_TYPES
    if not names:
        raise InvalidField("exclude_seen", names, "must be `none`, `all` or event types")
    return tuple(check_event_type("exclude_seen", name) for name in names)


def _checked_filter(body: FilterBody | None) -> Filter | None:
    if body is None:
        return None
    count = body.num_conditions()
    if count > MAX_CONDITIONS:
        raise InvalidField("filter", count, f"may have {MAX_CONDITIONS} conditions in all")
    return body.to_filter()


def _split(texts: Sequence[str] | None) -> list[str] | None:
    return None if texts is None else [part for text in texts for part in text.split(",")]


def _checked_ids(field: str, ids: Sequence[str] | None) -> tuple[ItemId, ...] | None:
    if ids is None:
        return None
    return tuple(ItemId(check_id(f"{field}.{place}", text)) for place, text in enumerate(ids))


def _parse_now(value: str | int | None) -> tuple[int | None, int | None]:
    if value is None:
        return None, None
    if isinstance(value, str):
        value = _SPACE_BEFORE_OFFSET.sub(r"\1+\2", value)
        # A query string has no numbers: digits alone are milliseconds.
        is_number = value.isascii() and value.isdigit() and len(value) <= MAX_TIMESTAMP_DIGITS
        value = int(value) if is_number else value
    try:
        return parse_timestamp(value)
    except InvalidField as exc:
        raise InvalidField("now", exc.value, exc.fix) from exc


@contextmanager
def _inside(field: str) -> Iterator[None]:
    try:
        yield
    except InvalidField as exc:
        raise InvalidField(f"{field}.{exc.field}", exc.value, exc.fix) from exc
