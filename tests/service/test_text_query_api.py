"""Words in a request: they turn the list towards what they say, and towards nothing else."""

import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from service.app import create_app
from service.bundle_loader import LoadedBundle, load_bundle
from service.config import Settings
from service.contract.features import Float32s
from service.nearest import Bonus
from service.ranker import Encoded
from service.text_encoder import TextEncoder
from service.text_match import TextMatch
from tests.builders import event
from tests.clients import client_of, item_ids, metric
from tests.fake_stores import FakeExposures, fake_stores
from tests.fakes import NOON_MS, FakeClock, FakeHistory
from tests.service.test_bad_inputs import check_field
from tests.text_bundles import make_text_bundle

MIDNIGHT_MS = NOON_MS - 12 * 3_600_000
RECOMMEND = "/v1/recommendations"


@pytest.fixture(scope="module")
def text_bundle(tmp_path_factory: pytest.TempPathFactory) -> LoadedBundle:
    """Return a bundle that reads texts."""
    return load_bundle(make_text_bundle(tmp_path_factory.mktemp("texts")))


@pytest.fixture
def exposures() -> FakeExposures:
    """Return an empty store of exposures."""
    return FakeExposures()


@pytest.fixture
async def reader(
    settings: Settings,
    text_bundle: LoadedBundle,
    history: FakeHistory,
    exposures: FakeExposures,
    clock: FakeClock,
) -> AsyncIterator[httpx.AsyncClient]:
    """Return a client of an application whose bundle reads texts."""
    stores = fake_stores(history=history, exposures=exposures)
    app = create_app(settings, **stores, bundle=text_bundle, clock=clock)
    async with client_of(app) as running:
        yield running


