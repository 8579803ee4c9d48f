import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.app import create_app
from service.bundle_loader import LoadedBundle, load_bundle
from service.config import Settings
from service.contract.bundle import ENCODER_FILE
from service.contract.errors import ContractError
from service.item_rows import ItemRows
from service.ranker import Ranker, open_encoder
from tests.builders import (
    ITEM_ROWS,
    MS_PER_HOUR,
    POPULAR,
    POPULAR_AT_NOON,
    event,
    event_json,
    make_bundle,
    window,
)
from tests.clients import client_of, item_ids, metric, recommended
from tests.fake_stores import fake_stores
from tests.fakes import NOON_MS, FakeClock, FakeCounters, FakeHistory
from tests.scoring import catalogue_scores

MIDNIGHT_MS = NOON_MS - 12 * MS_PER_HOUR


async def post(client: httpx.AsyncClient, **body: Any) -> httpx.Response:
    """Ask for a recommendation by body; the answer must be one."""
    answer = await client.post("/v1/recommendations", json=body)
    assert answer.status_code == 200, answer.text
    return answer


async def test_an_event_changes_the_next_answer(client: httpx.AsyncClient) -> None:
    """The promise of the project: read your writes."""
    now = {"now": str(MIDNIGHT_MS + 24 * MS_PER_HOUR)}
    await client.post("/v1/events", json={"events": [event_json(item_id="action-1")]})
    before = await recommended(client, **now)
    drama = [
        event_json(item_id="drama-1", timestamp=NOON_MS - minutes * 60_000)
        for minutes in range(1, 4)
    ]
    await client.post("/v1/events", json={"events": drama})
    assert before[0] == "action-1"
    assert (await recommended(client, **now))[0] == "drama-1"


async def test_scores_are_those_of_the_encoder_to_the_tolerance(
    client: httpx.AsyncClient, history: FakeHistory, bundle: LoadedBundle
) -> None:
    """What the service answers is what the graph says for the same window and time."""
    await history.append(
        [
            event(event_id="1", item_id="action-2", timestamp_ms=NOON_MS - 2),
            event(event_id="2", item_id="drama-1", timestamp_ms=NOON_MS - 1),
        ]
    )
    answer = (await client.get("/v1/users/anna/recommendations")).json()
    [scores] = catalogue_scores(bundle.ranker, window(2, 4))
    for item in answer["items"]:
        expected = scores[bundle.vocabulary.index(item["item_id"])]
        assert item["score"] == pytest.approx(float(expected), abs=1e-6)
    assert [item["rank"] for item in answer["items"]] == [1, 2, 3, 4, 5, 6]
    assert {item["source"] for item in answer["items"]} == {answer["source"]} == {"model"}


async def test_the_request_time_reaches_the_model(
    client: httpx.AsyncClient, history: FakeHistory
) -> None:
    """Late in the day the tiny model favours night-1, at midnight it does not."""
    await history.append([event(item_id="action-3")])
    late = await recommended(client, k=1, now="2026-01-14T23:59:00+00:00")
    early = await recommended(client, k=1, now=str(MIDNIGHT_MS))
    assert (late, early) == (["night-1"], ["action-1"])


async def test_a_model_that_ignores_time_is_given_none(
    tmp_path: Path, settings: Settings, history: FakeHistory, clock: FakeClock
) -> None:
    """It was trained and measured with the time unknown, which is 0."""
    bundle = load_bundle(make_bundle(tmp_path))
    features = bundle.manifest.features.model_copy(update={"uses_request_time": False})
    blind = replace(bundle, manifest=bundle.manifest.model_copy(update={"features": features}))
    app = create_app(settings, **fake_stores(history=history), bundle=blind, clock=clock)
    await history.append([event(item_id="action-3")])
    async with client_of(app) as client:
        assert await recommended(client, k=1, now="2026-01-14T23:59:00+00:00") == ["action-1"]


async def test_an_unknown_user_gets_what_is_popular_at_this_hour(
    client: httpx.AsyncClient,
) -> None:
    """A cold start is no error and no empty list; the hour's items come before the overall ones."""
    answer = (await client.get("/v1/users/stranger/recommendations")).json()
    rest = [item for item in (*POPULAR, *ITEM_ROWS) if item not in POPULAR_AT_NOON]
    expected = [*POPULAR_AT_NOON, *dict.fromkeys(rest)]
    assert [item["item_id"] for item in answer["items"]] == expected
    assert (answer["source"], answer["degraded"]) == ("popular", [])


