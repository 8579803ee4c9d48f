"""The body of a filter: it refuses what has no meaning and converts to conditions."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from service.api.event_schemas import Strict, TimestampValue, only
from service.contract.errors import InvalidField
from service.contract.events import parse_timestamp
from service.filters import Condition, Filter, GeoRadius, Match, OpenAt, Range
from service.item_columns import ATTRIBUTES, CATEGORIES, RELEASED_AT

MAX_CONDITIONS = 200
# Each asks every distinct text of opening hours, some microseconds for one.
MAX_OPEN_CONDITIONS = 8
MAX_DEPTH = 8
MAX_MATCH_VALUES = 1_000
MAX_KEY_CHARS = 80
HALF_EARTH_KM = 20_016.0
KINDS = ("match", "range", "geo_radius", "is_open_at")

MatchValue = Annotated[
    str | float | bool,
    only((str, int, float, bool), "must be a text, a number, true or false"),
]
ListedValue = Annotated[
    str | float | bool,
    only((str, int, float, bool), "must be a text, a number, true or false", or_null=False),
]
MatchValues = Annotated[list[ListedValue], Field(min_length=1, max_length=MAX_MATCH_VALUES)]
Bound = Annotated[
    float | str,
    only((int, float, str), "must be a number, or for `released_at` a timestamp"),
]


class MatchBody(Strict):
    """One of the three: the item has the value, any of the values, or another one."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"any": ["Comedy", "Drama"]}]})
    value: MatchValue | None = None
    any: MatchValues | None = None
    but: MatchValues | None = Field(None, alias="except")

    def to_match(self, key: str) -> Match:
        """Return the condition; raises InvalidField unless one of the three is given."""
        given = [kind for kind in (self.value, self.any, self.but) if kind is not None]
        if len(given) != 1:
            raise InvalidField("match", len(given), "must have one of `value`, `any`, `except`")
        values = given[0] if isinstance(given[0], list) else [given[0]]
        return Match(key, tuple(_term_or_number(value) for value in values), self.but is not None)


class RangeBody(Strict):
    """Bounds of a number, or of `released_at`, whose bounds are timestamps; at least one."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"gte": 5, "lt": 20}]})
    gt: Bound | None = None
    gte: Bound | None = None
    lt: Bound | None = None
    lte: Bound | None = None

    def to_range(self, key: str) -> Range:
        """Return the condition; raises InvalidField for bounds that do not fit the key."""
        bounds = {name: value for name, value in self.model_dump().items() if value is not None}
        if not bounds:
            raise InvalidField("range", None, "must have one of `gt`, `gte`, `lt`, `lte`")
        return Range(key, **{name: _bound(key, name, value) for name, value in bounds.items()})


class Place(Strict):
    """A point on the Earth, WGS 84 degrees."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"lat": 48.8566, "lon": 2.3522}]})
    lat: float = Field(ge=-90, le=90)
    lon: float = Field(ge=-180, le=180)


class GeoRadiusBody(Strict):
    """A circle on the Earth."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"center": {"lat": 48.8566, "lon": 2.3522}, "radius_km": 5}]
        }
    )
    center: Place
    radius_km: float = Field(gt=0, le=HALF_EARTH_KM)


Conditions = Annotated[
    list["ConditionBody"], Field(max_length=MAX_CONDITIONS, default_factory=list)
]


class FilterBody(Strict):
    """All of `must`, at least one of `should` if there are any, none of `must_not`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "must": [
                        {"key": "categories", "match": {"any": ["Comedy", "Drama"]}},
                        {"key": "attributes.price", "range": {"lt": 20}},
                    ],
                    "must_not": [{"key": "attributes.brand", "match": {"value": "Acme"}}],
                }
            ]
        }
    )
    must: Conditions
    should: Conditions
    must_not: Conditions

    def to_filter(self, field: str = "filter", depth: int = 1) -> Filter:
        """Return the filter; raises InvalidField naming the condition that is wrong."""
        if depth > MAX_DEPTH:
            raise InvalidField(field, depth, f"is nested deeper than {MAX_DEPTH} levels")
        return Filter(
            **{
                part: tuple(
                    body.to_condition(f"{field}.{part}.{place}", depth)
                    for place, body in enumerate(getattr(self, part))
                )
                for part in ("must", "should", "must_not")
            }
        )

    def num_conditions(self) -> int:
        """Return how many conditions there are at all depths."""
        return sum(1 + body.num_conditions() for body in self._bodies())

    def num_open_conditions(self) -> int:
        """Return how many of them ask opening hours."""
        return sum(body.num_open_conditions() for body in self._bodies())

    def _bodies(self) -> Iterator["ConditionBody"]:
        yield from self.must
        yield from self.should
        yield from self.must_not