async def post(client: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    """Ask for anna's list at midnight."""
    whole = {"user_id": "anna", "now": MIDNIGHT_MS, "exclude_seen": "none", "k": 3} | body
    answer = await client.post(RECOMMEND, json=whole)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def scores(answer: dict[str, Any]) -> dict[str, float]:
    """Return the scores of an answer by item."""
    return {item["item_id"]: item["score"] for item in answer["items"]}


def encoded(*query: float, weights: tuple[float, ...] = ()) -> Encoded:
    """Return what an encoder might say."""
    items = np.arange(1, len(weights) + 1)
    return Encoded(np.array(query, np.float32), Bonus(items, np.array(weights, np.float32)), 9)


def direction(*vector: float) -> Float32s:
    """Return a vector."""
    return np.array(vector, np.float32)


def test_the_query_vector_is_turned_and_keeps_its_measure() -> None:
    """A quarter of (0, 10) beside three quarters of (10, 0): |q| is 10, and t has length 1."""
    match = TextMatch.of(direction(0, 3), 0.25)
    before = encoded(10, 0, weights=(4.0, 8.0))
    after = match.blended(before)
    assert after.query.tolist() == [7.5, 2.5]
    assert after.bonus.weights.tolist() == [3.0, 6.0]
    assert after.until_ms == 9
    assert before.query.tolist() == [10, 0]
    assert before.bonus.weights.tolist() == [4.0, 8.0]


def test_without_taste_the_words_are_all_and_without_words_the_taste_is() -> None:
    """A query vector of nothing has no length to give to the text."""
    match = TextMatch.of(direction(0, 3), 0.25)
    assert match.alone is not None
    assert match.blended(match.alone).query.tolist() == [0, 1]
    nothing = TextMatch.of(direction(0, 0), 0.25)
    assert nothing.alone is None
    assert nothing.blended(encoded(10, 0)).query.tolist() == [10, 0]
    assert TextMatch.of(direction(0, 3), 0.0).alone is None


async def test_words_and_taste_make_the_list_together(
    reader: httpx.AsyncClient, history: FakeHistory
) -> None:
    """After action-1 the query is (1, 0, 0); half of it and half of drama is (.5, .5, 0)."""
    await history.append([event(item_id="action-1", timestamp_ms=MIDNIGHT_MS - 1)])
    by_taste = await post(reader)
    assert scores(by_taste) == pytest.approx({"action-1": 1, "action-2": 0.9, "action-3": 0.8})
    half = await post(reader, query="Drama", k=6)
    assert scores(half) == pytest.approx(
        {"action-1": 0.5, "action-2": 0.5, "action-3": 0.4, "drama-1": 0.5, "drama-2": 0.5}
        | {"night-1": 0}
    )
    by_words = await post(reader, query="Drama", query_weight=1, k=2)
    assert scores(by_words) == pytest.approx({"drama-1": 1, "drama-2": 0.9})
    assert {item["source"] for item in by_words["items"]} == {"model"}
    assert by_words["degraded"] == []
    assert scores(await post(reader, query="Drama", query_weight=0)) == scores(by_taste)


async def test_somebody_without_events_is_answered_by_the_words_alone(
    reader: httpx.AsyncClient,
) -> None:
    """Of length 1: the score is the product with each item's vector."""
    answer = await post(reader, user_id="nobody", query="drama")
    assert scores(answer) == pytest.approx({"drama-1": 1, "drama-2": 0.9, "action-2": 0.1})
    assert answer["source"] == "model"
    whole = {"now": MIDNIGHT_MS, "query": "drama", "k": 1}
    assert item_ids(await reader.post(RECOMMEND, json=whole)) == ["drama-1"]


async def test_words_go_with_events_that_are_not_stored(reader: httpx.AsyncClient) -> None:
    """An anonymous session: (1, 0, 0) of its view, and a fifth of the night."""
    seen = {"item_id": "action-1", "event_type": "view", "timestamp": MIDNIGHT_MS - 1}
    answer = await post(reader, user_id=None, events=[seen], query="night", query_weight=0.2, k=6)
    found = scores(answer)
    assert found["action-1"] == pytest.approx(0.8)
    assert found["night-1"] == pytest.approx(0.2)


async def test_filters_and_exclusions_hold_for_words_too(
    reader: httpx.AsyncClient, history: FakeHistory
) -> None:
    """What may be shown is chosen before any score."""
    await history.append([event(item_id="drama-1", timestamp_ms=MIDNIGHT_MS - 1)])
    only = {"must": [{"key": "categories", "match": {"value": "drama"}}]}
    assert [*scores(await post(reader, query="action", filter=only))] == ["drama-1", "drama-2"]
    excluded = await post(reader, query="drama", exclude=["drama-1"], k=1)
    assert [*scores(excluded)] == ["drama-2"]
    unseen = await post(reader, query="drama", exclude_seen="all", k=1)
    assert [*scores(unseen)] == ["drama-2"]
    listed = await post(reader, query="drama", candidates=["night-1", "drama-2"])
    assert [*scores(listed)] == ["drama-2", "night-1"]
    varied = await post(reader, query="drama", diversity={"max_per_group": 1}, k=2)
    assert varied["items"][0]["item_id"] == "drama-1"
    assert "drama-2" not in scores(varied)


async def test_what_is_kept_of_a_user_knows_nothing_of_the_words(
    text_bundle: LoadedBundle, history: FakeHistory, clock: FakeClock, tmp_path: Path
) -> None:
    """The answer of the encoder is kept as it was, and is taken for words and without."""
    bundle = load_bundle(make_text_bundle(tmp_path / "b", says_until=True))
    settings = Settings(redis_url=None, kept_readings_mib=1)
    app = create_app(settings, **fake_stores(history=history), bundle=bundle, clock=clock)
    await history.append([event(item_id="action-1", timestamp_ms=MIDNIGHT_MS - 1)])
    kept = 'sojourn_encoded_windows_total{source="kept"}'
    async with client_of(app) as client:
        first = await post(client, query="drama", query_weight=1)
        plain = await post(client)
        again = await post(client, query="drama", query_weight=1)
        assert await metric(client, kept) == 2
    assert scores(first) == scores(again)
    assert scores(plain) == pytest.approx({"action-1": 1, "action-2": 0.9, "action-3": 0.8})


async def test_a_list_for_words_has_pages_and_a_policy_of_its_own(
    reader: httpx.AsyncClient, exposures: FakeExposures
) -> None:
    """Whoever learns from what was shown must be able to leave such lists out."""
    first = await post(reader, query="drama", paginate=True, k=2)
    rest = await reader.post(
        RECOMMEND, json={"cursor": first["next_cursor"], "user_id": "anna", "k": 2}
    )
    assert item_ids(rest)[0] not in scores(first)
    assert (await exposures.first()).policy == "text"
    more = {"cursor": first["next_cursor"], "user_id": "anna", "query": "drama"}
    check_field(await reader.post(RECOMMEND, json=more), "query")


async def test_the_same_words_are_read_once(reader: httpx.AsyncClient) -> None:
    """Many people send the same."""
    for user_id in ("anna", "berta", "cilly"):
        await post(reader, user_id=user_id, query=" drama ")
    assert await metric(reader, 'sojourn_texts_total{result="encoder"}') == 1
    assert await metric(reader, 'sojourn_texts_total{result="kept"}') == 2


async def test_a_model_that_reads_no_texts_says_so_with_the_fix(
    client: httpx.AsyncClient,
) -> None:
    """Rather than a list that has nothing to do with the words."""
    error = check_field(await client.post(RECOMMEND, json={"query": "drama"}), "query")
    assert "leave `query` out" in error["fix"]
    assert "[text]" in error["fix"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"query": ""}, "query"),
        ({"query": "  \n "}, "query"),
        ({"query": "x" * 513}, "query"),
        ({"query": 5}, "query"),
        ({"query": "a\u0000b"}, "query"),
        ({"query": "drama", "query_weight": 1.01}, "query_weight"),
        ({"query": "drama", "query_weight": -0.1}, "query_weight"),
        ({"query": "drama", "query_weight": "1"}, "query_weight"),
        ({"query_weight": 0.5}, "query_weight"),
    ],
)
async def test_words_that_cannot_be_read_are_refused_by_their_field(
    reader: httpx.AsyncClient, body: dict[str, Any], field: str
) -> None:
    """1 to 512 characters, and a weight from 0 to 1 that goes with them."""
    check_field(await reader.post(RECOMMEND, json=body), field)