async def test_the_hour_of_popularity_is_local(client: httpx.AsyncClient) -> None:
    """Noon in Tokyo is 3 a.m. in UTC: the offset of `now` decides."""
    tokyo = await recommended(client, k=1, now="2026-01-14T12:30:00+09:00")
    utc = await recommended(client, k=1, now="2026-01-14T03:30:00+00:00")
    assert (tokyo, utc) == ([POPULAR_AT_NOON[0]], [POPULAR[0]])


async def test_without_an_offset_the_last_events_offset_tells_the_hour(
    client: httpx.AsyncClient, history: FakeHistory, clock: FakeClock
) -> None:
    """At 3 a.m. in UTC it is noon for a user whose last event came from nine hours east."""
    clock.now_ms = NOON_MS - 9 * MS_PER_HOUR
    unknown_item = event(item_id="gone", tz_offset_min=540, timestamp_ms=clock.now_ms)
    await history.append([unknown_item])
    assert await recommended(client, k=1) == [POPULAR_AT_NOON[0]]


async def test_live_counts_come_before_the_bundles_where_no_hour_is_known(
    settings: Settings, bundle: LoadedBundle, clock: FakeClock
) -> None:
    """What is popular now is not what was popular in training; unknown items are left out."""
    counters = FakeCounters([("unheard-of", 99.0), ("drama-2", 5.0)])
    app = create_app(
        settings,
        **fake_stores(counters=counters),
        bundle=bundle,
        clock=clock,
    )
    async with client_of(app) as client:
        await asyncio.sleep(0)  # the first refresh takes its turn
        found = await recommended(client, k=2, now=str(MIDNIGHT_MS))
    assert found == ["drama-2", POPULAR[0]]


@pytest.mark.parametrize(("weight", "first"), [(199.0, POPULAR_AT_NOON[0]), (200.0, "drama-2")])
async def test_live_counts_lead_once_there_are_enough_of_them(
    settings: Settings, bundle: LoadedBundle, clock: FakeClock, weight: float, first: str
) -> None:
    """One visitor must not decide what the next one sees; two hundred events say what is new."""
    counters = FakeCounters([("drama-2", weight)])
    app = create_app(
        settings,
        **fake_stores(counters=counters),
        bundle=bundle,
        clock=clock,
    )
    async with client_of(app) as client:
        await asyncio.sleep(0)  # the first refresh takes its turn
        assert await recommended(client, k=1) == [first]


async def test_a_bundle_trained_on_utc_hours_is_asked_in_utc(
    settings: Settings, bundle: LoadedBundle, clock: FakeClock
) -> None:
    """Its log had no offsets: noon in Tokyo is the 3 a.m. that it knows."""
    features = bundle.manifest.features.model_copy(update={"knows_offsets": False})
    manifest = bundle.manifest.model_copy(update={"features": features})
    app = create_app(
        settings,
        **fake_stores(),
        bundle=replace(bundle, manifest=manifest),
        clock=clock,
    )
    async with client_of(app) as client:
        tokyo = await recommended(client, k=1, now="2026-01-14T12:30:00+09:00")
        far_west = await recommended(client, k=1, now="2026-01-14T03:30:00-08:30")
    assert (tokyo, far_west) == ([POPULAR[0]], [POPULAR_AT_NOON[0]])


async def test_seen_items_are_excluded_before_the_best_are_taken(
    client: httpx.AsyncClient, history: FakeHistory
) -> None:
    """Excluding after the cut would leave fewer than k."""
    await history.append([event(item_id="action-1")])
    found = await recommended(client, k=5, exclude_seen="all")
    assert len(found) == 5
    assert "action-1" not in found


async def test_only_the_named_event_types_count_as_seen(
    client: httpx.AsyncClient, history: FakeHistory
) -> None:
    """A shop hides what was bought and shows what was looked at."""
    await history.append(
        [
            event(event_id="1", item_id="action-1", event_type="view"),
            event(event_id="2", item_id="action-2", event_type="purchase"),
            event(event_id="3", item_id="action-3", event_type="like"),
        ]
    )
    found = await recommended(client, exclude_seen="purchase,like")
    assert set(ITEM_ROWS) - set(found) == {"action-2", "action-3"}


