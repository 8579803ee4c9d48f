"""Columns patched by changed items are the columns of all items as they are now."""

from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from service.contract.events import ItemId
from service.contract.items import Item
from service.filters import Asked, Condition, Filter, Match, OpenAt, Range, matching
from service.item_columns import ItemColumns

NOON = Asked(1_768_392_000_000, 0)

items = st.builds(
    Item,
    item_id=st.just(ItemId("x")),
    categories=st.lists(st.sampled_from("abc"), max_size=2).map(tuple),
    attributes=st.dictionaries(
        st.sampled_from(["price", "brand", "new"]),
        st.sampled_from([1.0, 2.0, "acme", True, ("acme", "b")]),
        max_size=2,
    ),
    lat=st.just(48.0) | st.none(),
    lon=st.just(2.0) | st.none(),
    opening_hours=st.sampled_from([None, "24/7", "20:00-04:00"]),
    released_at_ms=st.integers(1, 5) | st.none(),
)
conditions: list[Condition] = [
    *(Match("categories", (text,)) for text in "abc"),
    Match("categories", ("a",), but=True),
    *(Match(f"attributes.{name}", ("acme", 1.0, True)) for name in ("price", "brand", "new")),
    Range("attributes.price", gte=1.5),
    Range("released_at", lt=3),
    OpenAt(),
    Filter(must_not=(Match("categories", ("b",)),)),
]


@given(st.lists(items, min_size=1, max_size=6), st.data())
def test_patching_equals_building_anew(before: list[Item], data: Any) -> None:
    """Every kind of column, for items that changed and for new ones behind them."""
    num_new = data.draw(st.integers(0, 2))
    places = st.sets(st.integers(1, len(before)))
    after = dict(enumerate(before, start=1))
    changed = {index: data.draw(items) for index in sorted(data.draw(places))}
    changed |= {len(before) + 1 + at: data.draw(items) for at in range(num_new)}
    after |= changed
    anew = ItemColumns.of(list(after.values()))
    patched = ItemColumns.of(before).patched(changed, len(after))
    for condition in conditions:
        expected = matching(condition, anew, NOON)
        assert matching(condition, patched, NOON).tolist() == expected.tolist(), condition
    np.testing.assert_array_equal(patched.lats, anew.lats)
    np.testing.assert_array_equal(patched.lons, anew.lons)


def test_an_items_facts_come_back_from_the_columns() -> None:
    """One text of a list of one is a text again: a filter cannot tell them apart either."""
    item = Item(
        item_id=ItemId("a"),
        categories=("drama", "classic"),
        attributes={"price": 5.0, "brand": "acme", "new": True, "tags": ("x", "y")},
        lat=48.5,
        lon=2.5,
        opening_hours="24/7",
        released_at_ms=7,
    )
    columns = ItemColumns.of([Item(item_id=ItemId("b"), categories=("other",)), item])
    assert columns.facts(2) == {
        "categories": ("drama", "classic"),
        "attributes": {"brand": "acme", "new": True, "tags": ("x", "y"), "price": 5.0},
        "lat": 48.5,
        "lon": 2.5,
        "opening_hours": "24/7",
        "released_at_ms": 7,
    }
    assert columns.facts(1)["attributes"] == {}


def test_what_no_item_says_any_more_is_forgotten() -> None:
    """A caller that says something else every minute must not fill the memory."""
    columns = ItemColumns.of([Item(item_id=ItemId("a")), Item(item_id=ItemId("b"))])
    for number in range(20):
        said = Item(
            item_id=ItemId("a"),
            categories=(f"c{number}",),
            attributes={f"n{number}": 1.0, f"t{number}": "x"},
            opening_hours=f"Mo 0{number % 9}:00-20:00",
        )
        columns = columns.patched({1: said}, 2)
    assert set(columns.terms) == {"categories", "attributes.t19"}
    assert [*columns.terms["categories"].places] == ["c19"]
    assert set(columns.numbers) == {"attributes.n19"}
    assert columns.hours == ("", "Mo 01:00-20:00")


def test_a_number_costs_what_its_items_do() -> None:
    """64,000 names on one item each are 64,000 numbers, not as many columns of the catalogue."""
    items = [
        Item(item_id=ItemId(f"i{at}"), attributes={f"n{at}-{name}": 1.0 for name in range(64)})
        for at in range(1_000)
    ]
    columns = ItemColumns.of(items)
    assert len(columns.numbers) == 64_000
    assert sum(len(column.values) for column in columns.numbers.values()) == 64_000


def test_what_is_within_a_radius_is_what_is_no_farther_off() -> None:
    """At the poles, across the date line and at any radius; an unknown place is nowhere."""
    rng = np.random.default_rng(5)
    lats = rng.uniform(-90, 90, 3_000)
    lons = rng.uniform(-180, 180, 3_000)
    lats[:100], lons[:100] = np.nan, np.nan
    # Due north and south, where the distance is one of latitude only.
    lats[100:200], lons[100:200] = rng.uniform(47, 49, 100), 2.0
    places = [Item(item_id=ItemId("x"), lat=None, lon=None)] * 2_999
    columns = replace(ItemColumns.of(places), lats=lats, lons=lons)
    for lat, lon in [(48.0, 2.0), (90.0, 0.0), (-89.9, 10.0), (0.0, 179.9)]:
        every = columns.distances_km(lat, lon)
        for radius_km in [0.0, *(np.sort(every[100:])[[0, 5, 500]] * (1 + 1e-9)), 25_000.0]:
            indices, distances = columns.within(lat, lon, radius_km)
            assert indices.tolist() == np.flatnonzero(every <= radius_km).tolist()
            np.testing.assert_allclose(distances, every[indices], rtol=1e-12)
