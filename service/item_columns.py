"""What items say of themselves, turned into columns by item index, for filters to look at."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from service.allowed import without_repeats
from service.contract.features import Int64s
from service.contract.items import Item

Mask: TypeAlias = NDArray[np.bool_]
Float64s: TypeAlias = NDArray[np.float64]
# What items can be matched by, besides numbers.
Term: TypeAlias = str | bool

CATEGORIES = "categories"
RELEASED_AT = "released_at"
ATTRIBUTES = "attributes."
MAX_SHORT = 1 << 16
# The mean radius of the Earth, IUGG.
EARTH_RADIUS_KM = 6371.0088
# A millimetre and more: what rounding may take from a distance that is only one of latitude.
ROUNDING_DEGREES = 1e-7


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

    @classmethod
    def of(cls, terms: Sequence[Term], places: Int64s, items: Int64s) -> "TermColumn":
        """Return the column of pairs: item `items[i]` has the term `terms[places[i]]`.

        A pair may be there several times, and counts once.
        """
        # One number for a pair: sorting numbers is many times as fast as sorting by two keys.
        width = max(1, len(terms))
        pairs = without_repeats(items * width + places)
        by_item = np.empty((2, len(pairs)), np.int64)
        np.divmod(pairs, width, out=(by_item[0], by_item[1]))
        return cls._of_sorted(terms, by_item)

    @classmethod
    def _of_sorted(cls, terms: Sequence[Term], by_item: Int64s) -> "TermColumn":
        items, places = by_item
        starts = np.zeros(len(terms) + 1, np.int64)
        np.cumsum(np.bincount(places, minlength=len(terms)), out=starts[1:])
        return cls(
            places={term: place for place, term in enumerate(terms)},
            starts=starts,
            items=items[by_place(places, len(terms))],
            by_item=by_item,
        )

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

    def patched(
        self, gone: Int64s, added: "TermColumn | None", to_global: Int64s
    ) -> "TermColumn | None":
        """Return the column without the pairs of items that are gone, and with those added.

        `gone` are item indices, ascending; `to_global` maps the indices of `added`, of items that
        are gone or new, to those here. A term that no item has any more is forgotten, and so is a
        column without terms: None. Copies; only what is added is sorted.
        """
        left_out = _places_among(self.by_item[0], gone)
        if added is None and not len(left_out):
            return self
        by_item = np.delete(self.by_item, left_out, axis=1)
        terms = dict(self.places)
        if added is not None:
            renamed = np.array([terms.setdefault(term, len(terms)) for term in added.places])
            new = np.stack([to_global[added.by_item[0]], renamed[added.by_item[1]]])
            new = new[:, np.lexsort((new[1], new[0]))]
            by_item = np.insert(by_item, np.searchsorted(by_item[0], new[0]), new, axis=1)
        used = np.bincount(by_item[1], minlength=len(terms)) > 0
        if not used.any():
            return None
        if not used.all():
            by_item[1] = (np.cumsum(used) - 1)[by_item[1]]
        names = [term for term, is_used in zip(terms, used.tolist(), strict=True) if is_used]
        return TermColumn._of_sorted(names, by_item)


@dataclass(frozen=True, slots=True)
class NumberColumn:
    """One number of some items: `items`, ascending, and `values`, (num_pairs,) float64.

    Only those that say it: a catalogue may have thousands of names, each said of a few items.
    """

    items: Int64s
    values: Float64s

    @classmethod
    def of(cls, pairs: Sequence[tuple[int, float]]) -> "NumberColumn":
        """Return the column of (item index, number) pairs, in ascending order of items."""
        return cls(
            np.array([item for item, _ in pairs], np.int64),
            np.array([number for _, number in pairs], np.float64),
        )

    def dense(self, num_items: int) -> Float64s:
        """Return the numbers by item index, (num_items + 1,), NaN where an item has none."""
        numbers = np.full(num_items + 1, np.nan)
        numbers[self.items] = self.values
        return numbers

    def patched(
        self, gone: Int64s, added: "NumberColumn | None", to_global: Int64s
    ) -> "NumberColumn | None":
        """Return the column without items that are gone, and with those added; None if empty.

        `gone` are item indices, ascending.
        """
        left_out = _places_among(self.items, gone)
        if added is None and not len(left_out):
            return self
        items, values = np.delete(self.items, left_out), np.delete(self.values, left_out)
        if added is not None:
            order = np.argsort(to_global[added.items])
            new = to_global[added.items][order]
            places = np.searchsorted(items, new)
            items = np.insert(items, places, new)
            values = np.insert(values, places, added.values[order])
        return NumberColumn(items, values) if len(items) else None


@dataclass(frozen=True, slots=True)
class ItemColumns:
    """Columns of `num_items` items, element 0 of each being padding and unknown.

    `terms` and `numbers` are by key: `categories`, `released_at` in ms, and `attributes.` with a
    name; `lats` and `lons` are (num_items + 1,) float64, NaN where unknown. Item i has the opening
    hours `hours[hours_of[i]]`, "" where unknown.
    """

    num_items: int
    terms: Mapping[str, TermColumn]
    numbers: Mapping[str, NumberColumn]
    lats: Float64s
    lons: Float64s
    hours: tuple[str, ...]
    hours_of: Int64s

    @classmethod
    def of(cls, items: Sequence[Item]) -> "ItemColumns":
        """Return the columns of items, the first of which has the index 1."""
        terms: defaultdict[str, _Pairs] = defaultdict(_Pairs)
        numbers: defaultdict[str, list[tuple[int, float]]] = defaultdict(list)
        hours = {"": 0}
        hours_of = np.zeros(len(items) + 1, np.int64)
        for index, item in enumerate(items, start=1):
            for key, values in _terms_of(item):
                for value in values:
                    terms[key].add(value, index)
            for key, number in _numbers_of(item):
                numbers[key].append((index, number))
            hours_of[index] = hours.setdefault(item.opening_hours or "", len(hours))
        return cls(
            num_items=len(items),
            terms={key: pairs.column() for key, pairs in terms.items()},
            numbers={key: NumberColumn.of(pairs) for key, pairs in numbers.items()},
            lats=_coordinates([item.lat for item in items]),
            lons=_coordinates([item.lon for item in items]),
            hours=tuple(hours),
            hours_of=hours_of,
        )

    def patched(self, changed: Mapping[int, Item], num_items: int) -> "ItemColumns":
        """Return the columns of `num_items` items in which these are as given; the rest is shared.

        Indices above the number of items here are new ones. Costs copies of the columns, not a walk
        over the items.
        """
        to_global = np.array([0, *changed], np.int64)
        added = ItemColumns.of(list(changed.values()))
        gone = np.sort(to_global[1:])
        nobody = to_global[:0]
        no_terms = TermColumn.of((), nobody, nobody)
        no_numbers = NumberColumn(nobody, np.zeros(0))
        terms = {
            key: self.terms.get(key, no_terms).patched(gone, added.terms.get(key), to_global)
            for key in dict.fromkeys([*self.terms, *added.terms])
        }
        numbers = {
            key: self.numbers.get(key, no_numbers).patched(gone, added.numbers.get(key), to_global)
            for key in dict.fromkeys([*self.numbers, *added.numbers])
        }
        hours, hours_of = self._patched_hours(added, to_global, num_items)
        return ItemColumns(
            num_items=num_items,
            terms={key: column for key, column in terms.items() if column is not None},
            numbers={key: column for key, column in numbers.items() if column is not None},
            lats=_patched_numbers(self.lats, added.lats, to_global, num_items),
            lons=_patched_numbers(self.lons, added.lons, to_global, num_items),
            hours=hours,
            hours_of=hours_of,
        )

    def _patched_hours(
        self, added: "ItemColumns", to_global: Int64s, num_items: int
    ) -> tuple[tuple[str, ...], Int64s]:
        """Return the distinct opening hours that any item has, "" first, and each item's place."""
        places = {text: place for place, text in enumerate(self.hours)}
        renamed = np.array([places.setdefault(text, len(places)) for text in added.hours])
        hours_of = _longer(self.hours_of, num_items, 0)
        hours_of[to_global[1:]] = renamed[added.hours_of[1:]]
        used = np.bincount(hours_of, minlength=len(places)) > 0
        used[0] = True
        texts = tuple(text for text, is_used in zip(places, used.tolist(), strict=True) if is_used)
        return texts, (np.cumsum(used) - 1)[hours_of]

    def facts(self, index: int) -> dict[str, Any]:
        """Return what an item says of itself, by the names of `Item`'s fields but id and text."""
        attributes: dict[str, Any] = {}
        categories: tuple[Any, ...] = ()
        for key, column in self.terms.items():
            places = sorted(column.places_of(np.array([index]))[0])
            names = tuple(column.places) if places else ()
            found = tuple(names[place] for place in places)
            if key == CATEGORIES:
                categories = found
            elif found:
                attributes[key.removeprefix(ATTRIBUTES)] = found if len(found) > 1 else found[0]
        known: dict[str, float] = {}
        for key, numbers in self.numbers.items():
            at = int(np.searchsorted(numbers.items, index))
            if at < len(numbers.items) and numbers.items[at] == index:
                known[key] = float(numbers.values[at])
        released = known.pop(RELEASED_AT, None)
        attributes |= {key.removeprefix(ATTRIBUTES): number for key, number in known.items()}
        is_placed = not np.isnan(self.lats[index])
        return {
            "categories": categories,
            "attributes": attributes,
            "lat": float(self.lats[index]) if is_placed else None,
            "lon": float(self.lons[index]) if is_placed else None,
            "opening_hours": self.hours[self.hours_of[index]] or None,
            "released_at_ms": None if released is None else int(released),
        }

    def distances_km(self, lat: float, lon: float) -> Float64s:
        """Return haversine distances to a point, (num_items + 1,), NaN where either is unknown.

        The Earth is taken for a sphere, which is wrong by at most .6 %.
        """
        return _distances_km(self.lats, self.lons, lat, lon)

    def within(self, lat: float, lon: float, radius_km: float) -> tuple[Int64s, Float64s]:
        """Return the items within a radius of a point, ascending, and how far off each is, km."""
        # No point is nearer than its latitude is: that leaves few to take sines of.
        degrees = np.degrees(radius_km / EARTH_RADIUS_KM) + ROUNDING_DEGREES
        band = np.flatnonzero(np.abs(self.lats - lat) <= degrees).astype(np.int64)
        distances = _distances_km(self.lats[band], self.lons[band], lat, lon)
        near = distances <= radius_km
        return band[near], distances[near]


