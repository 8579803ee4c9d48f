"""Explanations in numbers: which windows are asked about, and what their scores say.

An event's contribution is exact leave-one-out: the score less the score of the same window without
the event, at the same time and place. Shares are differences of scores along one path, from an
empty window to the request, so they add up to the score.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from service.contract.features import Float32s, Int64s, Window
from service.ranker import AtPoint, Encoded
from service.text_match import TextMatch

MINUTES_PER_HOUR = 60
# Every hour of the day once, and every weekday three or four times: 24 steps through a week.
NUM_HOURS, HOURS_APART = 24, 7
SHARES = ("base", "history", "time", "place", "repeat", "text")
Float64s = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Questions:
    """The windows of one explanation; what comes of them is in the order of `all`.

    `without` are the window's newest events, each left out once, oldest first. `hours` are the
    window, and `empty` no window, at hours all over the week and without a place; `placeless` is
    the window at the request's time.
    """

    full: AtPoint
    without: tuple[AtPoint, ...]
    placeless: AtPoint
    hours: tuple[AtPoint, ...]
    empty: tuple[AtPoint, ...]

    @property
    def all(self) -> tuple[AtPoint, ...]:
        """Return all windows, those that are long first."""
        return (self.full, *self.without, self.placeless, *self.hours, *self.empty)


@dataclass(frozen=True, slots=True)
class Found:
    """What the encoder says of the windows of `Questions`."""

    full: Encoded
    without: tuple[Encoded, ...]
    placeless: Encoded
    hours: tuple[Encoded, ...]
    empty: tuple[Encoded, ...]

    @classmethod
    def of(cls, questions: Questions, encoded: Sequence[Encoded]) -> "Found":
        """Return the answers to `questions.all`, apart."""
        left = iter(encoded)
        return cls(
            full=next(left),
            without=tuple(next(left) for _ in questions.without),
            placeless=next(left),
            hours=tuple(next(left) for _ in questions.hours),
            empty=tuple(next(left) for _ in questions.empty),
        )


@dataclass(frozen=True, slots=True)
class ItemParts:
    """Rows of the explained items, (items, dim), and what of each is its text and its place."""

    indices: Int64s
    rows: Float32s
    texts: Float32s
    places: Float32s


def questions_of(
    asked: AtPoint, window_len: int, max_events: int, *, knows_time: bool
) -> Questions:
    """Return what has to be asked to explain what is recommended for a window.

    The hours are taken by the request's local offset, so that no gap to any event changes.
    """
    window, point = asked
    count = min(max_events, window_len, len(window))
    nowhere = replace(point, lat=np.nan, lon=np.nan)
    points = [nowhere]
    if knows_time:
        points = [
            replace(nowhere, tz_offset_min=point.tz_offset_min + step * MINUTES_PER_HOUR)
            for step in range(0, NUM_HOURS * HOURS_APART, HOURS_APART)
        ]
    return Questions(
        full=asked,
        without=tuple(
            AtPoint(without_event(window, place), point)
            for place in range(len(window) - count, len(window))
        ),
        placeless=AtPoint(window, nowhere),
        hours=tuple(AtPoint(window, one) for one in points),
        empty=tuple(AtPoint(Window.empty(), one) for one in points),
    )


def without_event(window: Window, place: int) -> Window:
    """Return a window without one event; of a longer past an older event takes the free place."""
    kept = np.ones(len(window), np.bool_)
    kept[place] = False
    return window.select(kept)


def contributions(found: Found, items: ItemParts, match: TextMatch | None) -> Float64s:
    """Return what each event that was left out brought each item, (items, events)."""
    whole = scores(found.full, items, match)
    parts = [whole - scores(one, items, match) for one in found.without]
    return np.stack(parts, axis=1) if parts else np.zeros((len(whole), 0))


def scores(encoded: Encoded, items: ItemParts, match: TextMatch | None) -> Float64s:
    """Return the items' scores as they are ranked by, (items,)."""
    sought = encoded if match is None else match.blended(encoded)
    products = items.rows.astype(np.float64) @ sought.query.astype(np.float64)
    return np.asarray(products + sought.bonus.of_each(items.indices), np.float64)


def shares(found: Found, items: ItemParts, match: TextMatch | None) -> dict[str, Float64s]:
    """Return the shares of the items' scores, (items,) each, by the names of SHARES.

    Their sum is `scores` of the request: each is a product with a part of its query vector or a
    part of an item's row, and the parts are all there is.
    """
    sought = found.full if match is None else match.blended(found.full)
    taste = _taste(match)
    rest = items.rows - items.texts - items.places
    full = taste * _query(found.full)
    placeless, usual = taste * _query(found.placeless), taste * _mean(found.hours)
    nobody = taste * _mean(found.empty)
    # What the words of a request added to the vector, whatever the item is sought by.
    words = sought.query.astype(np.float64) - full
    return {
        "base": rest @ nobody,
        "history": rest @ (usual - nobody),
        "time": rest @ (placeless - usual),
        "place": rest @ (full - placeless) + items.places @ full,
        "repeat": sought.bonus.of_each(items.indices).astype(np.float64),
        "text": items.texts @ full + items.rows @ words,
    }


def shares_of_words(items: ItemParts, match: TextMatch) -> dict[str, Float64s]:
    """Return the shares where there is no window: all is for the words."""
    nothing = np.zeros(len(items.indices))
    text = items.rows.astype(np.float64) @ match.direction.astype(np.float64)
    return {name: text if name == "text" else nothing for name in SHARES}


def _taste(match: TextMatch | None) -> float:
    """Return how much of a window's vector is left beside a request's words."""
    return 1.0 if match is None or not match.direction.any() else 1.0 - match.weight


def _query(encoded: Encoded) -> Float64s:
    return encoded.query.astype(np.float64)


def _mean(encoded: Sequence[Encoded]) -> Float64s:
    return np.asarray(np.mean([_query(one) for one in encoded], axis=0), np.float64)