async def test_items_that_left_the_history_stay_seen(
    settings: Settings, bundle: LoadedBundle, clock: FakeClock
) -> None:
    """The history is bounded; what was bought long ago must not come back."""
    history = FakeHistory(max_events=1)
    await history.append(
        [
            event(event_id="1", item_id="action-1", event_type="purchase", timestamp_ms=1),
            event(event_id="2", item_id="drama-1", timestamp_ms=2),
        ]
    )
    app = create_app(
        settings,
        **fake_stores(history=history),
        bundle=bundle,
        clock=clock,
    )
    async with client_of(app) as client:
        assert "action-1" not in await recommended(client, exclude_seen="purchase")
        assert "action-1" in await recommended(client, exclude_seen="view")
        answer = await post(
            client, user_id="anna", candidates=["action-1", "new"], exclude_seen="all"
        )
    assert item_ids(answer) == ["new"]


async def test_absent_exclude_seen_is_as_the_bundle_says(
    tmp_path: Path, settings: Settings, history: FakeHistory, clock: FakeClock
) -> None:
    """Films are not watched twice, so their bundle says `all`."""
    bundle = load_bundle(make_bundle(tmp_path, exclude_seen="all"))
    await history.append([event(item_id="action-1")])
    app = create_app(
        settings,
        **fake_stores(history=history),
        bundle=bundle,
        clock=clock,
    )
    async with client_of(app) as client:
        assert "action-1" not in await recommended(client)
        assert "action-1" in await recommended(client, exclude_seen="none")


async def test_who_has_seen_everything_is_shown_the_own_items_again(
    client: httpx.AsyncClient, history: FakeHistory
) -> None:
    """Never empty while anything can be recommended; the answer says that it had to."""
    seen = [
        event(event_id=str(place), item_id=item, timestamp_ms=NOON_MS - 10 + place)
        for place, item in enumerate(ITEM_ROWS)
    ]
    await history.append(seen)
    answer = (
        await client.get("/v1/users/anna/recommendations", params={"exclude_seen": "all", "k": 3})
    ).json()
    assert [item["item_id"] for item in answer["items"]] == ["night-1", "drama-2", "drama-1"]
    assert (answer["source"], answer["degraded"]) == ("repeat", ["all-seen"])


async def test_candidates_are_ranked_and_only_they(client: httpx.AsyncClient) -> None:
    """Repeated candidates count once; unknown ones are reported and come last."""
    answer = await post(
        client,
        events=[{"item_id": "drama-1", "event_type": "view", "timestamp": NOON_MS}],
        candidates=["action-1", "drama-2", "unheard-of", "drama-2"],
        now=MIDNIGHT_MS,
    )
    assert item_ids(answer) == ["drama-2", "action-1", "unheard-of"]
    assert answer.json()["items"][-1]["source"] == "new"
    assert answer.json()["unknown_candidates"] == ["unheard-of"]


async def test_only_unknown_candidates_come_back_in_the_callers_order(
    client: httpx.AsyncClient,
) -> None:
    """A list of new items is better answered unranked than not at all."""
    answer = await post(client, candidates=["z", "y", "z", "x"], exclude=["y"], k=2)
    assert item_ids(answer) == ["z", "x"]
    assert [item["score"] for item in answer.json()["items"]] == [0, 0]
    assert answer.json()["source"] == "new"
    assert answer.json()["unknown_candidates"] == ["z", "y", "x"]


async def test_unknown_candidates_that_were_all_seen_come_back_and_it_is_said(
    client: httpx.AsyncClient, history: FakeHistory
) -> None:
    """Seen by the stored id, although no bundle knows the item."""
    await history.append([event(item_id="z")])
    answer = await post(client, user_id="anna", candidates=["z"], exclude_seen="all")
    assert (item_ids(answer), answer.json()["degraded"]) == (["z"], ["all-seen"])


async def test_excluding_everything_is_answered_with_nothing(client: httpx.AsyncClient) -> None:
    """The caller's own wish is the one reason for an empty list."""
    answer = await post(client, candidates=["action-1"], exclude=["action-1"])
    assert answer.json()["items"] == []


async def test_a_session_is_answered_without_being_stored(client: httpx.AsyncClient) -> None:
    """Anonymous events are the window of this answer and of no other."""
    session = [{"item_id": "drama-1", "event_type": "view", "timestamp": NOON_MS}]
    answer = await post(client, user_id="anna", events=session, now=MIDNIGHT_MS)
    assert item_ids(answer)[0] == "drama-1"
    assert (await client.get("/v1/users/anna/recommendations")).json()["source"] == "popular"