def _distances_km(lats: Float64s, lons: Float64s, lat: float, lon: float) -> Float64s:
    lats, lons = np.radians(lats), np.radians(lons)
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


def by_place(places: Int64s, num_places: int) -> Int64s:
    """Return the order that sorts places of so many, equal ones as they are."""
    # NumPy sorts two bytes by their digits, in a tenth of the time.
    short = places.astype(np.uint16) if num_places <= MAX_SHORT else places
    order: Int64s = np.argsort(short, kind="stable")
    return order


def _places_among(items: Int64s, chosen: Int64s) -> Int64s:
    """Return the places at which ascending `items` are one of the ascending `chosen`."""
    firsts, lasts = np.searchsorted(items, chosen, "left"), np.searchsorted(items, chosen, "right")
    counts = lasts - firsts
    before = np.cumsum(counts) - counts
    places: Int64s = np.repeat(firsts - before, counts) + np.arange(counts.sum())
    return places


class _Pairs:
    """Collects which item has which term."""

    def __init__(self) -> None:
        self._places: dict[Term, int] = {}
        self._pairs: list[tuple[int, int]] = []

    def add(self, term: Term, index: int) -> None:
        """Note that an item has a term."""
        self._pairs.append((self._places.setdefault(term, len(self._places)), index))

    def column(self) -> TermColumn:
        """Return what was noted."""
        pairs = np.array(self._pairs, np.int64).reshape(-1, 2)
        return TermColumn.of(tuple(self._places), pairs[:, 0], pairs[:, 1])


def _longer(column: NDArray[Any], num_items: int, filler: float) -> NDArray[Any]:
    """Return a copy of a column with room for more items."""
    longer = np.full(num_items + 1, filler, column.dtype)
    longer[: len(column)] = column
    return longer


def _patched_numbers(old: Float64s, added: Float64s, to_global: Int64s, num_items: int) -> Float64s:
    patched = _longer(old, num_items, np.nan)
    patched[to_global[1:]] = added[1:]
    return patched


def _coordinates(values: Sequence[float | None]) -> Float64s:
    return np.array([np.nan, *(np.nan if value is None else value for value in values)])
