"""Whatever a client sends is answered clearly, and never with a 500."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.builders import event_json
from tests.clients import metric

JSON = {"content-type": "application/json"}
RECOMMEND = "/v1/recommendations"
EVENTS = "/v1/events"
USER = "/v1/users/anna/recommendations"


def check_problem(answer: httpx.Response, status: int, slug: str) -> dict[str, Any]:
    """Return the problem of an answer after checking its form."""
    body: dict[str, Any] = answer.json()
    assert (answer.status_code, body["type"]) == (status, f"urn:sojourn:problem:{slug}")
    assert answer.headers["content-type"] == "application/problem+json"
    assert body["status"] == status
    assert body["instance"] == answer.headers["x-request-id"]
    return body


def check_field(answer: httpx.Response, field: str) -> dict[str, str]:
    """Return what is said about the one wrong field."""
    [error] = check_problem(answer, 422, "invalid-request")["errors"]
    assert error["field"] == field
    assert error["fix"]
    return dict(error)


@pytest.mark.parametrize("k", ["0", "10000", "-1", "ten", "1.5", "", "1e2"])
async def test_a_list_length_out_of_range_names_the_field(
    client: httpx.AsyncClient, k: str
) -> None:
    """1 to 500."""
    error = check_field(await client.get(USER, params={"k": k}), "k")
    assert error["value"] == repr(k)


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"lat": "nan", "lon": "2"}, "lat"),
        ({"lat": "inf", "lon": "2"}, "lat"),
        ({"lat": "91", "lon": "2"}, "lat"),
        ({"lat": "48", "lon": "-181"}, "lon"),
        ({"lat": "48"}, "lon"),
        ({"now": "yesterday"}, "now"),
        ({"now": "2026-01-14T12:00:00"}, "now"),
        ({"now": "9" * 400}, "now"),
        ({"exclude_seen": "viewed"}, "exclude_seen"),
        ({"exclude_seen": "all,view"}, "exclude_seen"),
        ({"exclude_seen": ""}, "exclude_seen"),
        ({"limit": "5"}, "limit"),
    ],
)
async def test_a_wrong_query_parameter_is_named(
    client: httpx.AsyncClient, params: dict[str, str], field: str
) -> None:
    """An unknown one too, so that a typing mistake does not pass for a default."""
    check_field(await client.get(USER, params=params), field)


async def test_a_plus_that_became_a_space_is_understood(client: httpx.AsyncClient) -> None:
    """Most people write the offset of `now` into a URL as it is."""
    answer = await client.get(USER + "?now=2026-01-14T12:00:00+01:00")
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"k": 0}, "k"),
        ({"k": 10_000}, "k"),
        ({"k": "10"}, "k"),
        ({"k": True}, "k"),
        ({"limit": 3}, "limit"),
        ({"user_id": 7}, "user_id"),
        ({"user_id": ""}, "user_id"),
        ({"user_id": "x" * 129}, "user_id"),
        ({"user_id": "a\x00b"}, "user_id"),
        ({"user_id": "\ud800"}, "user_id"),
        ({"place": {"lat": 1.0}}, "place.lon"),
        ({"place": {"lat": 100, "lon": 0}}, "place.lat"),
        ({"place": {"lat": float("nan"), "lon": 0}}, "place.lat"),
        ({"place": {"lat": 1, "lon": float("inf")}}, "place.lon"),
        ({"now": 1.5}, "now"),
        ({"now": 10**30}, "now"),
        ({"now": True}, "now"),
        ({"candidates": []}, "candidates"),
        ({"candidates": ["x"] * 10_001}, "candidates"),
        ({"candidates": ["a", 5]}, "candidates.1"),
        ({"candidates": ["\ud800"]}, "candidates.0"),
        ({"exclude": "a"}, "exclude"),
        ({"exclude_seen": "some"}, "exclude_seen"),
        ({"exclude_seen": 5}, "exclude_seen"),
        ({"exclude_seen": []}, "exclude_seen"),
        ({"exclude_seen": [5]}, "exclude_seen.0"),
        ({"exclude_seen": ["viewed"]}, "exclude_seen"),
        ({"events": [{}] * 1_001}, "events"),
        ({"events": [event_json()]}, "events.0.user_id"),
        ({"\ud800": 1}, "body"),
        ([], "body"),
        ("text", "body"),
        (None, "body"),
    ],
)
async def test_a_wrong_field_of_a_request_is_named(
    client: httpx.AsyncClient, body: Any, field: str
) -> None:
    """Field, value and fix; also what JSON allows and UTF-8 does not."""
    answer = await client.post(RECOMMEND, content=json.dumps(body), headers=JSON)
    check_field(answer, field)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"timestamp": 10**15}, "events.0.timestamp"),
        ({"timestamp": "2026-01-14"}, "events.0.timestamp"),
        ({"event_type": "viewed"}, "events.0.event_type"),
        ({"lat": 1.0}, "events.0.lon"),
    ],
)
async def test_a_wrong_sent_event_is_named_with_its_place(
    client: httpx.AsyncClient, changes: dict[str, Any], field: str
) -> None:
    """Unlike posted events they are all or nothing: the answer depends on each."""
    sent = event_json() | changes
    del sent["user_id"]
    check_field(await client.post(RECOMMEND, json={"events": [sent]}), field)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "events"),
        ({"events": []}, "events"),
        ({"events": [event_json()] * 1_001}, "events"),
        ({"events": {}}, "events"),
        ({"events": [event_json()], "user": "anna"}, "user"),
    ],
)
async def test_a_wrong_batch_is_refused_whole(
    client: httpx.AsyncClient, body: dict[str, Any], field: str
) -> None:
    """1 to 1,000 events and nothing else."""
    check_field(await client.post(EVENTS, json=body), field)


async def test_a_thousand_events_are_taken(client: httpx.AsyncClient) -> None:
    """The limit itself is allowed."""
    events = [event_json(event_id=str(number)) for number in range(1_000)]
    answer = await client.post(EVENTS, json={"events": events})
    assert answer.json()["accepted"] == 1_000


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"colour": "red"}, "colour"),
        ({"user_id": None}, "user_id"),
        ({"user_id": 7}, "user_id"),
        ({"item_id": ""}, "item_id"),
        ({"item_id": "x" * 129}, "item_id"),
        ({"item_id": "\ud800"}, "item_id"),
        ({"item_id": "a\x00"}, "item_id"),
        ({"event_id": "x" * 65}, "event_id"),
        ({"event_id": 5}, "event_id"),
        ({"timestamp": None}, "timestamp"),
        ({"timestamp": 1.5}, "timestamp"),
        ({"timestamp": True}, "timestamp"),
        ({"timestamp": -1}, "timestamp"),
        ({"timestamp": 10**400}, "timestamp"),
        ({"timestamp": float("nan")}, "timestamp"),
        ({"timestamp": "2026-01-14T12:00:00"}, "timestamp"),
        ({"value": float("nan")}, "value"),
        ({"value": float("-inf")}, "value"),
        ({"value": 10**400}, "value"),
        ({"value": "4"}, "value"),
        ({"duration_s": -1}, "duration_s"),
        ({"lat": float("nan"), "lon": 0}, "lat"),
        ({"lat": 0, "lon": 181}, "lon"),
        ({"lon": 0}, "lat"),
        ({"context": {"a": []}}, "context.a"),
        ({"context": {"a": float("nan")}}, "context.a"),
        ({"context": {"\ud800": 1}}, "context"),
        ({"context": {str(n): n for n in range(17)}}, "context"),
        ({"context": []}, "context"),
        ({"recommendation_id": ""}, "recommendation_id"),
    ],
)
async def test_a_wrong_field_of_an_event_rejects_that_event(
    client: httpx.AsyncClient, changes: dict[str, Any], field: str
) -> None:
    """Field, value and fix, and the right event beside it is stored."""
    body = {"events": [event_json() | changes, event_json()]}
    answer = await client.post(EVENTS, content=json.dumps(body), headers=JSON)
    assert answer.status_code == 200, answer.text
    wrong, right = answer.json()["results"]
    assert right["status"] == "accepted"
    assert wrong["status"] == "rejected"
    assert wrong["error"]["field"].startswith(field)
    assert wrong["error"]["fix"]


@pytest.mark.parametrize(
    "body",
    [b"{", b'{"events": [}', b"\xff\xfe", b"[" * 100_000, b'{"k": 1' + b"0" * 5_000 + b"}", b"NaN"],
)
@pytest.mark.parametrize("path", [RECOMMEND, EVENTS])
async def test_a_body_that_is_no_json_is_refused(
    client: httpx.AsyncClient, path: str, body: bytes
) -> None:
    """Broken, not UTF-8, nested beyond reason, numbers beyond reason, no object."""
    answer = await client.post(path, content=body, headers=JSON)
    assert answer.status_code in {400, 422}
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("path", [RECOMMEND, EVENTS])
async def test_an_empty_body_is_refused(client: httpx.AsyncClient, path: str) -> None:
    """The field that is missing is the body itself."""
    check_field(await client.post(path), "body")


@pytest.mark.parametrize("path", [RECOMMEND, EVENTS])
@pytest.mark.parametrize("said", ["text/plain", "application/jsonx", "application/json-seq"])
async def test_a_body_that_is_not_said_to_be_json_is_refused_with_the_fix(
    client: httpx.AsyncClient, path: str, said: str
) -> None:
    """The first mistake with curl."""
    answer = await client.post(path, content=b"{}", headers={"content-type": said})
    assert "Content-Type: application/json" in check_field(answer, "body")["fix"]


async def test_a_body_above_a_mebibyte_is_refused_whether_announced_or_streamed(
    client: httpx.AsyncClient,
) -> None:
    """A client need not announce a length, so the bytes are counted too."""
    big = json.dumps({"events": [event_json(context={"a": "x" * 1_048_576})]}).encode()

    async def in_parts() -> AsyncIterator[bytes]:
        for start in range(0, len(big), 65_536):
            yield big[start : start + 65_536]

    announced = await client.post(EVENTS, content=big, headers=JSON)
    streamed = await client.post(EVENTS, content=in_parts(), headers=JSON)
    assert "content-length" not in streamed.request.headers
    for answer in (announced, streamed):
        assert "1048576 bytes" in check_problem(answer, 413, "body-too-large")["detail"]
        assert answer.headers["connection"] == "close"


async def test_unknown_routes_and_methods_are_problems_too(client: httpx.AsyncClient) -> None:
    """A client parses one kind of error."""
    check_problem(await client.get("/v1/nothing"), 404, "not-found")
    wrong_method = await client.get(EVENTS)
    check_problem(wrong_method, 405, "method-not-allowed")
    assert wrong_method.headers["allow"] == "POST"


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/v1/items/drama-1", "DELETE, GET, PUT"),
        ("/v1/users", "DELETE, GET"),
        # Erasing takes every path below: the user's id is `anna/events` then.
        ("/v1/users/anna/events", "DELETE, GET"),
    ],
)
async def test_a_refused_method_is_told_every_one_that_the_path_takes(
    client: httpx.AsyncClient, path: str, methods: str
) -> None:
    """RFC 9110: `Allow` lists them all; the framework named those of the first route that fits."""
    answer = await client.patch(path)
    check_problem(answer, 405, "method-not-allowed")
    assert answer.headers["allow"] == methods


@pytest.mark.parametrize("user_id", ["%00", "x" * 129, "", "%ED%A0%80%00"])
async def test_a_wrong_user_id_in_the_path_is_named(
    client: httpx.AsyncClient, user_id: str
) -> None:
    """The same rule as in a body."""
    check_field(await client.get(f"/v1/users/{user_id}/recommendations"), "user_id")


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
FIELDS = ["user_id", "events", "k", "now", "place", "candidates", "exclude", "exclude_seen"]
EVENT_FIELDS = ["user_id", "item_id", "event_type", "timestamp", "event_id", "value", "lat", "lon"]


# The client is not reset between examples: nothing that they post is read.
@hypothesis_settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    request=ANY_JSON | st.dictionaries(st.sampled_from(FIELDS), ANY_JSON),
    event=ANY_JSON | st.dictionaries(st.sampled_from(EVENT_FIELDS), ANY_JSON),
)
async def test_no_json_at_all_is_answered_with_a_500(
    client: httpx.AsyncClient, request: object, event: object
) -> None:
    """Whatever a client can write down, the answer is a list or says what is wrong."""
    for path, body in ((RECOMMEND, request), (EVENTS, {"events": [event]})):
        answer = await client.post(path, content=json.dumps(body), headers=JSON)
        assert answer.status_code in {200, 422}, answer.text
        answer.json()
    assert await metric(client, "sojourn_unhandled_errors_total") == 0