async def test_sent_events_join_the_stored_ones_by_time(
    client: httpx.AsyncClient, history: FakeHistory, bundle: LoadedBundle
) -> None:
    """The window of five events keeps the last four, whichever way they came."""
    await history.append(
        [
            event(event_id=str(place), item_id="drama-1", timestamp_ms=NOON_MS - 100 + place)
            for place in range(4)
        ]
    )
    older = {"item_id": "action-1", "event_type": "view", "timestamp": NOON_MS - 1000}
    answer = await post(client, user_id="anna", events=[older], k=1, now=MIDNIGHT_MS)
    vector = bundle.item_matrix[bundle.vocabulary.index("drama-1")]
    assert answer.json()["items"][0]["score"] == pytest.approx(float(vector @ vector))


async def test_redis_down_is_answered_from_what_the_request_holds(
    client: httpx.AsyncClient, history: FakeHistory
) -> None:
    """Degraded, and said so; with a session the model still ranks."""
    history.down = True
    popular = await client.get("/v1/users/anna/recommendations")
    session = [{"item_id": "drama-1", "event_type": "view", "timestamp": NOON_MS}]
    ranked = await post(client, user_id="anna", events=session)
    assert (popular.status_code, popular.json()["source"]) == (200, "popular")
    assert popular.json()["degraded"] == ranked.json()["degraded"] == ["redis"]
    assert ranked.json()["source"] == "model"
    assert await metric(client, 'sojourn_fallbacks_total{reason="redis",source="popular"}') == 1


async def test_a_failing_model_is_replaced_by_the_users_own_items(
    settings: Settings, bundle: LoadedBundle, history: FakeHistory, clock: FakeClock
) -> None:
    """The ladder's second rung; what is left of the list is popular."""

    class BrokenRanker(Ranker):
        def encode(self, arrays: Any) -> Any:
            raise ContractError("no numbers today")

    features = bundle.manifest.features
    session = open_encoder(bundle.path / ENCODER_FILE, features, num_threads=1)
    broken = BrokenRanker(session, ItemRows(bundle.item_matrix), features)
    app = create_app(
        settings,
        **fake_stores(history=history),
        bundle=replace(bundle, ranker=broken),
        clock=clock,
    )
    await history.append([event(item_id="night-1")])
    async with client_of(app) as client:
        answer = (await client.get("/v1/users/anna/recommendations", params={"k": 2})).json()
    assert [(item["item_id"], item["source"]) for item in answer["items"]] == [
        ("night-1", "repeat"),
        (POPULAR_AT_NOON[0], "popular"),
    ]
    assert answer["degraded"] == ["model"]


async def test_titles_are_in_the_answer_where_the_bundle_has_them(
    client: httpx.AsyncClient,
) -> None:
    """The tiny bundle's last item has none."""
    items = (await client.get("/v1/users/anna/recommendations")).json()["items"]
    by_id = {item["item_id"]: item for item in items}
    assert by_id["drama-1"]["title"] == "Title of drama-1"
    assert "title" not in by_id["night-1"]


@pytest.mark.parametrize("user_id", ["a/b", "Zoë 🦊", "..", "%", "a?b#c"])
async def test_any_unicode_user_id_is_one_user(client: httpx.AsyncClient, user_id: str) -> None:
    """Ids are the caller's; percent-encoding is all they need."""
    posted = event_json(user_id=user_id, item_id="drama-1")
    await client.post("/v1/events", json={"events": [posted]})
    path = f"/v1/users/{''.join(f'%{byte:02X}' for byte in user_id.encode())}/recommendations"
    assert (await client.get(path)).json()["source"] == "model"


async def test_many_requests_at_once_get_their_own_answers(
    client: httpx.AsyncClient, history: FakeHistory
) -> None:
    """They share micro-batches, never results."""
    users = {f"user-{number}": item for number, item in enumerate([*ITEM_ROWS] * 5)}
    await history.append(
        [event(event_id=user, user_id=user, item_id=item) for user, item in users.items()]
    )
    alone = {user: await recommended(client, user) for user in users}
    together = await asyncio.gather(*(recommended(client, user) for user in users))
    assert dict(zip(users, together, strict=True)) == alone
