"""The bodies of the catalogue's calls."""

from collections.abc import Mapping
from typing import Annotated, Any, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from service.api.attempts import Attempt
from service.api.event_schemas import IdText, Strict, TimestampValue
from service.catalogue import KnownItem
from service.contract.errors import InvalidField
from service.contract.events import check_coordinates, check_id, parse_timestamp
from service.contract.items import check_attributes
from service.contract.opening import parse_opening_hours
from service.problems import FieldProblem
from service.store.catalogue import ItemChange

MAX_ITEMS_PER_CALL = 1_000
MAX_TITLE_CHARS = 1_000
MAX_TEXT_CHARS = 20_000
MAX_CATEGORIES = 64
MAX_CATEGORY_CHARS = 256
MAX_HOURS_CHARS = 1_000

EXAMPLE: dict[str, JsonValue] = {
    "title": "Café Müller",
    "categories": ["café"],
    "attributes": {"price": 2, "vegan": True},
    "lat": 48.8566,
    "lon": 2.3522,
    "opening_hours": "Mo-Sa 08:00-19:00",
    "available": True,
}


class ItemBody(Strict):
    """What is said of an item. What is left out is as the bundle says; null is not known."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})
    title: Annotated[str, Field(max_length=MAX_TITLE_CHARS)] | None = None
    text: Annotated[str, Field(max_length=MAX_TEXT_CHARS)] | None = None
    categories: (
        Annotated[
            list[Annotated[str, Field(min_length=1, max_length=MAX_CATEGORY_CHARS)]],
            Field(max_length=MAX_CATEGORIES),
        ]
        | None
    ) = None
    attributes: dict[str, Any] | None = Field(
        None, description="Texts, numbers, true or false, or lists of texts, by name"
    )
    lat: float | None = Field(None, ge=-90, le=90)
    lon: float | None = Field(None, ge=-180, le=180)
    opening_hours: Annotated[str, Field(max_length=MAX_HOURS_CHARS)] | None = Field(
        None, description="As OpenStreetMap writes them, in the item's own local time"
    )
    available: bool = Field(True, description="False: shown to nobody until it is true again")
    released_at: TimestampValue | None = None

    def said(self) -> dict[str, Any]:
        """Return the fields that were said, checked, as they are stored; raises InvalidField."""
        self._check()
        fields = {name: getattr(self, name) for name in self.model_fields_set & SAID}
        if "released_at" in fields:
            moment = fields.pop("released_at")
            fields["released_at_ms"] = None if moment is None else _moment_ms(moment)
        return fields

    def _check(self) -> None:
        check_coordinates(self.lat, self.lon)
        if self.attributes is not None:
            check_attributes(self.attributes)
        if self.opening_hours is not None:
            parse_opening_hours(self.opening_hours)
        for name, text in self._texts():
            if text:
                check_id(name, text, MAX_TEXT_CHARS)

    def _texts(self) -> list[tuple[str, str | None]]:
        """Return every text that is stored, with its field."""
        found = [("title", self.title), ("text", self.text)]
        found += [(f"categories.{at}", text) for at, text in enumerate(self.categories or ())]
        for name, value in (self.attributes or {}).items():
            found.append(("attributes", name))
            values = value if isinstance(value, list) else [value]
            found += [(f"attributes.{name}", one) for one in values if isinstance(one, str)]
        return found


SAID = frozenset(ItemBody.model_fields)


class NamedItemBody(ItemBody):
    """One item of several."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"item_id": "cafe-7", **EXAMPLE}]})
    item_id: IdText

    def to_change(self) -> ItemChange:
        """Return what is said beside what was said before; raises InvalidField."""
        return ItemChange(check_id("item_id", self.item_id), self.said(), replaces=False)


ItemAttempt: TypeAlias = Attempt[NamedItemBody]


class ItemBatch(Strict):
    """Items to say something of: what is left out stays as it was said before."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"items": [{"item_id": "cafe-7", "available": False}]}]}
    )
    items: Annotated[list[ItemAttempt], Field(min_length=1, max_length=MAX_ITEMS_PER_CALL)]


class ItemResult(Strict):
    """What became of one item, in the order of the request."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"item_id": "cafe-7", "status": "accepted"}]}
    )
    item_id: str | None = None
    status: str
    error: FieldProblem | None = None


class ItemBatchResponse(Strict):
    """What became of a batch; after it this process serves the items so, others within a second."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "accepted": 1,
                    "rejected": 0,
                    "results": [{"item_id": "cafe-7", "status": "accepted"}],
                }
            ]
        }
    )
    accepted: int
    rejected: int
    results: list[ItemResult]


class ItemView(BaseModel):
    """An item as it is served."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"item_id": "cafe-7", "is_trained": False, **EXAMPLE}]}
    )
    item_id: str
    is_trained: bool = Field(description="The model knows it by its own history")
    available: bool
    title: str | None
    text: str | None
    categories: list[str]
    attributes: dict[str, Any]
    lat: float | None
    lon: float | None
    opening_hours: str | None
    released_at: int | None = Field(description="Milliseconds since 1970, UTC")

    @classmethod
    def of(cls, known: KnownItem) -> "ItemView":
        """Return the body of an item."""
        item = known.item
        return cls(
            item_id=item.item_id,
            is_trained=known.is_trained,
            available=item.available,
            title=item.title,
            text=item.text,
            categories=list(item.categories),
            attributes=_listed(item.attributes),
            lat=item.lat,
            lon=item.lon,
            opening_hours=item.opening_hours,
            released_at=item.released_at_ms,
        )


def _listed(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in attributes.items()
    }


def _moment_ms(value: str | int) -> int:
    try:
        return parse_timestamp(value)[0]
    except InvalidField as exc:
        raise InvalidField("released_at", exc.value, exc.fix) from exc
