"""The live catalogue: what is put can be recommended at once, what is taken away at once not."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.app import create_app
from service.bundle_loader import LoadedBundle
from service.config import Settings
from service.store.catalogue import ItemChange
from tests.builders import event
from tests.clients import client_of, item_ids, recommended
from tests.fake_stores import FakeItems, fake_stores
from tests.fakes import NOON_MS, FakeAnnouncements, FakeClock, FakeHistory
from tests.service.test_bad_inputs import check_problem

MIDNIGHT_MS = NOON_MS - 12 * 3_600_000
NEW = {"title": "New drama", "categories": ["drama"], "attributes": {"price": 3, "tags": ["x"]}}


@pytest.fixture
def live_items() -> FakeItems:
    """Return an empty live catalogue."""
    return FakeItems()


@pytest.fixture
def stores(history: FakeHistory, live_items: FakeItems) -> dict[str, Any]:
    """Return the stores of the application under test."""
    return fake_stores(history=history, live_items=live_items)


async def put(client: httpx.AsyncClient, item_id: str, **body: Any) -> httpx.Response:
    """Put an item; it must be taken."""
    answer = await client.put(f"/v1/items/{item_id}", json=body)
    assert answer.status_code == 200, answer.text
    return answer


async def post(client: httpx.AsyncClient, **body: Any) -> httpx.Response:
    """Ask for anna's list at midnight."""
    whole = {"user_id": "anna", "now": MIDNIGHT_MS, "exclude_seen": "none", "k": 20} | body
    answer = await client.post("/v1/recommendations", json=whole)
    assert answer.status_code == 200, answer.text
    return answer


async def test_a_new_item_is_recommended_by_its_categories_at_once(
    client: httpx.AsyncClient, history: FakeHistory
) -> None:
    """After drama-1 the query is (0, 1, 0): drama-1 1, the new one .95, drama-2 .9."""
    await history.append([event(item_id="drama-1", timestamp_ms=MIDNIGHT_MS - 1)])
    await put(client, "drama-3", **NEW)
    answer = (await post(client, k=3)).json()
    assert [item["item_id"] for item in answer["items"]] == ["drama-1", "drama-3", "drama-2"]
    new = answer["items"][1]
    assert (new["source"], new["title"]) == ("new", "New drama")
    assert new["score"] == pytest.approx(0.95)


async def test_a_new_item_in_a_history_is_no_input_of_the_encoder(
    client: httpx.AsyncClient, history: FakeHistory
) -> None:
    """Its index is behind the encoder's table; the rest of the history is read all the same."""
    await put(client, "drama-3", **NEW)
    await history.append([event(item_id="drama-3", timestamp_ms=MIDNIGHT_MS - 2)])
    alone = (await post(client)).json()
    assert (alone["source"], alone["items"][0]["item_id"]) == ("repeat", "drama-3")
    await history.append([event(event_id="2", item_id="action-1", timestamp_ms=MIDNIGHT_MS - 1)])
    assert item_ids(await post(client))[0] == "action-1"


async def test_filters_groups_and_ranking_see_what_was_put(client: httpx.AsyncClient) -> None:
    """Every part that reads the catalogue reads the live one."""
    await put(client, "drama-3", **NEW)
    cheap = {"must": [{"key": "attributes.price", "range": {"lt": 4}}]}
    assert item_ids(await post(client, filter=cheap)) == ["drama-3"]
    terms = [{"feature": "attributes.price", "weight": -1}]
    body = {"items": [{"item_id": "action-1"}, {"item_id": "drama-3"}], "blend": terms}
    ranked = await client.post("/v1/rank", json=body)
    assert item_ids(ranked) == ["drama-3", "action-1"]


