"""Filters: conditions on what items say of themselves, true or false before anything is ranked.

A condition on what an item does not say is false. The shape is that of Qdrant's filters: all of
`must`, at least one of `should` if there are any, none of `must_not`.
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from service.contract.opening import is_open, local_minutes
from service.item_columns import ItemColumns, Mask, Term


@dataclass(frozen=True, slots=True)
class Match:
    """True of items that have one of `values`, or with `but` of those that have another one."""

    key: str
    values: tuple[Term | float, ...]
    but: bool = False


@dataclass(frozen=True, slots=True)
class Range:
    """True of items whose number is within all bounds that are given."""

    key: str
    gt: float | None = None
    gte: float | None = None
    lt: float | None = None
    lte: float | None = None


@dataclass(frozen=True, slots=True)
class GeoRadius:
    """True of items at most `radius_km` away along the Earth's surface, taken for a sphere."""

    lat: float
    lon: float
    radius_km: float


@dataclass(frozen=True, slots=True)
class OpenAt:
    """True of items whose opening hours say open; None is the request's time and local offset."""

    time_ms: int | None = None
    tz_offset_min: int | None = None


@dataclass(frozen=True, slots=True)
class Filter:
    """All of `must`, at least one of `should` if there are any, none of `must_not`."""

    must: tuple["Condition", ...] = ()
    should: tuple["Condition", ...] = ()
    must_not: tuple["Condition", ...] = ()


Condition: TypeAlias = Match | Range | GeoRadius | OpenAt | Filter


@dataclass(frozen=True, slots=True)
class Asked:
    """When the request is made: ms since the epoch, UTC, and the local offset in minutes."""

    time_ms: int
    tz_offset_min: int


def matching(condition: Condition, columns: ItemColumns, asked: Asked) -> Mask:
    """Return which items a condition is true of, (num_items + 1,).

    Element 0 stands for an item of which nothing is known.
    """
    if isinstance(condition, Filter):
        return _matching_all(condition, columns, asked)
    if isinstance(condition, Match):
        return _having(condition, columns)
    if isinstance(condition, Range):
        return _within(condition, columns)
    if isinstance(condition, GeoRadius):
        return _near(condition, columns)
    return _open(condition, columns, asked)


def _matching_all(filter_: Filter, columns: ItemColumns, asked: Asked) -> Mask:
    mask = np.ones(columns.num_items + 1, np.bool_)
    for condition in filter_.must:
        mask &= matching(condition, columns, asked)
    if filter_.should:
        mask &= np.any([matching(one, columns, asked) for one in filter_.should], axis=0)
    for condition in filter_.must_not:
        mask &= ~matching(condition, columns, asked)
    return mask


def _having(match: Match, columns: ItemColumns) -> Mask:
    mask = np.zeros(columns.num_items + 1, np.bool_)
    terms, numbers = columns.terms.get(match.key), columns.numbers.get(match.key)
    if terms is not None:
        named = {value for value in match.values if isinstance(value, str | bool)}
        chosen = (set(terms.places) - named) if match.but else named
        for term in chosen:
            mask[terms.items_of(term)] = True
    if numbers is not None:
        listed = [value for value in match.values if not isinstance(value, str | bool)]
        mask[numbers.items[np.isin(numbers.values, listed, invert=match.but)]] = True
    return mask


def _within(range_: Range, columns: ItemColumns) -> Mask:
    mask = np.zeros(columns.num_items + 1, np.bool_)
    numbers = columns.numbers.get(range_.key)
    if numbers is None:
        return mask
    fits = np.ones(len(numbers.values), np.bool_)
    if range_.gt is not None:
        fits &= numbers.values > range_.gt
    if range_.gte is not None:
        fits &= numbers.values >= range_.gte
    if range_.lt is not None:
        fits &= numbers.values < range_.lt
    if range_.lte is not None:
        fits &= numbers.values <= range_.lte
    mask[numbers.items[fits]] = True
    return mask


def _near(circle: GeoRadius, columns: ItemColumns) -> Mask:
    mask = np.zeros(columns.num_items + 1, np.bool_)
    mask[columns.within(circle.lat, circle.lon, circle.radius_km)[0]] = True
    return mask


def _open(condition: OpenAt, columns: ItemColumns, asked: Asked) -> Mask:
    time_ms = asked.time_ms if condition.time_ms is None else condition.time_ms
    offset = condition.tz_offset_min
    local_min = local_minutes(time_ms, asked.tz_offset_min if offset is None else offset)
    open_now = np.array([bool(text) and is_open(text, local_min) for text in columns.hours])
    mask: Mask = open_now[columns.hours_of]
    return mask
