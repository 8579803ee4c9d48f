"""What is held of people: shown, paged through, erased and merged over HTTP."""

import json
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from service.api.timestamps import rfc3339
from service.contract.events import MAX_TIMESTAMP_MS, ItemId, UserId
from tests.builders import MS_PER_HOUR, event, event_json
from tests.clients import metric, recommended
from tests.fakes import NOON_MS, FakeClock, FakeHistory
from tests.service.test_bad_inputs import ANY_JSON, JSON, check_field, check_problem

ODD_IDS = (
    "merge",
    "anna/events",
    "anna/recommendations",
    "events",
    "/",
    "a//b/",
    "größe ✓ 🙂",
    "a?b=c&d#e%2F",
    "+ \n",
    "a\nb",
)


async def store_views(history: FakeHistory, number: int, user_id: str = "anna") -> None:
    """Store views of items i0 to i<number - 1>, a second apart, the last one an hour ago."""
    first_ms = NOON_MS - MS_PER_HOUR - 1_000 * (number - 1)
    await history.append(
        [
            event(
                event_id=f"{user_id}-{n}",
                user_id=UserId(user_id),
                item_id=ItemId(f"i{n}"),
                timestamp_ms=first_ms + 1_000 * n,
            )
            for n in range(number)
        ]
    )


async def all_pages(client: httpx.AsyncClient, limit: int) -> list[list[str]]:
    """Return the items of each page of anna's history."""
    pages, params = [], {"limit": str(limit)}
    while True:
        body = (await client.get("/v1/users/anna/events", params=params)).json()
        pages.append([one["item_id"] for one in body["events"]])
        if body["next_cursor"] is None:
            return pages
        params["cursor"] = body["next_cursor"]


async def test_an_export_shows_everything_that_is_held(client: httpx.AsyncClient) -> None:
    """With the local offset as it was sent, and without what was not."""
    sent = event_json(
        event_id="mine",
        event_type="rating",
        timestamp="2026-01-14T10:00:00+01:00",
        value=4.2,
        lat=48.86,
        lon=2.35,
        context={"device": "tv"},
    )
    await client.post("/v1/events", json={"events": [sent]})
    body = (await client.get("/v1/users/anna")).json()
    [held] = body["events"]
    [streamed] = body["stream"]
    assert (body["user_id"], body["num_events"], body["num_seen"]) == ("anna", 1, 0)
    assert body["expires_at"] == "2027-01-14T12:00:00.000Z"
    assert body["erased_at"] is None
    assert len(held.pop("event_hash")) == 12
    assert held == {
        "item_id": "action-1",
        "event_type": "rating",
        "timestamp": "2026-01-14T10:00:00.000+01:00",
        "value": 4.2,
        "lat": 48.86,
        "lon": 2.35,
    }
    assert streamed["field"] == "event"
    assert streamed["payload"]["event_id"] == "mine"
    assert streamed["payload"]["context"] == {"device": "tv"}


async def test_an_unknown_user_has_empty_lists(client: httpx.AsyncClient) -> None:
    """Nothing is held is an answer; a 404 would say that the call is wrong."""
    export = await client.get("/v1/users/nobody")
    page = await client.get("/v1/users/nobody/events")
    assert export.status_code == page.status_code == 200
    assert [export.json()[name] for name in ("events", "seen", "stream")] == [[], [], []]
    assert page.json() == {"user_id": "nobody", "events": [], "next_cursor": None}


async def test_what_left_the_history_is_shown_as_hashes(
    client: httpx.AsyncClient, history: FakeHistory
) -> None:
    """205 events into 200 places."""
    await store_views(history, 205)
    body = (await client.get("/v1/users/anna")).json()
    assert (body["num_events"], body["num_seen"], len(body["seen"])) == (200, 5, 5)
    assert {len(record["item_hash"]) for record in body["seen"]} == {16}
    assert body["num_stream_entries"] == 205


async def test_a_history_is_paged_newest_first(
    client: httpx.AsyncClient, history: FakeHistory
) -> None:
    """Seven events in pages of three; a page that ends at the end has no next one."""
    await store_views(history, 7)
    assert await all_pages(client, 3) == [["i6", "i5", "i4"], ["i3", "i2", "i1"], ["i0"]]
    assert await all_pages(client, 7) == [[f"i{n}" for n in range(6, -1, -1)]]


async def test_a_page_has_100_events_unless_asked_otherwise(
    client: httpx.AsyncClient, history: FakeHistory
) -> None:
    """And at most 1,000."""
    await store_views(history, 150)
    assert len((await client.get("/v1/users/anna/events")).json()["events"]) == 100


async def test_a_cursor_stays_where_it_was_when_events_come(
    client: httpx.AsyncClient, history: FakeHistory
) -> None:
    """A newer event belongs before the first page; a late one is shown where its time is."""
    await store_views(history, 4)
    first = (await client.get("/v1/users/anna/events", params={"limit": 2})).json()
    late_ms = NOON_MS - MS_PER_HOUR - 2_500
    await history.append(
        [
            event(event_id="new", item_id=ItemId("new"), timestamp_ms=NOON_MS),
            event(event_id="late", item_id=ItemId("late"), timestamp_ms=late_ms),
        ]
    )
    params = {"cursor": first["next_cursor"]}
    rest = (await client.get("/v1/users/anna/events", params=params)).json()
    assert [one["item_id"] for one in rest["events"]] == ["i1", "late", "i0"]


