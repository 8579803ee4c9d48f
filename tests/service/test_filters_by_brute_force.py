"""A thousand random filters over HTTP, against looking at every item in plain Python."""

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from service.api.timestamps import rfc3339
from service.app import create_app
from service.bundle_loader import load_bundle
from service.config import Settings
from service.contract.events import ItemId
from service.contract.items import Item, attributes_json
from service.filters import Condition, Filter, GeoRadius, Match, Range
from tests.builders import POPULAR, make_bundle
from tests.clients import client_of, item_ids
from tests.fake_stores import fake_stores
from tests.fakes import NOON_MS, FakeClock
from tests.service.test_filters import ASKED, holds, random_filter, random_item

NUM_ITEMS = 400
NUM_FILTERS = 1_000
# Each of so many items has a code of its own hundredth: a filter on it lets 1 % pass.
NUM_CODES = 100
# Of all filters, those that ask for one code too.
RARE_SHARE = 0.2
# An hour after noon by local time, which what is popular at noon is not for.
NOW = rfc3339(NOON_MS, ASKED.tz_offset_min)
NAMED = {7: "drama-1", 99: "action-1", 200: "night-1"}


@pytest.fixture(scope="module")
def items() -> list[Item]:
    """Return items that say some of what items can say, the popular ones among them."""
    rng = np.random.default_rng(5)
    made = [random_item(rng, place) for place in range(NUM_ITEMS)]
    return [
        replace(
            one,
            item_id=ItemId(NAMED.get(place, one.item_id)),
            attributes={**one.attributes, "code": float(place % NUM_CODES)},
        )
        for place, one in enumerate(made)
    ]


@pytest.fixture
async def client(items: list[Item], tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """Return a client of an application that serves the items, in their order."""
    rows = {str(one.item_id): (1.0, 0.0, 0.0) for one in items}
    facts = {str(one.item_id): facts_of(one) for one in items}
    path = make_bundle(tmp_path / "bundle", item_rows=rows, item_facts=facts)
    settings = Settings(bundle_path=path, redis_url=None)
    app = create_app(settings, **fake_stores(), bundle=load_bundle(path), clock=FakeClock())
    async with client_of(app) as running:
        yield running


async def test_a_thousand_random_filters_give_the_lists_of_brute_force(
    client: httpx.AsyncClient, items: list[Item]
) -> None:
    """A stranger's list: what is popular, then the rest in the order of the catalogue."""
    order = [*POPULAR, *(one.item_id for one in items if one.item_id not in POPULAR)]
    by_id = {one.item_id: one for one in items}
    rng = np.random.default_rng(17)
    shares = []
    for number in range(NUM_FILTERS):
        wanted = Filter() if number == 0 else sayable_filter(rng)
        expected = [text for text in order if holds(wanted, by_id[ItemId(text)])]
        assert await listed(client, wanted) == expected, body_of(wanted)
        shares.append(len(expected) / NUM_ITEMS)
    # Of all, a share that would hide behind a list cut too early: some, but at most 1 %.
    assert sum(0 < share <= 1 / NUM_CODES for share in shares) > NUM_FILTERS * RARE_SHARE / 4
    assert np.quantile(shares, 0.75) > 0.2


async def listed(client: httpx.AsyncClient, wanted: Filter) -> list[str]:
    """Return the whole list that passes a filter."""
    body = {"k": NUM_ITEMS, "now": NOW, "filter": body_of(wanted)}
    answer = await client.post("/v1/recommendations", json=body)
    assert answer.status_code == 200, answer.text
    return item_ids(answer)


def sayable_filter(rng: np.random.Generator) -> Filter:
    """Return a random filter without empty ones in it, some of them for one item in a hundred."""
    while True:
        drawn = random_filter(rng, depth=0)
        if rng.random() < RARE_SHARE:
            code = Match("attributes.code", (float(rng.integers(NUM_CODES)),))
            drawn = replace(drawn, must=(*drawn.must, code))
        if all(is_sayable(part) for part in conditions_of(drawn)):
            return drawn


def is_sayable(condition: Condition) -> bool:
    """Say whether the API takes a condition: a filter in a filter must have conditions."""
    if not isinstance(condition, Filter):
        return True
    parts = conditions_of(condition)
    return bool(parts) and all(is_sayable(part) for part in parts)


def conditions_of(one: Filter) -> tuple[Condition, ...]:
    """Return all conditions of a filter."""
    return one.must + one.should + one.must_not


def body_of(condition: Condition) -> dict[str, Any]:
    """Return a condition as a caller sends it."""
    if isinstance(condition, Filter):
        return {
            "must": [body_of(part) for part in condition.must],
            "should": [body_of(part) for part in condition.should],
            "must_not": [body_of(part) for part in condition.must_not],
        }
    if isinstance(condition, Match):
        kind = "except" if condition.but else "any"
        return {"key": condition.key, "match": {kind: [*condition.values]}}
    if isinstance(condition, Range):
        bounds = {name: getattr(condition, name) for name in ("gt", "gte", "lt", "lte")}
        given = {name: bound for name, bound in bounds.items() if bound is not None}
        return {"key": condition.key, "range": given}
    if isinstance(condition, GeoRadius):
        center = {"lat": condition.lat, "lon": condition.lon}
        return {"geo_radius": {"center": center, "radius_km": condition.radius_km}}
    # A time is read in its own offset, which milliseconds would not have.
    return {"is_open_at": "now" if condition.time_ms is None else rfc3339(condition.time_ms, 0)}


def facts_of(one: Item) -> Mapping[str, Any]:
    """Return what an item says of itself, as a bundle's table has it."""
    return {
        "categories": [*one.categories],
        "attributes": attributes_json(one.attributes),
        "lat": one.lat,
        "lon": one.lon,
        "opening_hours": one.opening_hours or None,
        "released_at_ms": one.released_at_ms,
    }


def test_a_filter_is_sent_as_it_is_looked_at() -> None:
    """What turns filters to bodies decides what is compared, so one is worked by hand."""
    wanted = Filter(must=(Match("categories", ("a",), but=True), Range("attributes.price", lt=5.0)))
    assert json.dumps(body_of(wanted)) == (
        '{"must": [{"key": "categories", "match": {"except": ["a"]}}, '
        '{"key": "attributes.price", "range": {"lt": 5.0}}], "should": [], "must_not": []}'
    )
