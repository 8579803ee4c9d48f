"""The bodies of what a page needs to know: what is served here, and what items are called."""

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from service.api.event_schemas import IdText, Strict
from service.catalogue import KnownItem
from service.serving_model import ServingModel

MAX_CARDS = 200
# Points enough to show the shape of a city, in 20 kB.
MAX_POINTS = 1_000
# Degrees: 11 m, less than a point on any map of them all.
DECIMALS = 4

_CARD: dict[str, JsonValue] = {
    "item_id": "cafe-7",
    "title": "Café Müller",
    "categories": ["café"],
    "lat": 48.86,
    "lon": 2.35,
}


class AboutBody(Strict):
    """What is served: the model, how many items, and what can be asked of it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model_version": "3f9a1c0d5e7b2a48",
                    "name": "cafés",
                    "num_items": 2,
                    "reads_texts": False,
                    "places": [[48.86, 2.35], [48.85, 2.34]],
                }
            ]
        }
    )
    model_version: str
    name: str
    num_items: int = Field(description="Live ones too")
    reads_texts: bool = Field(description="Whether `query` can be asked")
    places: list[tuple[float, float]] = Field(
        description="Where items are, latitude first: at most 1,000, evenly chosen; [] if unknown"
    )

    @classmethod
    def of(cls, model: ServingModel) -> "AboutBody":
        """Return the body of what is served now."""
        bundle = model.bundle
        lats, lons = bundle.columns.lats, bundle.columns.lons
        known = np.flatnonzero(~(np.isnan(lats) | np.isnan(lons)))
        chosen = known[:: max(1, -(-len(known) // MAX_POINTS))]
        points = np.column_stack([lats[chosen], lons[chosen]]).round(DECIMALS)
        return cls(
            model_version=model.version,
            name=bundle.manifest.name,
            num_items=len(bundle.vocabulary),
            reads_texts=model.texts is not None,
            places=[(lat, lon) for lat, lon in points.tolist()],
        )


class CardsParams(BaseModel):
    """Which items."""

    model_config = ConfigDict(extra="forbid")

    item_id: Annotated[
        list[IdText], Field(min_length=1, max_length=MAX_CARDS, description="Repeated, up to 200")
    ]


class CardBody(Strict):
    """What an item is called and where it is, as a list would show it."""

    model_config = ConfigDict(json_schema_extra={"examples": [_CARD]})
    item_id: str
    title: str | None
    categories: list[str]
    lat: float | None
    lon: float | None


class CardsResponse(Strict):
    """The items that are known, in the order of the request; others are left out."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"items": [_CARD]}]})
    items: list[CardBody]

    @classmethod
    def of(cls, found: Sequence[KnownItem]) -> "CardsResponse":
        """Return the body of items."""
        return cls(
            items=[
                CardBody(
                    item_id=one.item.item_id,
                    title=one.item.title,
                    categories=list(one.item.categories),
                    lat=one.item.lat,
                    lon=one.item.lon,
                )
                for one in found
            ]
        )