async def test_a_cursor_parts_events_of_one_time(
    client: httpx.AsyncClient, history: FakeHistory
) -> None:
    """A time alone would skip some or show them twice."""
    await history.append([event(event_id=f"e{n}", item_id=ItemId(f"i{n}")) for n in range(5)])
    assert await all_pages(client, 2) == [["i4", "i3"], ["i2", "i1"], ["i0"]]


async def test_a_cursor_outlives_its_event(client: httpx.AsyncClient, history: FakeHistory) -> None:
    """Its event has left to make room, so what was older has left before it."""
    await store_views(history, 4)
    first = (await client.get("/v1/users/anna/events", params={"limit": 2})).json()
    newer = [event(event_id=f"n{n}", timestamp_ms=NOON_MS + n) for n in range(199)]
    await history.append(newer)
    params = {"cursor": first["next_cursor"]}
    rest = (await client.get("/v1/users/anna/events", params=params)).json()
    assert rest == {"user_id": "anna", "events": [], "next_cursor": None}


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"limit": "0"}, "limit"),
        ({"limit": "1001"}, "limit"),
        ({"limit": "many"}, "limit"),
        ({"cursor": ""}, "cursor"),
        ({"cursor": "x"}, "cursor"),
        ({"cursor": "ü"}, "cursor"),
        ({"cursor": "A" * 24}, "cursor"),
        ({"cursor": "A" * 65}, "cursor"),
        ({"k": "3"}, "k"),
    ],
)
async def test_a_wrong_parameter_of_a_history_is_named(
    client: httpx.AsyncClient, params: dict[str, str], field: str
) -> None:
    """Field, value and fix; a cursor is ours, so only one that we gave is right."""
    check_field(await client.get("/v1/users/anna/events", params=params), field)


async def test_an_erased_user_is_as_one_never_heard_of(
    client: httpx.AsyncClient, history: FakeHistory
) -> None:
    """The answer says what was removed; the next recommendation is what is popular."""
    await store_views(history, 203)
    erased = await client.delete("/v1/users/anna")
    assert erased.status_code == 200
    assert erased.json() == {
        "events": 200,
        "seen": 3,
        "stream_entries": 203,
        "erased_at": "2026-01-14T12:00:00.000Z",
    }
    assert await recommended(client) == await recommended(client, "nobody")
    body = (await client.get("/v1/users/anna")).json()
    assert [body[name] for name in ("events", "seen", "stream")] == [[], [], []]
    assert body["erased_at"] == "2026-01-14T12:00:00.000Z"


async def test_a_late_event_of_an_erased_user_is_rejected_with_the_reason(
    client: httpx.AsyncClient, clock: FakeClock
) -> None:
    """And one of today is taken: the person has come back."""
    await client.delete("/v1/users/anna")
    clock.advance(1_000)
    sent = [event_json(event_id="late"), event_json(event_id="new", timestamp=NOON_MS + 1)]
    body = (await client.post("/v1/events", json={"events": sent})).json()
    assert (body["accepted"], body["rejected"]) == (1, 1)
    late, new = body["results"]
    assert (late["event_id"], late["status"], new["status"]) == ("late", "rejected", "accepted")
    assert late["error"] == {
        "field": "user_id",
        "value": "'anna'",
        "fix": "was erased at 2026-01-14T12:00:00.000Z; events before that are not stored",
    }
    assert await metric(client, 'sojourn_events_total{status="rejected"}') == 1


async def test_an_unknown_user_can_be_erased(client: httpx.AsyncClient) -> None:
    """The caller need not know, and may repeat it."""
    for _ in range(2):
        answer = await client.delete("/v1/users/nobody")
        assert (answer.status_code, answer.json()["events"]) == (200, 0)


async def test_a_merge_gives_the_history_and_erases_the_giver(
    client: httpx.AsyncClient, history: FakeHistory
) -> None:
    """What the device did is anna's, and the device is gone."""
    await store_views(history, 3, "device")
    await store_views(history, 1, "anna")
    ids = {"from_user_id": "device", "into_user_id": "anna"}
    answer = await client.post("/v1/users/merge", json=ids)
    assert answer.json() == {
        "events": 3,
        "duplicates": 0,
        "left_out": 0,
        "seen": 0,
        "erased": {
            "events": 3,
            "seen": 0,
            "stream_entries": 3,
            "erased_at": "2026-01-14T12:00:00.000Z",
        },
    }
    assert (await client.get("/v1/users/anna")).json()["num_events"] == 4
    assert (await client.get("/v1/users/device")).json()["num_events"] == 0


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"from_user_id": "anna", "into_user_id": "anna"}, "into_user_id"),
        ({"from_user_id": "anna"}, "into_user_id"),
        ({"into_user_id": "anna"}, "from_user_id"),
        ({"from_user_id": "", "into_user_id": "anna"}, "from_user_id"),
        ({"from_user_id": "a\x00", "into_user_id": "anna"}, "from_user_id"),
        ({"from_user_id": "a", "into_user_id": "x" * 129}, "into_user_id"),
        ({"from_user_id": 7, "into_user_id": "anna"}, "from_user_id"),
        ({"from_user_id": "a", "into_user_id": "b", "keep": True}, "keep"),
        ([], "body"),
    ],
)
async def test_a_wrong_merge_is_refused(client: httpx.AsyncClient, body: Any, field: str) -> None:
    """Merging a user into the same one would erase it."""
    check_field(await client.post("/v1/users/merge", json=body), field)