class ConditionBody(FilterBody):
    """One condition on a key, or a filter inside the filter."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"key": "categories", "match": {"value": "Drama"}}]}
    )
    key: Annotated[str, Field(min_length=1, max_length=MAX_KEY_CHARS)] | None = Field(
        None, description="`categories`, `released_at`, or `attributes.` and a name"
    )
    match: MatchBody | None = None
    range: RangeBody | None = None
    geo_radius: GeoRadiusBody | None = None
    is_open_at: Literal["now"] | TimestampValue | None = Field(
        None, description="`now` is the request's time; open in the place's local time"
    )

    def num_open_conditions(self) -> int:
        """Return how many ask opening hours, this one included."""
        return FilterBody.num_open_conditions(self) + (self.is_open_at is not None)

    def to_condition(self, field: str, depth: int) -> Condition:
        """Return the condition; raises InvalidField unless it is exactly one thing."""
        kinds = [kind for kind in KINDS if getattr(self, kind) is not None]
        nested = any(True for _ in self._bodies())
        if len(kinds) + nested != 1:
            what = f"must be one of {', '.join(KINDS)}, or a filter with conditions"
            raise InvalidField(field, kinds, what)
        if nested:
            return self.to_filter(field, depth + 1)
        try:
            return self._simple(kinds[0])
        except InvalidField as exc:
            raise InvalidField(f"{field}.{exc.field}", exc.value, exc.fix) from exc

    def _simple(self, kind: str) -> Condition:
        if self.match is not None:
            return self.match.to_match(_key(self.key, (CATEGORIES,)))
        if self.range is not None:
            return self.range.to_range(_key(self.key, (RELEASED_AT,)))
        if self.key is not None:
            raise InvalidField("key", self.key, f"must be left out of {kind}")
        if self.geo_radius is not None:
            circle = self.geo_radius
            return GeoRadius(circle.center.lat, circle.center.lon, circle.radius_km)
        return _open_at(self.is_open_at)


def _key(key: str | None, names: tuple[str, ...]) -> str:
    if key in names or (key and key.startswith(ATTRIBUTES) and key != ATTRIBUTES):
        return str(key)
    raise InvalidField("key", key, f"must be {', '.join(names)} or `{ATTRIBUTES}` and a name")


def _term_or_number(value: Any) -> str | bool | float:
    return value if isinstance(value, str | bool) else float(value)


def _bound(key: str, name: str, value: float | str) -> float:
    if key != RELEASED_AT:
        if isinstance(value, str):
            raise InvalidField(f"range.{name}", value, "must be a number")
        return float(value)
    try:
        # Milliseconds are whole; a float such as 1e12 is one too.
        whole = value if isinstance(value, str) else int(value)
        return float(parse_timestamp(whole)[0])
    except InvalidField as exc:
        raise InvalidField(f"range.{name}", exc.value, exc.fix) from exc


def _open_at(value: str | int | None) -> OpenAt:
    if value is None or value == "now":
        return OpenAt()
    try:
        time_ms, offset = parse_timestamp(value)
    except InvalidField as exc:
        raise InvalidField("is_open_at", exc.value, exc.fix) from exc
    return OpenAt(time_ms, offset)
