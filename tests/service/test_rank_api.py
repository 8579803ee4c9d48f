"""POST /v1/rank: the caller's candidates in the order of a declared blend."""

from typing import Any

import httpx
import pytest

from service.app import create_app
from service.blend_terms import Term
from service.bundle_loader import LoadedBundle
from service.config import Settings
from tests.builders import event
from tests.clients import client_of, item_ids
from tests.fakes import NOON_MS, FakeClock, FakeHistory

MIDNIGHT_MS = NOON_MS - 12 * 3_600_000
MODEL = {"feature": "model", "weight": 1, "scale": "none"}


@pytest.fixture(autouse=True)
async def _user_of_action(history: FakeHistory) -> None:
    """Anna's scores at midnight: action-1 1, action-2 .9, action-3 .8, drama-2 .1, drama-1 0."""
    await history.append([event(item_id="action-1", timestamp_ms=MIDNIGHT_MS - 86_400_000)])


def candidates(*ids: str, **features: list[float]) -> list[dict[str, Any]]:
    """Return candidates with the caller's numbers, one of each list for each."""
    return [
        {"item_id": text, "features": {name: each[at] for name, each in features.items()}}
        for at, text in enumerate(ids)
    ]


async def rank(client: httpx.AsyncClient, **body: Any) -> httpx.Response:
    """Rank for anna at midnight; the answer must be one."""
    answer = await client.post("/v1/rank", json={"user_id": "anna", "now": MIDNIGHT_MS} | body)
    assert answer.status_code == 200, answer.text
    return answer


async def test_without_a_blend_the_order_is_the_models(client: httpx.AsyncClient) -> None:
    """Seen items stay: the caller asked about them. The unknown one scores 0, as drama-1 does."""
    items = candidates("new", "drama-1", "action-3", "action-1", "action-3")
    answer = (await rank(client, items=items)).json()
    assert [(one["item_id"], one["rank"]) for one in answer["items"]] == [
        ("action-1", 1),
        ("action-3", 2),
        ("drama-1", 3),
        ("new", 4),
    ]
    assert [one["score"] for one in answer["items"]] == pytest.approx([1, 0.8, 0, 0])
    assert answer["items"][-1]["source"] == "new"
    assert answer["unknown_candidates"] == ["new"]


async def test_a_blend_weighs_the_callers_numbers_and_says_so(client: httpx.AsyncClient) -> None:
    """Margins 0, .5 and 1: action-1 1 + 0, action-3 .8 + .25, new 0 + .5."""
    items = candidates("action-1", "action-3", "new", margin=[10.0, 15.0, 20.0])
    terms = [MODEL, {"feature": "features.margin", "weight": 0.5}]
    answer = (await rank(client, items=items, blend=terms, explain=True)).json()
    assert item_ids_of(answer) == ["action-3", "action-1", "new"]
    for item, parts in zip(answer["items"], [(0.8, 0.25), (1, 0), (0, 0.5)], strict=True):
        assert item["parts"] == pytest.approx({"model": parts[0], "features.margin": parts[1]})
        assert item["score"] == pytest.approx(sum(item["parts"].values()))


@pytest.mark.parametrize(
    ("term", "body", "expected"),
    [
        pytest.param(
            {"feature": "attributes.price", "weight": -1},
            {},
            ["action-1", "drama-2", "drama-1", "action-2"],
            id="cheap first: 5, none, none, 15",
        ),
        pytest.param(
            {"feature": "age_days", "weight": 1, "scale": "decay", "half_life": 1},
            {"now": NOON_MS},
            ["drama-2", "action-1", "action-2", "drama-1"],
            id="fresh first: only drama-2 says when, the others are by the model",
        ),
        pytest.param(
            {"feature": "distance_km", "weight": 1, "scale": "decay", "half_life": 1},
            {"place": {"lat": 48.86, "lon": 2.35}},
            ["drama-1", "action-1", "action-2", "drama-2"],
            id="near first",
        ),
        pytest.param(
            {"feature": "popularity", "weight": 1},
            {},
            ["drama-1", "action-1", "action-2", "drama-2"],
            id="popular first, then by the model",
        ),
    ],
)
async def test_what_is_known_of_items_can_be_weighed(
    client: httpx.AsyncClient, term: dict[str, Any], body: dict[str, Any], expected: list[str]
) -> None:
    """Price, age, distance and popularity are the catalogue's; a tie is broken by the model."""
    items = candidates("action-1", "action-2", "drama-1", "drama-2")
    assert item_ids(await rank(client, items=items, blend=[term], **body)) == expected


