"""Filters: true or false of every item, by columns as by looking at each item."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from service.contract.events import ItemId
from service.contract.items import AttributeValue, Item
from service.contract.opening import is_open, local_minutes
from service.filters import Asked, Condition, Filter, GeoRadius, Match, OpenAt, Range, matching
from service.item_columns import ItemColumns
from tests.fakes import NOON_MS

HOUR_MS = 3_600_000
ASKED = Asked(NOON_MS, 60)
NUM_ITEMS = 60
NUM_FILTERS = 1_000


def item(item_id: str = "a", **fields: Any) -> Item:
    """Return an item of which only what is given is known."""
    return Item(ItemId(item_id), **fields)


def matched(condition: Condition, *items: Item, asked: Asked = ASKED) -> list[bool]:
    """Return of which items a condition is true; nothing is known of element 0."""
    mask = matching(condition, ItemColumns.of(items), asked)
    return [bool(value) for value in mask[1:]]


def test_an_item_matches_by_any_of_its_categories() -> None:
    """A film is a comedy and a drama."""
    film, other = item(categories=("Comedy", "Drama")), item(categories=("War",))
    assert matched(Match("categories", ("Drama", "Horror")), film, other) == [True, False]


def test_what_an_item_does_not_say_is_false_and_its_negation_true() -> None:
    """As with Qdrant: `must_not` is the way to keep items that say nothing."""
    priced, silent = item(attributes={"price": 5.0}), item()
    cheap = Range("attributes.price", lt=10)
    assert matched(cheap, priced, silent) == [True, False]
    assert matched(Filter(must_not=(cheap,)), priced, silent) == [False, True]
    assert matched(Match("attributes.price", (5.0,), but=True), priced, silent) == [False, False]


def test_true_is_neither_one_nor_a_text() -> None:
    """Python's True equals 1, a filter's must not."""
    items = [item(attributes={"x": value}) for value in (True, 1.0, "true")]
    values: tuple[str | float | bool, ...] = (True, 1.0, "true")
    for place, value in enumerate(values):
        found = matched(Match("attributes.x", (value,)), *items)
        assert found == [place == other for other in range(3)]


def test_bounds_hold_or_exclude_their_own_value() -> None:
    """`gte` and `lte` take the bound, `gt` and `lt` do not."""
    items = [item(attributes={"price": value}) for value in (1.0, 2.0, 3.0)]
    assert matched(Range("attributes.price", gte=2, lte=2), *items) == [False, True, False]
    assert matched(Range("attributes.price", gt=1, lt=3), *items) == [False, True, False]


def test_a_radius_is_measured_along_the_earth() -> None:
    """At 60 degrees a degree of longitude is half of 111.2 km, and 180 degrees east is west."""
    places = [item(lat=60.0, lon=25.0), item(lat=61.0, lon=24.0), item()]
    assert matched(GeoRadius(60.0, 24.0, 56.0), *places) == [True, False, False]
    over_the_line = item(lat=0.0, lon=-179.9)
    assert matched(GeoRadius(0.0, 179.9, 23.0), over_the_line) == [True]


def test_places_are_open_in_their_local_time() -> None:
    """A bar that opens at one in the afternoon is open at noon UTC where clocks show one."""
    bar, always, silent = item(opening_hours="13:00-02:00"), item(opening_hours="24/7"), item()
    assert matched(OpenAt(), bar, always, silent) == [True, True, False]
    assert matched(OpenAt(), bar, always, silent, asked=Asked(NOON_MS, 0)) == [False, True, False]
    after_midnight = OpenAt(NOON_MS + 13 * HOUR_MS, 0)
    assert matched(after_midnight, bar, always, silent) == [True, True, False]


def test_any_of_should_and_all_of_must() -> None:
    """An empty `should` asks for nothing."""
    items = [item(categories=names) for names in (("a",), ("a", "b"), ("a", "c"), ("b", "c"))]
    a, b, c = (Match("categories", (name,)) for name in "abc")
    assert matched(Filter(must=(a,), should=(b, c)), *items) == [False, True, True, False]
    assert matched(Filter(must=(a,)), *items) == [True, True, True, False]
    assert matched(Filter(must=(a,), must_not=(b,)), *items) == [True, False, True, False]
    assert matched(Filter(), *items) == [True] * 4


def test_an_item_of_which_nothing_is_known_is_element_zero() -> None:
    """So that the caller's own ids, which no catalogue has, can be filtered too."""
    columns = ItemColumns.of([item(categories=("a",))])
    match = Match("categories", ("a",))
    assert not matching(match, columns, ASKED)[0]
    assert matching(Filter(must_not=(match,)), columns, ASKED)[0]
    assert not matching(Match("categories", ("a",), but=True), columns, ASKED)[0]


def test_a_thousand_random_filters_agree_with_looking_at_every_item() -> None:
    """Brute force over items, one condition after the other, knows nothing of columns."""
    rng = np.random.default_rng(11)
    items = [random_item(rng, place) for place in range(NUM_ITEMS)]
    columns = ItemColumns.of(items)
    shares = []
    for _ in range(NUM_FILTERS):
        wanted = random_filter(rng, depth=0)
        expected = [holds(wanted, one) for one in items]
        assert matching(wanted, columns, ASKED)[1:].tolist() == expected, wanted
        shares.append(sum(expected) / NUM_ITEMS)
    # The draw is worth something only if filters of every selectivity are in it.
    assert np.quantile(shares, 0.25) < 0.2
    assert np.quantile(shares, 0.75) > 0.3