async def test_a_score_beyond_all_numbers_is_still_a_number(client: httpx.AsyncClient) -> None:
    """JSON has no infinity, and an attribute may be any number that JSON has."""
    await put(client, "drama-3", **(NEW | {"attributes": {"price": 1e308, "cost": 1e308}}))
    terms = [
        {"feature": f"attributes.{name}", "weight": 1e12, "scale": "none"}
        for name in ("price", "cost")
    ]
    body = {"items": [{"item_id": "action-1"}, {"item_id": "drama-3"}], "blend": terms}
    ranked = await client.post("/v1/rank", json=body | {"explain": True})
    first = ranked.json()["items"][0]
    assert (first["item_id"], first["score"]) == ("drama-3", 1e300)
    assert first["parts"] == {"attributes.price": 5e299, "attributes.cost": 5e299}


async def test_what_is_not_available_is_shown_by_no_rung(
    client: httpx.AsyncClient, history: FakeHistory
) -> None:
    """Not by the model, not as a repeat, not as popular, and not if it is asked for by name."""
    await history.append([event(item_id="action-1", timestamp_ms=MIDNIGHT_MS - 1)])
    assert "action-1" in item_ids(await post(client))
    body = {"items": [{"item_id": "action-1", "available": False}]}
    answer = (await client.post("/v1/items", json=body)).json()
    assert answer == {
        "accepted": 1,
        "rejected": 0,
        "results": [{"item_id": "action-1", "status": "accepted"}],
    }
    for asked in ({}, {"candidates": ["action-1", "drama-1"]}, {"include": ["action-1"]}):
        assert "action-1" not in item_ids(await post(client, **asked))
    assert "action-1" not in await recommended(client, user_id="nobody", k=20)
    assert (await client.get("/v1/items/action-1")).json()["available"] is False
    await client.post("/v1/items", json={"items": [{"item_id": "action-1", "available": True}]})
    assert "action-1" in item_ids(await post(client))


async def test_an_item_reads_as_it_is_served(client: httpx.AsyncClient) -> None:
    """What was said, and for the rest what the bundle says."""
    await put(client, "drama-2", title="Said", lat=1.5, lon=2.5)
    assert (await client.get("/v1/items/drama-2")).json() == {
        "item_id": "drama-2",
        "is_trained": True,
        "available": True,
        "title": "Said",
        "text": None,
        "categories": ["drama"],
        "attributes": {},
        "lat": 1.5,
        "lon": 2.5,
        "opening_hours": None,
        "released_at": NOON_MS - 86_400_000,
    }
    new = (await put(client, "a/b%20c", **NEW)).json()
    assert (new["item_id"], new["is_trained"]) == ("a/b c", False)
    assert new["attributes"] == {"price": 3.0, "tags": ["x"]}


async def test_a_put_forgets_and_a_post_adds(client: httpx.AsyncClient) -> None:
    """Null says that it is not known any more, whatever the bundle says."""
    await put(client, "drama-2", title="Said", released_at=None)
    await client.post("/v1/items", json={"items": [{"item_id": "drama-2", "lat": 1, "lon": 2}]})
    added = (await client.get("/v1/items/drama-2")).json()
    assert (added["title"], added["lat"], added["released_at"]) == ("Said", 1.0, None)
    await put(client, "drama-2", available=True)
    anew = (await client.get("/v1/items/drama-2")).json()
    assert (anew["title"], anew["lat"]) == ("Title of drama-2", None)


async def test_a_deleted_item_is_no_more_until_it_is_put_again(client: httpx.AsyncClient) -> None:
    """Known to the model or new, twice is 404, and a put brings it back."""
    await put(client, "drama-3", **NEW)
    for item_id in ("drama-1", "drama-3"):
        assert (await client.delete(f"/v1/items/{item_id}")).status_code == 204
        check_problem(await client.get(f"/v1/items/{item_id}"), 404, "unknown-item")
        check_problem(await client.delete(f"/v1/items/{item_id}"), 404, "unknown-item")
        assert item_id not in item_ids(await post(client))
    await put(client, "drama-3", **NEW)
    assert "drama-3" in item_ids(await post(client))
    check_problem(await client.delete("/v1/items/never"), 404, "unknown-item")


