"""The bodies of the recommendation calls: they refuse unknown fields and convert to a query."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, TypedDict, cast

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    WithJsonSchema,
)

from service.api.event_schemas import (
    MAX_EVENTS_PER_CALL,
    IdText,
    SessionEvent,
    Strict,
    TimestampValue,
    check_event_type,
    only,
)
from service.api.filter_schemas import (
    HALF_EARTH_KM,
    MAX_CONDITIONS,
    MAX_OPEN_CONDITIONS,
    FilterBody,
    Place,
)
from service.api.list_schemas import (
    DiversityBody,
    ExplorationBody,
    OnboardingBody,
    RotationBody,
    parse_cursor,
    to_arrangement,
)
from service.contract.errors import InvalidField
from service.contract.events import (
    EVENT_TYPES,
    Event,
    ItemId,
    UserId,
    check_coordinates,
    check_id,
    check_ids,
    parse_timestamp,
)
from service.filters import Filter, GeoRadius
from service.recommendation import ALL_TYPES, NO_TYPES, PageQuery, RecommendationQuery
from service.text_match import TextQuery

MAX_CANDIDATES = 10_000
MAX_K = 500
MAX_TIMESTAMP_DIGITS = 15
MAX_QUERY_CHARS = 512
DEFAULT_QUERY_WEIGHT = 0.5

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


class AskingFields(TypedDict):
    """The fields of `Asking`, by name."""

    user_id: UserId | None
    events: tuple[Event, ...]
    now_ms: int | None
    tz_offset_min: int | None
    lat: float | None
    lon: float | None


class RequestPlace(Place):
    """Where a request is; with a radius nothing further away is shown."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"lat": 48.8566, "lon": 2.3522, "radius_km": 5}]}
    )
    radius_km: float | None = Field(None, gt=0, le=HALF_EARTH_KM)


class AskingBody(Strict):
    """Who asks, when and where."""

    user_id: IdText | None = None
    events: Annotated[
        list[SessionEvent], Field(max_length=MAX_EVENTS_PER_CALL, default_factory=list)
    ]
    now: TimestampValue | None = None
    place: RequestPlace | None = Field(None, description="Where the recommendation is wanted")

    def asking(self, latest_ms: int) -> AskingFields:
        """Return the fields of `Asking`; raises InvalidField."""
        user_id = None if self.user_id is None else check_id("user_id", self.user_id)
        now_ms, tz_offset_min = _parse_now(self.now)
        return AskingFields(
            user_id=None if user_id is None else UserId(user_id),
            events=tuple(self._session_events(user_id or "", latest_ms)),
            now_ms=now_ms,
            tz_offset_min=tz_offset_min,
            lat=self.place.lat if self.place else None,
            lon=self.place.lon if self.place else None,
        )

    def _session_events(self, user_id: str, latest_ms: int) -> Iterator[Event]:
        for place, body in enumerate(self.events):
            with _inside(f"events.{place}"):
                yield body.to_event(user_id, latest_ms)


class RecommendRequest(AskingBody):
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
    k: int = Field(10, ge=1, le=MAX_K)
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
    include: Annotated[
        list[IdText],
        Field(
            max_length=MAX_K,
            default_factory=list,
            description="These get a place, seen or not, whatever the filter says",
        ),
    ]
    onboarding: OnboardingBody | None = Field(None, description="What a new user says to like")
    query: (
        Annotated[
            str,
            StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_QUERY_CHARS),
            Field(json_schema_extra={"pattern": r"\S"}),
        ]
        | None
    ) = Field(None, description="Words that the items are to match")
    query_weight: float | None = Field(
        None, ge=0, le=1, description="How much of the score is for the words: 1/2 if absent"
    )
    diversity: DiversityBody | None = None
    rotation: RotationBody | None = None
    exploration: ExplorationBody | None = None
    explain: bool = Field(False, description="Say of every item why it is in the list")
    attention: bool = Field(
        False, description="With `explain`: where the model looked, which is no cause"
    )
    paginate: bool = Field(False, description="Keep the list, for `next_cursor`")
    cursor: Annotated[str, Field(max_length=64)] | None = Field(
        None, description="A `next_cursor`; goes with `user_id` and `k` alone"
    )

    def to_query(self, latest_ms: int) -> RecommendationQuery | PageQuery:
        """Return what was asked; raises InvalidField."""
        if self.cursor is not None:
            return self._to_page(self.cursor)
        if self.attention and not self.explain:
            raise InvalidField("attention", True, "goes with `explain`: send `explain: true` too")
        liked = self.onboarding.items if self.onboarding else ()
        listed = self.candidates
        return RecommendationQuery(
            k=self.k,
            candidates=None if listed is None else _checked_ids("candidates", listed),
            exclude=frozenset(_checked_ids("exclude", self.exclude)),
            exclude_seen=_seen_types(self.exclude_seen),
            filter=_within(self.place, _checked_filter(self.filter)),
            include=_checked_ids("include", self.include),
            liked=_checked_ids("onboarding.items", liked),
            categories=tuple(self.onboarding.categories) if self.onboarding else (),
            text=self._text(),
            arrangement=to_arrangement(self.diversity, self.rotation, self.exploration),
            paginate=self.paginate,
            explain=self.explain,
            attention=self.attention,
            **self.asking(latest_ms),
        )

    def _text(self) -> TextQuery | None:
        """Return the words of the request; raises InvalidField for a weight of no words."""
        if self.query is None:
            if self.query_weight is not None:
                raise InvalidField("query_weight", self.query_weight, "goes with `query`")
            return None
        weight = DEFAULT_QUERY_WEIGHT if self.query_weight is None else self.query_weight
        return TextQuery(check_id("query", self.query, MAX_QUERY_CHARS), weight)

    def _to_page(self, cursor: str) -> PageQuery:
        """Return the next page's query; what the first page fixed cannot be said again."""
        more = sorted(self.model_fields_set - {"cursor", "user_id", "k"})
        if more:
            fix = (
                "cannot go with `cursor`, whose list is made already; send `user_id` and `k` alone"
            )
            raise InvalidField(more[0], getattr(self, more[0]), fix)
        recommendation_id, offset = parse_cursor(cursor)
        user_id = None if self.user_id is None else UserId(check_id("user_id", self.user_id))
        return PageQuery(recommendation_id, offset, self.k, user_id)


class RecommendParams(BaseModel):
    """The query string of a user's recommendations."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

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
    explain: bool = Field(False, description="Say of every item why it is in the list")

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
            explain=self.explain,
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
    num_open = body.num_open_conditions()
    if num_open > MAX_OPEN_CONDITIONS:
        fix = f"may have {MAX_OPEN_CONDITIONS} `is_open_at` in all"
        raise InvalidField("filter", num_open, fix)
    return body.to_filter()


def _within(place: RequestPlace | None, filter_: Filter | None) -> Filter | None:
    """Return the filter, and within the place's radius if it has one."""
    if place is None or place.radius_km is None:
        return filter_
    circle = GeoRadius(place.lat, place.lon, place.radius_km)
    return Filter(must=(circle,) if filter_ is None else (circle, filter_))


def _split(texts: Sequence[str] | None) -> list[str] | None:
    return None if texts is None else [part for text in texts for part in text.split(",")]


def _checked_ids(field: str, ids: Sequence[str]) -> tuple[ItemId, ...]:
    """Return ids, whose lengths the schema has checked; raises InvalidField."""
    if not ids:
        return ()
    check_ids(field, ids)
    # To call the type for each of 500 would take longer than all that is done with them here.
    return cast("tuple[ItemId, ...]", tuple(ids))


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
