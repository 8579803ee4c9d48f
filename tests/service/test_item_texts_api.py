"""New items and their texts over HTTP: found by what they say, whatever that is."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from service.app import create_app
from service.bundle_loader import LoadedBundle, load_bundle
from service.config import Settings
from tests.builders import event
from tests.clients import client_of, item_ids, metric
from tests.fake_stores import fake_stores
from tests.fakes import NOON_MS, FakeClock, FakeHistory
from tests.service.test_bad_inputs import check_field
from tests.text_bundles import make_text_bundle

MIDNIGHT_MS = NOON_MS - 12 * 3_600_000
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def text_bundle(tmp_path_factory: pytest.TempPathFactory) -> LoadedBundle:
    """Return a bundle that reads texts."""
    return load_bundle(make_text_bundle(tmp_path_factory.mktemp("texts")))


@pytest.fixture
async def reader(
    settings: Settings, text_bundle: LoadedBundle, history: FakeHistory, clock: FakeClock
) -> AsyncIterator[httpx.AsyncClient]:
    """Return a client of an application whose bundle reads texts."""
    app = create_app(settings, **fake_stores(history=history), bundle=text_bundle, clock=clock)
    async with client_of(app) as running:
        yield running


async def put(client: httpx.AsyncClient, item_id: str, **body: Any) -> dict[str, Any]:
    """Put an item; it must be taken."""
    answer = await client.put(f"/v1/items/{item_id}", json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def similar(client: httpx.AsyncClient, item_id: str, k: int = 3) -> list[str]:
    """Return what is like an item."""
    return item_ids(await client.get(f"/v1/items/{item_id}/similar", params={"k": k}))


async def test_a_new_item_is_found_by_its_text_at_once(
    reader: httpx.AsyncClient, history: FakeHistory
) -> None:
    """`Drama` is (0, 1, 0), as drama-1 is; its category alone is at (.95, .05, 0)."""
    await history.append([event(item_id="drama-1", timestamp_ms=MIDNIGHT_MS - 1)])
    said = await put(reader, "new", title="Drama", text="unheard of", categories=["action"])
    assert (said["title"], said["text"], said["is_trained"]) == ("Drama", "unheard of", False)
    body = {"user_id": "anna", "now": MIDNIGHT_MS, "exclude_seen": "none", "k": 3}
    answer = (await reader.post("/v1/recommendations", json=body)).json()
    found = {item["item_id"]: (item["source"], item["score"]) for item in answer["items"]}
    # Half drama, half action: the text is title, text and the names of the categories.
    assert found["new"] == ("new", pytest.approx(0.5**0.5))
    assert [*found] == ["drama-1", "drama-2", "new"]


async def test_similar_items_know_a_new_one_both_ways(reader: httpx.AsyncClient) -> None:
    """In its neighbours' lists, and they in its own; the nearest is exactly there."""
    await put(reader, "new", title="night")
    assert (await similar(reader, "night-1"))[0] == "new"
    assert (await similar(reader, "new"))[0] == "night-1"
    await put(reader, "new", title="drama")
    assert (await similar(reader, "drama-1"))[0] == "new"
    assert (await similar(reader, "night-1"))[-1] != "new"


async def test_a_changed_title_leaves_a_trained_item_where_it_was(
    reader: httpx.AsyncClient,
) -> None:
    """Its own history says more than a title."""
    await put(reader, "night-1", title="Drama")
    assert (await reader.get("/v1/items/night-1")).json()["title"] == "Drama"
    assert (await similar(reader, "drama-1"))[0] == "drama-2"
    assert await metric(reader, 'sojourn_texts_total{result="encoder"}') == 0


@pytest.mark.parametrize(
    "body",
    [
        {"title": "🎉🎊"},
        {"title": ""},
        {"title": "", "text": ""},
        {"title": None, "text": None},
        {"title": "   "},
        {"title": "مسرحية דרמה"},
        {"title": "\u202edrama\u202c"},
        {"title": "\u0001\u0007\u200b"},
        {"title": "drama\u0001\n\t"},
        {"text": "drama " * 3_300},
        {"text": "x" * 20_000},
        {"title": "é" * 1_000},
        {"categories": ["🎉"]},
    ],
)
async def test_any_text_makes_an_item_that_can_be_recommended(
    reader: httpx.AsyncClient, body: dict[str, Any]
) -> None:
    """Emoji, nothing, right to left, controls, long: stored as it was sent, and never a 500."""
    assert (await put(reader, "odd", **body))["available"] is True
    stored = (await reader.get("/v1/items/odd")).json()
    assert {name: stored[name] for name in body} == body
    listed = await reader.post("/v1/recommendations", json={"candidates": ["odd", "drama-1"]})
    assert "odd" in item_ids(listed)
    assert len(await similar(reader, "odd")) == 3
    await reader.put("/v1/items/odd", json=body)
    assert await metric(reader, "sojourn_unhandled_errors_total") == 0
    assert await metric(reader, 'sojourn_texts_total{result="failed"}') == 0


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (json.dumps({"text": "a" * 100_000}), "text"),
        (json.dumps({"title": "a" * 1_001}), "title"),
        (json.dumps({"title": "a\u0000b"}), "title"),
        (r'{"title": "\ud800"}', "title"),
        (r'{"text": "drama \udfff"}', "text"),
        (json.dumps({"title": ["drama"]}), "title"),
    ],
)
async def test_a_text_that_cannot_be_kept_is_refused_by_its_field(
    reader: httpx.AsyncClient, body: str, field: str
) -> None:
    """100 kB, NUL, lone surrogates, no text: field, value, fix, and nothing is stored or read."""
    error = check_field(await reader.put("/v1/items/odd", content=body, headers=JSON), field)
    assert len(error["value"]) <= 100
    assert (await reader.get("/v1/items/odd")).status_code == 404
    assert await metric(reader, 'sojourn_texts_total{result="encoder"}') == 0


async def test_several_items_of_one_call_are_read_before_its_answer(
    reader: httpx.AsyncClient,
) -> None:
    """As one is; three texts, two of them the same, cost two."""
    items = [
        {"item_id": "n1", "title": "night"},
        {"item_id": "n2", "title": "night"},
        {"item_id": "d", "title": "drama"},
    ]
    answer = await reader.post("/v1/items", json={"items": items})
    assert answer.json()["accepted"] == 3
    assert (await similar(reader, "night-1"))[:2] == ["n1", "n2"]
    assert await metric(reader, 'sojourn_texts_total{result="encoder"}') == 2


async def test_a_change_is_stored_while_the_texts_before_it_wait(
    settings: Settings, text_bundle: LoadedBundle, clock: FakeClock
) -> None:
    """With a queue of one, the other texts of a post are read later, and no item is refused."""
    narrow = settings.model_copy(update={"max_pending": 1})
    app = create_app(narrow, **fake_stores(), bundle=text_bundle, clock=clock)
    async with client_of(app) as client:
        items = [{"item_id": f"new{at}", "title": f"tea {at}"} for at in range(4)]
        assert (await client.post("/v1/items", json={"items": items})).status_code == 200
        for item in items:
            assert (await client.get(f"/v1/items/{item['item_id']}")).status_code == 200