async def test_what_is_said_in_a_batch_brings_a_deleted_item_back(
    client: httpx.AsyncClient,
) -> None:
    """It was accepted, and stayed deleted: the mark was among what was said before."""
    for item_id in ("drama-1", "drama-3"):
        await put(client, item_id, **NEW)
        assert (await client.delete(f"/v1/items/{item_id}")).status_code == 204
        batch = {"items": [{"item_id": item_id, "title": "Back"}]}
        assert (await client.post("/v1/items", json=batch)).json()["accepted"] == 1
        assert (await client.get(f"/v1/items/{item_id}")).json()["title"] == "Back"
        assert item_id in item_ids(await post(client))


@pytest.mark.parametrize("item_id", ["drama-1", "never-heard-of"])
async def test_an_item_exists_by_being_put_whatever_is_said_of_it(
    client: httpx.AsyncClient, item_id: str
) -> None:
    """A put of nothing was answered with 404, and took a place among the live items."""
    assert (await put(client, item_id)).json()["available"] is True
    assert (await client.get(f"/v1/items/{item_id}")).status_code == 200
    assert item_id in item_ids(await post(client))


async def test_similar_items_are_the_nearest_vectors(client: httpx.AsyncClient) -> None:
    """Cosines to drama-1: drama-3 .9986, drama-2 .994, and nothing of action-2's .11 before."""
    await put(client, "drama-3", **NEW)
    answer = (await client.get("/v1/items/drama-1/similar", params={"k": 3})).json()
    assert [item["item_id"] for item in answer["items"]] == ["drama-3", "drama-2", "action-2"]
    assert answer["items"][0]["score"] == pytest.approx(0.95 / (0.95**2 + 0.05**2) ** 0.5)
    assert {item["source"] for item in answer["items"]} == {"similar"}
    back = (await client.get("/v1/items/drama-3/similar", params={"k": 1})).json()
    assert back["items"][0]["item_id"] == "drama-1"
    check_problem(await client.get("/v1/items/never/similar"), 404, "unknown-item")


async def test_an_item_that_is_like_nothing_has_the_popular_beside_it(
    client: httpx.AsyncClient,
) -> None:
    """Without a known category there is no vector; the list is not empty for that."""
    await put(client, "odd", categories=["unheard-of"])
    answer = (await client.get("/v1/items/odd/similar", params={"k": 2})).json()
    assert [(item["item_id"], item["source"]) for item in answer["items"]] == [
        ("drama-1", "popular"),
        ("action-1", "popular"),
    ]


async def test_another_process_takes_up_what_was_said(
    settings: Settings, bundle: LoadedBundle, stores: dict[str, Any], clock: FakeClock
) -> None:
    """Both follow one store; here the second one starts after the change."""
    async with client_of(create_app(settings, **stores, bundle=bundle, clock=clock)) as first:
        await put(first, "drama-3", **NEW)
        app = create_app(settings, **stores, bundle=bundle, clock=clock)
        async with client_of(app) as second:
            await put(second, "drama-4", **NEW)
            assert (await second.get("/v1/items/drama-3")).status_code == 200
            await first.post("/v1/items", json={"items": [{"item_id": "x", "title": "y"}]})
            assert (await first.get("/v1/items/drama-4")).json()["title"] == "New drama"