def random_item(rng: np.random.Generator, place: int) -> Item:
    """Return an item that says some of what an item can say."""
    attributes: dict[str, AttributeValue] = {}
    if rng.random() < 0.8:
        attributes["price"] = float(rng.integers(0, 6))
    if rng.random() < 0.7:
        attributes["brand"] = str(rng.choice(["x", "y", "z"]))
    if rng.random() < 0.5:
        attributes["new"] = bool(rng.random() < 0.5)
    if rng.random() < 0.5:
        attributes["tags"] = tuple(rng.choice(["p", "q", "r"], rng.integers(0, 3)).tolist())
    known = rng.random() < 0.8
    return Item(
        ItemId(f"item-{place}"),
        categories=tuple(rng.choice(["a", "b", "c", "d"], rng.integers(0, 4)).tolist()),
        attributes=attributes,
        lat=float(rng.uniform(40.5, 41)) if known else None,
        lon=float(rng.uniform(-74.3, -73.7)) if known else None,
        opening_hours=str(rng.choice(["", "24/7", "Mo-Fr 09:00-18:00", "We 13:00-14:00", "Su"])),
        released_at_ms=int(NOON_MS - rng.integers(0, 100) * HOUR_MS) if known else None,
    )


def random_filter(rng: np.random.Generator, depth: int) -> Filter:
    """Return a filter of a few conditions, some of them filters."""
    sizes = rng.integers(0, [3, 3, 2])
    parts = [[random_condition(rng, depth) for _ in range(size)] for size in sizes]
    return Filter(*(tuple(part) for part in parts))


def random_condition(rng: np.random.Generator, depth: int) -> Condition:
    """Return a condition of any kind; filters at most two deep."""
    makers: list[Callable[[], Condition]] = [
        lambda: Match("categories", some(rng, ("a", "b", "c", "d", "e")), rng.random() < 0.3),
        lambda: Match("attributes.brand", some(rng, ("x", "y", "w")), rng.random() < 0.3),
        lambda: Match("attributes.price", some(rng, (0.0, 3.0, 9.0)), rng.random() < 0.3),
        lambda: Match("attributes.new", some(rng, (True, False)), rng.random() < 0.3),
        lambda: Match("attributes.tags", some(rng, ("p", "q")), rng.random() < 0.3),
        lambda: Match("attributes.nobody-has", some(rng, ("p",)), rng.random() < 0.3),
        lambda: Range("attributes.price", gte=float(rng.integers(0, 4)), lt=5.0),
        lambda: Range("released_at", gt=float(NOON_MS - rng.integers(0, 100) * HOUR_MS)),
        lambda: GeoRadius(40.75, -74.0, float(rng.uniform(1, 40))),
        lambda: OpenAt(NOON_MS + int(rng.integers(0, 168)) * HOUR_MS, 0),
        OpenAt,
        lambda: random_filter(rng, depth + 1),
    ]
    return makers[rng.integers(0, len(makers) - (depth >= 2))]()


def some(rng: np.random.Generator, values: Sequence[Any]) -> tuple[Any, ...]:
    """Return one or two of the values."""
    chosen = rng.choice(len(values), min(len(values), int(rng.integers(1, 3))), replace=False)
    return tuple(values[place] for place in chosen)


def holds(condition: Condition, one: Item) -> bool:
    """Say whether a condition is true of one item, by looking at the item."""
    if isinstance(condition, Filter):
        return (
            all(holds(part, one) for part in condition.must)
            and (not condition.should or any(holds(part, one) for part in condition.should))
            and not any(holds(part, one) for part in condition.must_not)
        )
    if isinstance(condition, Match):
        listed = [(type(value), value) for value in condition.values]
        said = [((type(value), value) in listed) for value in said_of(one, condition.key)]
        return any(not hit for hit in said) if condition.but else any(said)
    if isinstance(condition, Range):
        least = max(
            bound for bound in (condition.gt, condition.gte, -math.inf) if bound is not None
        )
        return any(
            (value >= least if condition.gte is not None else value > least)
            and (condition.lt is None or value < condition.lt)
            for value in said_of(one, condition.key)
        )
    if isinstance(condition, GeoRadius):
        return one.lat is not None and distance_km(one, condition) <= condition.radius_km
    time_ms = NOON_MS if condition.time_ms is None else condition.time_ms
    offset = ASKED.tz_offset_min if condition.tz_offset_min is None else condition.tz_offset_min
    return bool(one.opening_hours) and is_open(
        str(one.opening_hours), local_minutes(time_ms, offset)
    )


def said_of(one: Item, key: str) -> Sequence[Any]:
    """Return an item's values of a key."""
    if key == "categories":
        return one.categories
    value = one.released_at_ms if key == "released_at" else one.attributes.get(key.split(".")[1])
    if value is None:
        return ()
    return value if isinstance(value, tuple) else (value,)


def distance_km(one: Item, circle: GeoRadius) -> float:
    """Return the distance by the spherical law of cosines, another way than haversine."""
    assert one.lat is not None
    assert one.lon is not None
    lat, other = math.radians(one.lat), math.radians(circle.lat)
    turn = math.radians(one.lon - circle.lon)
    cosine = math.sin(lat) * math.sin(other) + math.cos(lat) * math.cos(other) * math.cos(turn)
    return 6371.0088 * math.acos(min(1.0, cosine))


@pytest.mark.parametrize("minutes", [-14 * 60, 14 * 60])
def test_the_last_and_first_minutes_can_be_asked(minutes: int) -> None:
    """An offset may not carry a time out of the calendar: that would be an error of ours."""
    last_ms = 253_402_300_799_999
    for time_ms in (1, last_ms):
        assert is_open("24/7", local_minutes(time_ms, minutes)) in (True, False)
