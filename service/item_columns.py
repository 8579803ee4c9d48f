"""What items say of themselves, turned into columns by item index, for filters to look at."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from service.contract.features import Int64s
from service.contract.items import Item

Mask: TypeAlias = NDArray[np.bool_]
Float64s: TypeAlias = NDArray[np.float64]
# What items can be matched by, besides numbers.
Term: TypeAlias = str | bool

CATEGORIES = "categories"
RELEASED_AT = "released_at"
ATTRIBUTES = "attributes."
# The mean radius of the Earth, IUGG.
EARTH_RADIUS_KM = 6371.0088


@dataclass(frozen=True, slots=True)
class TermColumn:
    """The items of each term, and the terms of each item.

    Place t, of `places`, has `items[starts[t] : starts[t + 1]]`; `by_item` are all pairs again,
    (2, num_pairs): items in ascending order, and the place of the term that each has.
    """

    places: Mapping[Term, int]
    starts: Int64s
    items: Int64s
    by_item: Int64s

    def items_of(self, term: Term) -> Int64s:
        """Return the indices of the items that have a term, ascending."""
        # True equals 1 as a key, but no number is ever a term.
        place = self.places.get(term)
        if place is None:
            return self.items[:0]
        return self.items[self.starts[place] : self.starts[place + 1]]

    def places_of(self, indices: Int64s) -> list[frozenset[int]]:
        """Return the places of each item's terms, none of an item that has none."""
        items, places = self.by_item
        firsts = np.searchsorted(items, indices, "left")
        lasts = np.searchsorted(items, indices, "right")
        return [
            frozenset(places[first:last].tolist())
            for first, last in zip(firsts.tolist(), lasts.tolist(), strict=True)
        ]


@dataclass(frozen=True, slots=True)
class ItemColumns:
    """Columns of `num_items` items, element 0 of each being padding and unknown.

    `terms` and `numbers` are by key: `categories`, `released_at` in ms, and `attributes.` with a
    name; numbers, `lats` and `lons` are (num_items + 1,) float64, NaN where unknown. Item i has
    the opening hours `hours[hours_of[i]]`, "" where unknown.
    """

    num_items: int
    terms: Mapping[str, TermColumn]
    numbers: Mapping[str, Float64s]
    lats: Float64s
    lons: Float64s
    hours: tuple[str, ...]
    hours_of: Int64s

    @classmethod
    def of(cls, items: Sequence[Item]) -> "ItemColumns":
        """Return the columns of items, the first of which has the index 1."""
        terms: defaultdict[str, defaultdict[Term, list[int]]] = defaultdict(
            lambda: defaultdict(list)
        )
        numbers: dict[str, Float64s] = {}
        hours = {"": 0}
        hours_of = np.zeros(len(items) + 1, np.int64)
        for index, item in enumerate(items, start=1):
            for key, values in _terms_of(item):
                for value in values:
                    terms[key][value].append(index)
            for key, number in _numbers_of(item):
                if key not in numbers:
                    numbers[key] = np.full(len(items) + 1, np.nan)
                numbers[key][index] = number
            hours_of[index] = hours.setdefault(item.opening_hours or "", len(hours))
        return cls(
            num_items=len(items),
            terms={key: _term_column(column) for key, column in terms.items()},
            numbers=numbers,
            lats=_coordinates([item.lat for item in items]),
            lons=_coordinates([item.lon for item in items]),
            hours=tuple(hours),
            hours_of=hours_of,
        )

    def distances_km(self, lat: float, lon: float) -> Float64s:
        """Return haversine distances to a point, (num_items + 1,), NaN where either is unknown.

        The Earth is taken for a sphere, which is wrong by at most .6 %.
        """
        lats, lons = np.radians(self.lats), np.radians(self.lons)
        half = np.sin((lats - np.radians(lat)) / 2) ** 2
        half += np.cos(lats) * np.cos(np.radians(lat)) * np.sin((lons - np.radians(lon)) / 2) ** 2
        distances: Float64s = 2 * EARTH_RADIUS_KM * np.arcsin(np.sqrt(np.minimum(half, 1.0)))
        return distances


def _terms_of(item: Item) -> list[tuple[str, Sequence[Term]]]:
    """Return what the item is matched by, each term once."""
    found: list[tuple[str, Sequence[Term]]] = [(CATEGORIES, tuple(dict.fromkeys(item.categories)))]
    for name, value in item.attributes.items():
        if isinstance(value, tuple):
            found.append((ATTRIBUTES + name, tuple(dict.fromkeys(value))))
        elif isinstance(value, str | bool):
            found.append((ATTRIBUTES + name, (value,)))
    return found


def _numbers_of(item: Item) -> list[tuple[str, float]]:
    found = [
        (ATTRIBUTES + name, value)
        for name, value in item.attributes.items()
        if isinstance(value, float)
    ]
    if item.released_at_ms is not None:
        found.append((RELEASED_AT, float(item.released_at_ms)))
    return found


def _term_column(items_of: Mapping[Term, Sequence[int]]) -> TermColumn:
    lengths = [0, *(len(items) for items in items_of.values())]
    flat = [index for items in items_of.values() for index in items]
    places = {term: place for place, term in enumerate(items_of)}
    items = np.array(flat, np.int64)
    order = np.argsort(items, kind="stable")
    place_of = np.repeat(np.arange(len(places)), lengths[1:])
    by_item = np.stack([items[order], place_of[order]])
    return TermColumn(places, np.cumsum(lengths), items, by_item)


def _coordinates(values: Sequence[float | None]) -> Float64s:
    return np.array([np.nan, *(np.nan if value is None else value for value in values)])