async def test_without_redis_nothing_is_claimed(
    client: httpx.AsyncClient, live_items: FakeItems
) -> None:
    """What is served stays; what is said is refused with when to try again."""
    live_items.down = True
    answer = await client.put("/v1/items/drama-3", json=NEW)
    check_problem(answer, 503, "store-unavailable")
    assert answer.headers["retry-after"]
    assert (await client.get("/v1/items/drama-1")).status_code == 200


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"titel": "x"}, "titel"),
        ({"lat": 1}, "lon"),
        ({"lat": 91, "lon": 1}, "lat"),
        ({"opening_hours": "sometimes"}, "opening_hours"),
        ({"attributes": {"a": {"b": 1}}}, "attributes.a"),
        ({"attributes": {"a": 10**400}}, "attributes.a"),
        ({"categories": [""]}, "categories.0"),
        ({"categories": ["a\u0000"]}, "categories.0"),
        ({"title": "a\u0000"}, "title"),
        ({"released_at": "yesterday"}, "released_at"),
        ({"available": None}, "available"),
        ({"available": "no"}, "available"),
    ],
)
async def test_what_has_no_meaning_is_refused_by_its_field(
    client: httpx.AsyncClient, live_items: FakeItems, body: dict[str, Any], field: str
) -> None:
    """And nothing is stored; in a batch the others are."""
    answer = await client.put("/v1/items/a", json=body)
    problem = check_problem(answer, 422, "invalid-request")
    assert problem["errors"][0]["field"] == field
    assert live_items.said == {}
    items = [{"item_id": "bad"} | body, {"item_id": "good", "title": "G"}]
    batch = (await client.post("/v1/items", json={"items": items})).json()
    assert (batch["accepted"], batch["rejected"]) == (1, 1)
    assert batch["results"][0]["error"]["field"] == field
    assert [*live_items.said] == ["good"]


async def test_a_restart_shows_nothing_that_was_taken_away(
    settings: Settings, bundle: LoadedBundle, stores: dict[str, Any], clock: FakeClock
) -> None:
    """The first answer of a new process knows the live catalogue, deleted strangers too."""
    async with client_of(create_app(settings, **stores, bundle=bundle, clock=clock)) as first:
        await put(first, "x", title="X")
        await put(first, "action-1", available=False)
        for item_id in ("x", "drama-1"):
            assert (await first.delete(f"/v1/items/{item_id}")).status_code == 204
    async with client_of(create_app(settings, **stores, bundle=bundle, clock=clock)) as second:
        listed = await post(second, candidates=["x", "action-1", "drama-1", "drama-2"])
        assert item_ids(listed) == ["drama-2"]


async def test_a_process_that_is_far_behind_serves_its_own_change(
    settings: Settings, bundle: LoadedBundle, stores: dict[str, Any], clock: FakeClock
) -> None:
    """Another process posted more than one page of the log; the answer to a put must not be 404."""
    app = create_app(settings, **stores, bundle=bundle, clock=clock)
    async with client_of(app) as client:
        live_items: FakeItems = stores["live_items"]
        live_items.page = 2
        for number in range(5):
            await live_items.change([ItemChange(f"other-{number}", {"title": "O"}, True)])
        assert (await put(client, "mine", title="M")).json()["title"] == "M"


async def test_items_may_be_put_while_models_switch(
    folder: Path, old: str, new: str, announcements: FakeAnnouncements, live_items: FakeItems
) -> None:
    """The two bundles count their items from other ends; what was said stays with its item."""
    stores = fake_stores(live_items=live_items)
    app = create_app(
        Settings(bundle_path=folder), **stores, announcements=announcements, clock=FakeClock()
    )
    async with client_of(app) as client:
        await put(client, "drama-3", **NEW)
        for version in (new, old, new):
            switch = client.post(f"/v1/models/{version}/activate")
            flip = client.post(
                "/v1/items", json={"items": [{"item_id": "drama-1", "lat": 1, "lon": 2}]}
            )
            answers = await asyncio.gather(switch, flip)
            assert [answer.status_code for answer in answers] == [200, 200]
            assert (await client.get("/v1/items/drama-1")).json()["lat"] == 1.0
            similar = (await client.get("/v1/items/drama-1/similar", params={"k": 1})).json()
            assert similar["items"][0]["item_id"] == "drama-3"
