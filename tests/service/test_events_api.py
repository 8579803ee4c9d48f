import httpx

from service.app import create_app
from service.bundle_loader import LoadedBundle
from service.config import Settings
from tests.builders import MS_PER_HOUR, event_json
from tests.clients import client_of, metric
from tests.fake_stores import fake_stores
from tests.fakes import DAY_MS, NOON_MS, FakeClock, FakeHistory


async def post(client: httpx.AsyncClient, *events: object) -> httpx.Response:
    """Post events, whatever they are."""
    return await client.post("/v1/events", json={"events": list(events)})


async def test_each_event_gets_its_own_status_in_the_order_of_the_request(
    client: httpx.AsyncClient,
) -> None:
    """One bad event must not lose the others."""
    answer = await post(
        client,
        event_json(event_id="a"),
        event_json(event_id="b", lat=91.0, lon=0.0),
        event_json(event_id="c", item_id="drama-1"),
        event_json(event_id="a"),
    )
    body = answer.json()
    assert answer.status_code == 200
    assert [(r["event_id"], r["status"]) for r in body["results"]] == [
        ("a", "accepted"),
        ("b", "rejected"),
        ("c", "accepted"),
        ("a", "duplicate"),
    ]
    assert (body["accepted"], body["duplicates"], body["rejected"]) == (2, 1, 1)
    assert body["results"][1]["error"]["field"] == "lat"


async def test_a_retry_without_an_id_is_a_duplicate(client: httpx.AsyncClient) -> None:
    """The id follows from the other fields, so a client need not make any."""
    first = (await post(client, event_json())).json()["results"][0]
    again = (await post(client, event_json())).json()["results"][0]
    other = (await post(client, event_json(timestamp=NOON_MS))).json()["results"][0]
    assert (first["status"], again["status"], other["status"]) == (
        "accepted",
        "duplicate",
        "accepted",
    )
    assert first["event_id"] == again["event_id"] != other["event_id"]


async def test_the_same_time_in_two_notations_is_the_same_event(client: httpx.AsyncClient) -> None:
    """Noon in UTC is one in the afternoon in Paris."""
    await post(client, event_json(timestamp=NOON_MS))
    paris = (await post(client, event_json(timestamp="2026-01-14T13:00:00+01:00"))).json()
    assert paris["duplicates"] == 1


async def test_all_fields_reach_the_store(client: httpx.AsyncClient, history: FakeHistory) -> None:
    """What a caller sends is what is kept; the local offset too."""
    await post(
        client,
        event_json(
            event_type="rating",
            timestamp="2026-01-14T10:00:00+01:00",
            value=4,
            duration_s=1.5,
            lat=48.85,
            lon=2.35,
            recommendation_id="r-1",
            context={"device": "tv", "ad": False, "position": 3, "speed": 0.5},
        ),
    )
    stored = await history.read("anna")
    assert stored.timestamps_ms.tolist() == [NOON_MS - 3 * MS_PER_HOUR]
    assert stored.tz_offsets_min.tolist() == [60]
    assert (stored.values[0], stored.durations_s[0]) == (4, 1.5)


async def test_the_future_is_refused_beyond_what_clocks_differ(client: httpx.AsyncClient) -> None:
    """Five minutes are forgiven; one more millisecond is a wrong clock or a wrong offset."""
    limit = NOON_MS + 300_000
    inside = await post(client, event_json(timestamp=limit))
    outside = await post(client, event_json(timestamp=limit + 1))
    assert inside.json()["accepted"] == 1
    assert outside.json()["results"][0]["error"]["field"] == "timestamp"


async def test_an_event_older_than_what_is_kept_is_rejected_with_the_limit(
    settings: Settings, bundle: LoadedBundle, clock: FakeClock
) -> None:
    """Ten days before noon is kept, a millisecond more is not, and nobody is told that it was."""
    history = FakeHistory(retention_days=10, clock=clock)
    app = create_app(settings, **fake_stores(history=history), bundle=bundle, clock=clock)
    limit = NOON_MS - 10 * DAY_MS
    async with client_of(app) as client:
        answer = await post(client, event_json(timestamp=limit), event_json(timestamp=limit - 1))
    kept, old = answer.json()["results"]
    assert (kept["status"], old["status"]) == ("accepted", "rejected")
    assert old["error"]["field"] == "timestamp"
    assert old["error"]["value"] == "'2026-01-04T11:59:59.999Z'"
    assert "before 2026-01-04T12:00:00.000Z" in old["error"]["fix"]


async def test_an_unknown_event_type_is_rejected_with_the_known_ones(
    client: httpx.AsyncClient,
) -> None:
    """The fix is in the answer."""
    error = (await post(client, event_json(event_type="viewed"))).json()["results"][0]["error"]
    assert error["field"] == "event_type"
    assert "view, click, play" in error["fix"]


async def test_a_whole_batch_may_be_rejected_and_the_answer_is_still_200(
    client: httpx.AsyncClient, history: FakeHistory
) -> None:
    """The call did what it says; the store is not even asked."""
    history.down = True
    answer = await post(client, {}, "text", None, 7, [], event_json(value="4"))
    assert answer.status_code == 200
    assert answer.json()["rejected"] == 6


async def test_nothing_is_acknowledged_while_the_store_is_down(
    client: httpx.AsyncClient, history: FakeHistory
) -> None:
    """503 with the time to wait, and the retry is taken."""
    history.down = True
    refused = await post(client, event_json())
    history.down = False
    retried = await post(client, event_json())
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.json()["type"] == "urn:sojourn:problem:store-unavailable"
    assert retried.json()["accepted"] == 1


async def test_events_are_counted_by_status(client: httpx.AsyncClient) -> None:
    """Two new ones, one of them again, one wrong."""
    await post(client, event_json(), event_json(item_id="drama-1"), event_json(), {})
    counts = [
        await metric(client, f'sojourn_events_total{{status="{status}"}}')
        for status in ("accepted", "duplicate", "rejected")
    ]
    assert counts == [2, 1, 1]
