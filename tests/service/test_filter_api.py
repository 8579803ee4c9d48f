"""Filters over HTTP: before the best k are taken, in every fallback, and refused with the field."""

from typing import Any

import httpx
import pytest

from service.api.filter_schemas import MAX_CONDITIONS, MAX_DEPTH
from tests.builders import MS_PER_HOUR, event, event_json
from tests.clients import item_ids, metric
from tests.fakes import NOON_MS, FakeHistory

ACTION = {"key": "categories", "match": {"value": "action"}}
CLASSIC = {"key": "categories", "match": {"any": ["classic"]}}
DRAMA = {"key": "categories", "match": {"value": "drama"}}


async def filtered(client: httpx.AsyncClient, filter_: Any, **body: Any) -> list[str]:
    """Return the ids that pass a filter, in the order of the answer."""
    answer = await client.post(
        "/v1/recommendations", json={"user_id": "anna", "filter": filter_} | body
    )
    assert answer.status_code == 200, answer.text
    return item_ids(answer)


async def test_opening_hours_are_asked_a_few_times_only(client: httpx.AsyncClient) -> None:
    """Each condition asks every distinct text: two hundred would hold up everybody else."""
    conditions = [{"is_open_at": "now"}, {"must": [{"is_open_at": "now"}]}]
    for count, status in ((4, 200), (5, 422)):
        body = {"filter": {"must": conditions * count}}
        answer = await client.post("/v1/recommendations", json=body)
        assert answer.status_code == status, answer.text


async def test_a_filter_comes_before_the_best_k(
    client: httpx.AsyncClient, history: FakeHistory
) -> None:
    """Filtered after the cut, the one drama among five action films would be lost."""
    await history.append([event(item_id="action-1")])
    assert await filtered(client, {"must": [DRAMA]}, k=2) == ["drama-2", "drama-1"]


@pytest.mark.parametrize(
    ("filter_", "expected"),
    [
        ({"must": [ACTION]}, {"action-1", "action-2"}),
        ({"should": [ACTION, DRAMA], "must_not": [CLASSIC]}, {"action-1", "drama-2"}),
        ({"must": [{"key": "categories", "match": {"except": ["classic"]}}]},
         {"action-1", "action-2", "drama-1", "drama-2"}),
        ({"must": [{"key": "attributes.price", "range": {"gte": 10}}]}, {"action-2"}),
        ({"must": [{"key": "released_at", "range": {"gt": "2026-01-13T11:00:00Z"}}]}, {"drama-2"}),
        ({"must": [{"key": "released_at", "range": {"gt": NOON_MS - MS_PER_HOUR}}]}, set()),
        ({"must": [{"geo_radius": {"center": {"lat": 48.85, "lon": 2.35}, "radius_km": 5}}]},
         {"drama-1"}),
        ({"must": [{"is_open_at": "now"}]}, {"action-1"}),
        ({"must": [{"is_open_at": "2026-01-14T21:00:00+01:00"}]}, {"action-1", "night-1"}),
        ({"must": [{"should": [{"must": [ACTION]}, {"is_open_at": "2026-01-14T21:00:00Z"}]}]},
         {"action-1", "action-2", "night-1"}),
    ],
)  # fmt: skip
async def test_what_a_filter_lets_through(
    client: httpx.AsyncClient, filter_: Any, expected: set[str]
) -> None:
    """A new user gets popular items, and those are filtered too."""
    assert set(await filtered(client, filter_)) == expected


async def test_now_is_the_requests_time_and_offset(client: httpx.AsyncClient) -> None:
    """At 20:30 of the request's own clock a bar that opens at eight is open."""
    wanted = {"must": [{"is_open_at": "now"}]}
    found = await filtered(client, wanted, now="2026-01-14T20:30:00+09:00")
    assert set(found) == {"action-1", "night-1"}


async def test_unknown_candidates_are_filtered_as_items_that_say_nothing(
    client: httpx.AsyncClient,
) -> None:
    """A caller who asks for action only must not get what nobody knows to be action."""
    candidates = ["stranger", "action-1", "drama-1"]
    assert await filtered(client, {"must": [ACTION]}, candidates=candidates) == ["action-1"]
    found = await filtered(client, {"must_not": [DRAMA]}, candidates=candidates)
    assert found == ["action-1", "stranger"]


async def test_seen_items_that_pass_are_shown_when_all_others_are_filtered_out(
    client: httpx.AsyncClient, history: FakeHistory
) -> None:
    """Never empty while anything may be shown: the filter is kept, the seen rule gives way."""
    await history.append([event(event_id=name, item_id=name) for name in ("drama-1", "drama-2")])
    found = await filtered(client, {"must": [DRAMA]}, exclude_seen="all")
    assert set(found) == {"drama-1", "drama-2"}


