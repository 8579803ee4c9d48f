"""Explanations over HTTP: what they say must be what the same calls without an event say."""

from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from service.app import create_app
from service.bundle_loader import load_bundle
from service.config import Settings
from service.explanations import SHARES
from tests.builders import MS_PER_HOUR, make_bundle
from tests.clients import client_of
from tests.fake_stores import fake_stores
from tests.fakes import NOON_MS
from tests.text_bundles import make_text_bundle

ITEMS = ("action-1", "drama-1", "action-2", "night-1", "drama-2", "action-3")
OLD = {"major": 1, "minor": 4}


def session(*items: str) -> list[dict[str, Any]]:
    """Return events of a session, an hour apart, the last one an hour ago."""
    return [
        {"item_id": item, "event_type": "view", "timestamp": NOON_MS - MS_PER_HOUR * (ago + 1)}
        for ago, item in zip(reversed(range(len(items))), items, strict=True)
    ]


async def ask(client: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    """Ask for recommendations at noon; the answer must be one."""
    asked = {"now": NOON_MS, "k": 6, "exclude_seen": "none"} | body
    answer = await client.post("/v1/recommendations", json=asked)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def scores(answer: dict[str, Any]) -> dict[str, float]:
    """Return an answer's scores by item."""
    return {item["item_id"]: item["score"] for item in answer["items"]}


@pytest.fixture
def copying(tmp_path: Path) -> Path:
    """Return a bundle that favours the window's own items."""
    return make_bundle(tmp_path / "copying", copy_weight=0.4)


@pytest.mark.parametrize("length", range(1, 7))
async def test_shares_add_up_to_the_score(copying: Path, length: int) -> None:
    """They are parts of one sum, whatever is seen, copied, or left out of a long history."""
    async with client_of(create_app(Settings(), bundle=load_bundle(copying), **fake_stores())) as c:
        answer = await ask(c, events=session(*ITEMS[:length]), explain=True)
    for item in answer["items"]:
        shares = item["explanation"]["shares"]
        assert list(shares) == list(SHARES)
        assert sum(shares.values()) == pytest.approx(item["score"], abs=1e-5)
    assert answer["explanation"]["num_events"] == min(length, 4)


@pytest.mark.parametrize("length", range(2, 7))
async def test_a_contribution_is_what_the_call_without_the_event_lacks(
    copying: Path, length: int
) -> None:
    """The seventh of seven events makes room for the third in a window of four."""
    events = session(*ITEMS[:length])
    async with client_of(create_app(Settings(), bundle=load_bundle(copying), **fake_stores())) as c:
        answer = await ask(c, events=events, explain=True)
        history = answer["explanation"]["history"]
        first = length - len(history)
        for place in range(len(history)):
            left = [event for at, event in enumerate(events) if at != first + place]
            lacking = scores(await ask(c, events=left))
            for item in answer["items"]:
                expected = item["score"] - lacking[item["item_id"]]
                found = item["explanation"]["events"][place]
                assert found == pytest.approx(expected, abs=1e-5)
    assert [event["item_id"] for event in history] == list(ITEMS[first:length])


async def test_the_strongest_events_are_named_and_read(client: httpx.AsyncClient) -> None:
    """`because` is what `events` says, best first, and the sentence begins with it."""
    answer = await ask(client, events=session("drama-1", "action-1"), explain=True, k=1)
    [item] = answer["items"]
    events, because = item["explanation"]["events"], item["explanation"]["because"]
    assert because[0]["contribution"] == max(events) == events[because[0]["position"]]
    assert because[0] | {"timestamp": ""} == {
        "position": 1,
        "item_id": "action-1",
        "title": "Title of action-1",
        "event_type": "view",
        "timestamp": "",
        "contribution": max(events),
    }
    assert item["reason"].startswith("Because you viewed Title of action-1 1 hour ago")


async def test_a_user_is_explained_by_the_stored_history(client: httpx.AsyncClient) -> None:
    """The short call explains as the long one does."""
    events = [one | {"user_id": "anna"} for one in session("action-1", "drama-1")]
    await client.post("/v1/events", json={"events": events})
    path = "/v1/users/anna/recommendations"
    params = {"now": str(NOON_MS), "explain": "true", "k": "6", "exclude_seen": "none"}
    of_user = (await client.get(path, params=params)).json()
    of_session = await ask(client, events=session("action-1", "drama-1"), explain=True)
    assert of_user["explanation"] == of_session["explanation"]
    assert of_user["items"] == of_session["items"]


async def test_nothing_is_explained_that_was_not_asked(client: httpx.AsyncClient) -> None:
    """No field, not even an empty one."""
    answer = await ask(client, events=session("action-1"))
    assert "explanation" not in answer
    assert not {"explanation", "reason"} & set(answer["items"][0])


async def test_what_is_popular_says_only_so(client: httpx.AsyncClient) -> None:
    """Nobody's model made the list."""
    answer = await ask(client, explain=True)
    assert answer["explanation"] is None
    assert {item["explanation"] for item in answer["items"]} == {None}
    assert answer["items"][0]["reason"] == "Popular at the moment."


async def test_attention_needs_an_explanation(client: httpx.AsyncClient) -> None:
    """It is shown beside causes, never in their place."""
    answer = await client.post("/v1/recommendations", json={"attention": True})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "attention"


async def test_a_bundle_without_attention_says_so(client: httpx.AsyncClient) -> None:
    """The rest of the explanation is there."""
    answer = await ask(client, events=session("action-1"), explain=True, attention=True)
    assert answer["explanation"]["attention"] is None
    assert answer["explanation"]["unknown"] == ["attention"]


async def test_an_older_bundle_is_explained_without_parts_of_rows(tmp_path: Path) -> None:
    """What its history's share holds besides is named."""
    path = make_text_bundle(tmp_path, schema_version=OLD)
    async with client_of(create_app(Settings(), bundle=load_bundle(path), **fake_stores())) as c:
        answer = await ask(c, events=session("action-1", "drama-1"), explain=True)
    assert answer["explanation"]["unknown"] == ["place", "text"]
    for item in answer["items"]:
        assert item["explanation"]["shares"]["text"] == 0
        assert sum(item["explanation"]["shares"].values()) == pytest.approx(item["score"], abs=1e-5)


@pytest.mark.parametrize("with_events", [False, True])
async def test_words_have_the_text_share(tmp_path: Path, with_events: bool) -> None:
    """Shares add up with words too, and without a history all is the words'."""
    bundle = load_bundle(make_text_bundle(tmp_path))
    events = session("action-1", "drama-1") if with_events else []
    async with client_of(create_app(Settings(), bundle=bundle, **fake_stores())) as c:
        answer = await ask(c, events=events, query="drama", explain=True)
    assert answer["explanation"]["num_events"] == len(events)
    for item in answer["items"]:
        shares = item["explanation"]["shares"]
        assert sum(shares.values()) == pytest.approx(item["score"], abs=1e-5)
        if not with_events:
            assert shares["text"] == pytest.approx(item["score"], abs=1e-5)


async def test_text_and_place_parts_are_taken_from_the_bundle(tmp_path: Path) -> None:
    """With half of every row its text and a quarter its place, so are the shares."""

    def write(folder: Path) -> None:
        matrix = np.load(folder / "item_matrix.npy")
        np.save(folder / "text_rows.npy", (matrix / 2).astype(np.float16))
        np.save(folder / "place_rows.npy", (matrix / 4).astype(np.float16))

    bundle = load_bundle(make_bundle(tmp_path, change_files=write))
    async with client_of(create_app(Settings(), bundle=bundle, **fake_stores())) as c:
        answer = await ask(c, events=session("action-1"), explain=True)
    for item in answer["items"]:
        shares = item["explanation"]["shares"]
        assert shares["text"] == pytest.approx(item["score"] / 2, abs=1e-3)
        assert shares["place"] == pytest.approx(item["score"] / 4, abs=1e-3)
        assert sum(shares.values()) == pytest.approx(item["score"], abs=1e-5)


async def test_only_the_newest_events_are_examined(copying: Path) -> None:
    """The setting bounds what a request may cost."""
    settings = Settings(explain_events=2)
    async with client_of(create_app(settings, bundle=load_bundle(copying), **fake_stores())) as c:
        answer = await ask(c, events=session(*ITEMS[:4]), explain=True)
    assert [one["item_id"] for one in answer["explanation"]["history"]] == list(ITEMS[2:4])
    assert answer["explanation"]["num_events"] == 4


async def test_too_late_is_an_answer_without_reasons(
    copying: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list is what was asked for first."""

    async def never(*_: object) -> None:
        raise TimeoutError

    monkeypatch.setattr("service.turns.Turns.do", never)
    async with client_of(create_app(Settings(), bundle=load_bundle(copying), **fake_stores())) as c:
        answer = await ask(c, events=session("action-1"), explain=True)
    assert answer["degraded"] == ["explanation"]
    assert answer["explanation"] is None
    assert answer["items"][0]["source"] == "model"
