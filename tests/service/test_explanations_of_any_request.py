"""Explanations of every kind of request: shares add up, and items of no model have none."""

from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.app import create_app
from service.bundle_loader import load_bundle
from service.config import Settings
from tests.builders import make_bundle
from tests.clients import client_of
from tests.fake_stores import fake_stores
from tests.fakes import NOON_MS
from tests.service.test_explanations_api import ITEMS, ask, scores, session
from tests.text_bundles import make_text_bundle

EVENTS = session("action-1", "drama-1")
REQUESTS: dict[str, dict[str, Any]] = {
    "candidates": {"candidates": ["drama-2", "nowhere", "action-2"]},
    "filter": {"filter": {"must_not": [{"key": "categories", "match": {"any": ["night"]}}]}},
    "include": {"include": ["night-1"], "k": 2},
    "include seen": {"include": ["action-1"], "k": 2, "exclude_seen": "all"},
    "exploration": {"exploration": {"share": 0.6, "seed": 6}},
    "diversity": {"diversity": {"strength": 0.8}},
    "page": {"paginate": True, "k": 2},
    "place": {"place": {"lat": 48.86, "lon": 2.35}},
    "hour": {"now": "2026-01-14T20:00:00+05:30"},
    "words": {"query": "night"},
    "seen": {"exclude_seen": "all"},
    "user without history": {"user_id": "nobody"},
    "likes": {"events": [], "user_id": "new", "onboarding": {"items": ["drama-1"]}},
}


async def checked(client: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    """Return an explained answer whose shares were added up."""
    answer = await ask(client, explain=True, **body)
    assert answer["items"]
    for item in answer["items"]:
        why = item["explanation"]
        # A new item that has a vector is the model's too, an unknown candidate is not.
        is_known = item["source"] == "new" and item["item_id"] not in answer["unknown_candidates"]
        assert (why is not None) == (item["source"] == "model" or is_known), item
        if why is not None:
            assert sum(why["shares"].values()) == pytest.approx(item["score"], abs=1e-5)
            assert len(why["events"]) == len(answer["explanation"]["history"])
        assert item["reason"]
    return answer


@pytest.mark.parametrize("kind", REQUESTS)
async def test_shares_add_up_however_the_list_is_asked_for(tmp_path: Path, kind: str) -> None:
    """And an explanation changes nothing of the list."""
    bundle = load_bundle(make_text_bundle(tmp_path))
    body = {"events": EVENTS} | REQUESTS[kind]
    async with client_of(create_app(Settings(), bundle=bundle, **fake_stores())) as client:
        answer = await checked(client, **body)
        assert scores(answer) == scores(await ask(client, **body))
    sources = {item["source"] for item in answer["items"]}
    assert "model" in sources
    assert ("explore" in sources) == (kind == "exploration")
    assert ("new" in sources) == (kind == "candidates")


async def test_categories_that_a_user_chose_are_no_deeds(client: httpx.AsyncClient) -> None:
    """What stands for them is told apart from what somebody did."""
    answer = await checked(client, onboarding={"categories": ["drama"]})
    history = answer["explanation"]["history"]
    assert history
    assert {event["event_type"] for event in history} == {"example"}
    reasons = [item["reason"] for item in answer["items"] if item["explanation"]["because"]]
    assert any(reason.startswith("Because you chose a category of ") for reason in reasons)
    liked = await checked(client, onboarding={"items": ["drama-1"]})
    assert [event["event_type"] for event in liked["explanation"]["history"]] == ["like"]


async def test_later_pages_have_no_reasons(client: httpx.AsyncClient) -> None:
    """They are as they were ranked; nothing of a past is kept with them."""
    first = await checked(client, events=EVENTS, paginate=True, k=2)
    page = await client.post("/v1/recommendations", json={"cursor": first["next_cursor"], "k": 2})
    assert page.status_code == 200
    assert "explanation" not in page.json()
    assert not {"explanation", "reason"} & set(page.json()["items"][0])


async def test_an_item_that_came_later_is_explained_by_its_vector(tmp_path: Path) -> None:
    """It has shares of the same sum, and as an event it is none that the encoder read."""
    bundle = load_bundle(make_text_bundle(tmp_path))
    async with client_of(create_app(Settings(), bundle=bundle, **fake_stores())) as client:
        put = await client.put("/v1/items/late", json={"title": "A drama at night"})
        assert put.status_code in (200, 201), put.text
        answer = await checked(client, events=[*EVENTS, *session("late")], k=10)
        assert "late" in scores(answer)
        history = [event["item_id"] for event in answer["explanation"]["history"]]
    assert history == ["action-1", "drama-1"]


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    items=st.lists(st.sampled_from([*ITEMS, "nowhere"]), min_size=1, max_size=7),
    ages_s=st.lists(st.integers(0, 10**7), min_size=7, max_size=7),
    now_ms=st.integers(NOON_MS, NOON_MS + 10**9),
    offset=st.integers(-720, 840),
)
async def test_any_session_is_explained_by_what_it_lacks_without_an_event(
    tmp_path: Path, items: list[str], ages_s: list[int], now_ms: int, offset: int
) -> None:
    """Each contribution is the difference to the same call without that event."""
    folder = tmp_path / "copying"
    bundle = load_bundle(folder if folder.exists() else make_bundle(folder, copy_weight=0.4))
    times = sorted(NOON_MS - 1_000 * age for age in ages_s[: len(items)])
    events = [
        {"item_id": item, "event_type": "view", "timestamp": at}
        for item, at in zip(items, times, strict=True)
    ]
    zone = timezone(timedelta(minutes=offset))
    body = {"now": datetime.fromtimestamp(now_ms // 1_000, zone).isoformat()}
    async with client_of(create_app(Settings(), bundle=bundle, **fake_stores())) as client:
        answer = await ask(client, events=events, explain=True, **body)
        known = [at for at, item in enumerate(items) if item in ITEMS]
        if len(known) < 2:
            return
        examined = known[-len(answer["explanation"]["history"]) :]
        for position, place in enumerate(examined):
            left = events[:place] + events[place + 1 :]
            lacking = scores(await ask(client, events=left, **body))
            for item in answer["items"]:
                expected = item["score"] - lacking[item["item_id"]]
                found = item["explanation"]["events"][position]
                assert found == pytest.approx(expected, abs=1e-5)