async def test_nothing_is_claimed_while_the_store_is_down(
    client: httpx.AsyncClient, history: FakeHistory
) -> None:
    """503 with the time to wait, for each of the calls."""
    history.down = True
    ids = {"from_user_id": "device", "into_user_id": "anna"}
    for answer in (
        await client.get("/v1/users/anna"),
        await client.get("/v1/users/anna/events"),
        await client.delete("/v1/users/anna"),
        await client.post("/v1/users/merge", json=ids),
    ):
        check_problem(answer, 503, "store-unavailable")
        assert answer.headers["retry-after"] == "1"


@pytest.mark.parametrize("user_id", ODD_IDS)
async def test_every_id_can_be_shown_and_erased(
    client: httpx.AsyncClient, history: FakeHistory, user_id: str
) -> None:
    """In the query string whatever the id; in the path all but exports of two endings."""
    await store_views(history, 2, user_id)
    params = {"user_id": user_id}
    path = f"/v1/users/{quote(user_id, safe='')}"
    assert (await client.get("/v1/users", params=params)).json()["num_events"] == 2
    history_page = (await client.get(path + "/events")).json()
    assert (history_page["user_id"], len(history_page["events"])) == (user_id, 2)
    assert (await client.get(path + "/recommendations")).json()["source"] == "popular"
    if not user_id.endswith(("/events", "/recommendations")):
        assert (await client.get(path)).json()["user_id"] == user_id
    assert (await client.delete(path)).json()["events"] == 2
    assert (await client.delete("/v1/users", params=params)).json()["events"] == 0
    assert (await client.get("/v1/users", params=params)).json()["num_events"] == 0


async def test_an_id_that_ends_as_a_route_does_is_not_taken_for_another_user(
    client: httpx.AsyncClient, history: FakeHistory
) -> None:
    """Erasing `anna/events` erases neither anna nor her events."""
    await store_views(history, 2, "anna")
    await store_views(history, 3, "anna/events")
    assert (await client.delete("/v1/users/anna/events")).json()["events"] == 3
    assert (await client.get("/v1/users/anna")).json()["num_events"] == 2


async def test_a_line_end_is_a_part_of_an_id(
    client: httpx.AsyncClient, history: FakeHistory
) -> None:
    """A pattern whose end matches before a last line end takes one user for another."""
    await store_views(history, 2, "anna")
    assert (await client.delete("/v1/users/anna%0A")).json()["events"] == 0
    assert (await client.get("/v1/users/anna")).json()["num_events"] == 2


@pytest.mark.parametrize("user_id", ["%00", "x" * 129, ""])
async def test_a_wrong_id_is_named_by_every_call(client: httpx.AsyncClient, user_id: str) -> None:
    """The same rule as in a body."""
    for path in (f"/v1/users/{user_id}", f"/v1/users?user_id={user_id}"):
        check_field(await client.get(path), "user_id")
        check_field(await client.delete(path), "user_id")
    check_field(await client.get(f"/v1/users/{user_id}/events"), "user_id")
    check_field(await client.get("/v1/users"), "user_id")


@hypothesis_settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(user_id=st.text(), cursor=st.text(), merge=ANY_JSON)
async def test_no_id_cursor_or_merge_is_answered_with_a_500(
    client: httpx.AsyncClient, user_id: str, cursor: str, merge: object
) -> None:
    """Whatever a client can write down; an id of one or two dots alone changes the path."""
    path = f"/v1/users/{quote(user_id, safe='', errors='backslashreplace')}"
    params = {"cursor": quote(cursor, errors="backslashreplace")}
    for answer in (
        await client.get(path),
        await client.get(path + "/events", params=params),
        await client.delete(path),
        await client.post("/v1/users/merge", content=json.dumps(merge), headers=JSON),
    ):
        assert answer.status_code in {200, 404, 405, 422}, answer.text
    assert await metric(client, "sojourn_unhandled_errors_total") == 0


def test_times_are_written_in_the_offset_in_which_they_were_sent() -> None:
    """Also the last ones that can be stored, whose local year would have five digits."""
    assert rfc3339(NOON_MS, -90) == "2026-01-14T10:30:00.000-01:30"
    assert rfc3339(NOON_MS, 0) == "2026-01-14T12:00:00.000+00:00"
    assert rfc3339(MAX_TIMESTAMP_MS, 60) == "9999-12-31T23:59:59.999Z"