async def test_a_lone_surrogate_is_no_text(reader: httpx.AsyncClient) -> None:
    """JSON can write it down, and UTF-8 cannot."""
    headers = {"content-type": "application/json"}
    answer = await reader.post(RECOMMEND, content=rb'{"query": "\ud800"}', headers=headers)
    check_field(answer, "query")


@pytest.mark.parametrize("query", ["x" * 512, "🎉", "שלום עולם", "\u0001", "\u202edrama"])
async def test_any_words_get_a_list(reader: httpx.AsyncClient, query: str) -> None:
    """What says nothing to the encoder changes nothing: here the list is what is popular."""
    answer = await post(reader, user_id="nobody", query=query)
    assert len(answer["items"]) == 3
    assert await metric(reader, "sojourn_unhandled_errors_total") == 0


async def test_words_that_take_too_long_leave_taste_alone(
    settings: Settings,
    text_bundle: LoadedBundle,
    history: FakeHistory,
    clock: FakeClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Half of the time is left for the model, whose list is that of a request without words."""

    def slow(_self: TextEncoder, texts: Sequence[str]) -> Float32s:
        time.sleep(1.5)
        return np.zeros((len(texts), 1), np.float32)

    monkeypatch.setattr(TextEncoder, "encode", slow)
    hasty = settings.model_copy(update={"request_deadline_ms": 1_000})
    app = create_app(hasty, **fake_stores(history=history), bundle=text_bundle, clock=clock)
    async with client_of(app) as client:
        plain = await post(client)
        worded = await post(client, query="tea")
    assert worded["degraded"] == ["text"]
    assert scores(worded) == scores(plain)