async def test_a_stranger_gets_the_popular_first(client: httpx.AsyncClient) -> None:
    """The model has nothing to say of anybody, so the ladder breaks the ties."""
    items = candidates("action-3", "drama-1", "action-2")
    answer = (await rank(client, user_id="nobody", now=NOON_MS, items=items)).json()
    assert item_ids_of(answer) == ["action-2", "drama-1", "action-3"]
    assert {one["source"] for one in answer["items"]} == {"popular"}


async def test_k_cuts_the_list(client: httpx.AsyncClient) -> None:
    """The rest is ranked and not sent."""
    items = candidates("drama-1", "action-2", "action-1")
    assert item_ids(await rank(client, items=items, k=2)) == ["action-1", "action-2"]


async def test_a_blend_can_be_named_in_the_settings(
    settings: Settings, bundle: LoadedBundle, stores: dict[str, Any], clock: FakeClock
) -> None:
    """An operator tunes weights without the callers; `default` is for who names none."""
    blends = {
        "default": (Term("model", -1.0, "none"),),
        "margin": (Term("features.margin", 1.0),),
    }
    named = settings.model_copy(update={"blends": blends})
    app = create_app(named, **stores, bundle=bundle, clock=clock)
    items = candidates("action-1", "drama-1", "action-3", margin=[2.0, 1.0, 3.0])
    async with client_of(app) as client:
        assert item_ids(await rank(client, items=items))[-1] == "action-1"
        margin = await rank(client, items=items, blend="margin")
        assert item_ids(margin) == ["action-3", "action-1", "drama-1"]
        answer = await client.post("/v1/rank", json={"items": items, "blend": "profit"})
        assert answer.status_code == 422
        assert "default, margin" in answer.json()["errors"][0]["fix"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"items": []}, "items"),
        ({"items": [{"item_id": "a", "features": {"x": "1"}}]}, "items.0.features.x"),
        ({"items": [{"item_id": "a", "features": {"x": 1e13}}]}, "items.0.features.x"),
        ({"items": [{"item_id": "a", "margin": 1}]}, "items.0.margin"),
        ({"items": [{"item_id": "a"}], "blend": 5}, "blend"),
    ],
)
async def test_what_has_no_meaning_is_refused_by_its_field(
    client: httpx.AsyncClient, body: dict[str, Any], field: str
) -> None:
    """A caller can mend what is named."""
    answer = await client.post("/v1/rank", json=body)
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0]["field"] == field


async def test_a_term_that_means_nothing_says_what_would(client: httpx.AsyncClient) -> None:
    """The error lists the features that there are."""
    terms = [{"feature": "modell", "weight": 1}]
    answer = await client.post("/v1/rank", json={"items": candidates("a"), "blend": terms})
    assert answer.status_code == 422
    [problem] = answer.json()["errors"]
    assert problem["field"] == "blend.terms.0"
    assert "must be one of model, distance_km" in problem["fix"]


async def test_ten_thousand_candidates_are_one_request(client: httpx.AsyncClient) -> None:
    """As many as may be sent, nearly all of them unknown."""
    items = candidates("action-2", *(f"new-{number}" for number in range(9_999)))
    answer = (await rank(client, items=items, k=3)).json()
    assert answer["items"][0]["item_id"] == "action-2"
    assert len(answer["unknown_candidates"]) == 9_999


async def test_what_may_not_be_shown_is_left_out(client: httpx.AsyncClient) -> None:
    """Neither unavailable items nor deleted ones are ranked, though the caller names them."""
    await client.put("/v1/items/x", json={"title": "X"})
    await client.delete("/v1/items/x")
    gone = {"items": [{"item_id": "action-1", "available": False}]}
    await client.post("/v1/items", json=gone)
    items = candidates("x", "action-1", "action-2", "new")
    assert item_ids(await rank(client, items=items)) == ["action-2", "new"]


def item_ids_of(answer: dict[str, Any]) -> list[str]:
    """Return the ids of an answer's body, in their order."""
    return [item["item_id"] for item in answer["items"]]