async def test_a_filter_that_nothing_passes_gives_an_empty_list(
    client: httpx.AsyncClient, history: FakeHistory
) -> None:
    """The caller's condition is kept, whatever it costs."""
    await history.append([event()])
    assert await filtered(client, {"must": [ACTION, DRAMA]}) == []
    assert await metric(client, 'sojourn_recommendations_total{source="none"}') == 1


def nested(depth: int) -> dict[str, Any]:
    """Return a filter in filters."""
    return {"must": [ACTION if depth == 1 else nested(depth - 1)]}


@pytest.mark.parametrize(
    ("filter_", "field"),
    [
        ({"must": [{"key": "price", "range": {"lt": 1}}]}, "filter.must.0.key"),
        ({"must": [{"range": {"lt": 1}}]}, "filter.must.0.key"),
        ({"must": [{"key": "attributes.", "match": {"value": 1}}]}, "filter.must.0.key"),
        ({"must": [{"key": "released_at", "match": {"value": 1}}]}, "filter.must.0.key"),
        ({"must": [{"key": "categories", "match": {}}]}, "filter.must.0.match"),
        ({"must": [{"key": "categories", "match": {"value": "a", "any": ["b"]}}]},
         "filter.must.0.match"),
        ({"must": [{"key": "categories", "match": {"any": []}}]}, "filter.must.0.match.any"),
        ({"must": [{"key": "attributes.x", "match": {"any": [None]}}]},
         "filter.must.0.match.any.0"),
        ({"should": [ACTION, {"key": "attributes.x", "range": {}}]}, "filter.should.1.range"),
        ({"must": [{"key": "attributes.x", "range": {"lt": "1"}}]}, "filter.must.0.range.lt"),
        ({"must": [{"key": "released_at", "range": {"lt": "today"}}]}, "filter.must.0.range.lt"),
        ({"must": [{"key": "released_at", "range": {"lt": -5}}]}, "filter.must.0.range.lt"),
        ({"must_not": [{"is_open_at": "noon"}]}, "filter.must_not.0.is_open_at"),
        ({"must": [{"key": "opening_hours", "is_open_at": "now"}]}, "filter.must.0.key"),
        ({"must": [{}]}, "filter.must.0"),
        ({"must": [{**ACTION, "is_open_at": "now"}]}, "filter.must.0"),
        ({"must": [{**ACTION, "must": [ACTION]}]}, "filter.must.0"),
        ({"must": [{"geo_radius": {"center": {"lat": 91, "lon": 0}, "radius_km": 1}}]},
         "filter.must.0.geo_radius.center.lat"),
        ({"must": [{"geo_radius": {"center": {"lat": 1, "lon": 0}, "radius_km": 0}}]},
         "filter.must.0.geo_radius.radius_km"),
        ({"must": ACTION}, "filter.must"),
        ({"mist": [ACTION]}, "filter.mist"),
        ([ACTION], "filter"),
        ({"must": [{"must": [ACTION] * MAX_CONDITIONS}]}, "filter"),
        (nested(MAX_DEPTH + 1), "filter" + ".must.0" * MAX_DEPTH),
    ],
)  # fmt: skip
async def test_a_wrong_filter_is_refused_with_its_field(
    client: httpx.AsyncClient, filter_: Any, field: str
) -> None:
    """One error, which names the condition."""
    answer = await client.post("/v1/recommendations", json={"filter": filter_})
    assert answer.status_code == 422, answer.text
    assert [error["field"] for error in answer.json()["errors"]] == [field]


async def test_a_filter_nested_beyond_reason_is_refused(client: httpx.AsyncClient) -> None:
    """Deep enough for a recursive reader to fall over."""
    body = '{"filter":' + '{"must":[' * 20_000 + "]}" * 20_000 + "}"
    answer = await client.post(
        "/v1/recommendations", content=body, headers={"content-type": "application/json"}
    )
    assert 400 <= answer.status_code < 500
    body = '{"filter":' + '{"must":[' * 300 + "]}" * 300 + "}"
    answer = await client.post(
        "/v1/recommendations", content=body, headers={"content-type": "application/json"}
    )
    assert answer.status_code == 422


async def test_events_are_still_read_beside_a_filter(client: httpx.AsyncClient) -> None:
    """A posted drama moves dramas up within what the filter leaves."""
    await client.post("/v1/events", json={"events": [event_json(item_id="drama-1")]})
    found = await filtered(client, {"must": [CLASSIC]})
    assert found == ["drama-1", "action-2"]
