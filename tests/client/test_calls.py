"""What is sent for each call, and what is made of the answer."""

import dataclasses
import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import httpx
import pytest

import sojourn_client
from sojourn_client import BadAnswer, Event, InvalidRequest, Refused, Unavailable
from tests.client.answering import LIST, Answering, event, problem

ITEM = {"item_id": "a", "score": 1, "rank": 1, "source": "model"}


def answering(document: object, status: int = 200) -> Answering:
    """Return a service that answers everything with this."""
    return Answering(default=httpx.Response(status, json=document))


def test_a_users_recommendations_are_asked_by_a_get_with_encoded_ids_and_times() -> None:
    """A slash in an id is no step of the path, a plus of an offset no space."""
    service = answering(LIST)
    paris = timezone(timedelta(hours=1))
    with service.sojourn() as client:
        client.recommendations(
            "a/b c", k=5, now=datetime(2026, 1, 31, 18, 30, tzinfo=paris), exclude_seen=["view"]
        )
    assert service.target == (
        "GET /v1/users/a%2Fb%20c/recommendations"
        "?k=5&now=2026-01-31T18%3A30%3A00%2B01%3A00&exclude_seen=view"
    )


def test_a_post_sends_what_was_said_and_nothing_else() -> None:
    """The service's defaults hold for the rest, today's and tomorrow's."""
    service = answering(LIST)
    with service.sojourn() as client:
        client.recommend(
            user_id="anna",
            now=datetime(2026, 1, 31, tzinfo=UTC),
            place={"lat": 48.9, "lon": 2.4, "radius_km": 5},
            candidates=("a", "b"),
            diversity={"strength": 0.3},
            explain=True,
            attention=True,
        )
    assert service.body == {
        "user_id": "anna",
        "now": "2026-01-31T00:00:00+00:00",
        "place": {"lat": 48.9, "lon": 2.4, "radius_km": 5},
        "candidates": ["a", "b"],
        "diversity": {"strength": 0.3},
        "explain": True,
        "attention": True,
    }


def test_every_request_says_who_asks_and_with_which_key() -> None:
    """Operators see which versions are out; the key is in no text of the client's."""
    service = answering(LIST)
    with service.sojourn(api_key="sjn_secret") as client:
        client.recommend()
        assert "sjn_secret" not in repr(vars(client))
    headers = service.requests[-1].headers
    assert headers["Authorization"] == "Bearer sjn_secret"
    assert headers["User-Agent"].startswith("sojourn-client/")


def test_pages_follow_the_cursor_with_user_and_k_alone() -> None:
    """The service refuses everything else beside a cursor: its list is made already."""
    first = httpx.Response(200, json=LIST | {"next_cursor": "c.2", "items": [ITEM]})
    service = Answering(first, default=httpx.Response(200, json=LIST))
    with service.sojourn() as client:
        pages = list(client.pages(user_id="anna", k=2, exclude=["x"]))
    assert [len(page.items) for page in pages] == [1, 0]
    bodies = [json.loads(request.content) for request in service.requests]
    assert bodies == [
        {"user_id": "anna", "k": 2, "exclude": ["x"], "paginate": True},
        {"user_id": "anna", "k": 2, "cursor": "c.2"},
    ]


def test_fields_of_a_newer_service_break_nothing() -> None:
    """Clients are updated after the service, or never."""
    service = answering(LIST | {"mood": {"of": "day"}, "items": [ITEM | {"colour": "red"}]})
    with service.sojourn() as client:
        found = client.recommend()
    assert [(item.item_id, item.score) for item in found.items] == [("a", 1.0)]


def test_an_explanation_is_typed() -> None:
    """Its shares add up to the score: 1 + 0.5 = 1.5."""
    because = {
        "position": 0,
        "item_id": "b",
        "title": None,
        "event_type": "view",
        "timestamp": "2026-01-14T12:00:00Z",
        "contribution": 0.5,
    }
    history = {name: because[name] for name in ("item_id", "title", "event_type", "timestamp")}
    explained = {"shares": {"base": 1, "history": 0.5}, "events": [0.5], "because": [because]}
    document = LIST | {
        "items": [ITEM | {"score": 1.5, "explanation": explained, "reason": "as b was seen"}],
        "explanation": {
            "method": "leave-one-out",
            "history": [history],
            "num_events": 1,
            "attention": [[[[1.0]]]],
        },
    }
    with answering(document).sojourn() as client:
        found = client.recommend(explain=True, attention=True)
    assert found.explanation is not None
    assert found.explanation.attention == ((((1.0,),),),)
    [item] = found.items
    assert item.explanation is not None
    assert sum(item.explanation.shares.values()) == item.score
    assert item.explanation.because[0].item_id == found.explanation.history[0].item_id


@pytest.mark.parametrize(
    ("document", "named"),
    [
        (LIST | {"items": [ITEM | {"rank": "first"}]}, "items.0.rank should be of type int"),
        (LIST | {"items": {}}, "items should be an array"),
        ({"items": []}, "has no recommendation_id"),
        ([], "should be an object"),
    ],
)
def test_an_answer_that_cannot_be_read_is_an_error_that_names_where(
    document: Any, named: str
) -> None:
    """A wrong type would fail somewhere else, later."""
    with answering(document).sojourn() as client, pytest.raises(BadAnswer, match=named):
        client.recommend()


def test_html_with_status_200_is_no_answer_of_the_service() -> None:
    """A captive portal says 200 too."""
    page = httpx.Response(200, text="<html>", headers={"Content-Type": "text/html"})
    with Answering(default=page).sojourn() as client, pytest.raises(BadAnswer, match="text/html"):
        client.recommend()


def test_a_problem_becomes_an_error_with_its_fields() -> None:
    """What is wrong, where, and how to find it in the service's log."""
    errors = [{"field": "k", "value": "'0'", "fix": "should be at least 1"}]
    service = Answering(default=problem(422, "invalid-request", errors=errors))
    with service.sojourn() as client, pytest.raises(InvalidRequest, match="request-7") as caught:
        client.recommend(k=0)
    error = caught.value
    assert (error.status, error.slug, error.request_id) == (422, "invalid-request", "request-7")
    assert [(one.field, one.value, one.fix) for one in error.errors] == [
        ("k", "'0'", "should be at least 1")
    ]
    assert len(service.requests) == 1


@pytest.mark.parametrize("body", [b"", b"<h1>Bad gateway</h1>", b'{"type": 3}', b"[1]", b"\xff"])
def test_whatever_a_proxy_answers_is_an_error_of_its_status(body: bytes) -> None:
    """Nothing of it is trusted to have a shape."""
    service = Answering(default=httpx.Response(502, content=body))
    with service.sojourn() as client, pytest.raises(Unavailable) as caught:
        client.recommend()
    assert (caught.value.slug, caught.value.is_problem) == ("http", False)


def test_a_redirect_is_not_followed() -> None:
    """It would take the key to wherever it points."""
    elsewhere = httpx.Response(307, headers={"Location": "http://elsewhere.test/"})
    service = Answering(default=elsewhere)
    with service.sojourn() as client, pytest.raises(Refused, match="307"):
        client.recommend()
    assert len(service.requests) == 1


def test_health_of_a_service_that_is_not_ready_is_an_answer() -> None:
    """Whoever asks wants the reasons."""
    with answering({"status": "not-ready", "reasons": ["redis: gone"]}, 503).sojourn() as client:
        health = client.health()
    assert (health.is_ready, health.reasons) == (False, ("redis: gone",))


def test_events_go_in_calls_of_a_thousand_and_of_less_than_the_service_takes() -> None:
    """1,001 small ones are two calls; of texts of 100 kB each, nine fit into one."""
    service = Answering()
    with service.sojourn() as client:
        many = client.post_events(event(number) for number in range(1_001))
        big = client.post_events(event(n, context={"text": "x" * 100_000}) for n in range(10))
    sizes = [len(json.loads(request.content)["events"]) for request in service.requests]
    assert sizes == [1_000, 1, 9, 1]
    assert (many.accepted, len(many.results), big.accepted) == (1_001, 1_001, 10)
    assert max(len(request.content) for request in service.requests) < 1_048_576


def test_an_answer_for_fewer_events_than_were_sent_is_not_believed() -> None:
    """Else the caller would take the missing one for stored."""
    short = {"accepted": 1, "duplicates": 0, "rejected": 0, "results": [{"status": "accepted"}]}
    with answering(short).sojourn() as client, pytest.raises(BadAnswer, match="2 events"):
        client.post_events([event(1), event(2)])


def test_an_event_has_its_id_from_the_start() -> None:
    """The same object posted twice is one event; two objects are two."""
    one, other = event(), event()
    assert one.to_json()["event_id"] == one.to_json()["event_id"] != other.event_id
    assert Event.from_json(one.to_json()) == one


@pytest.mark.parametrize(
    ("field", "value"),
    [("timestamp", datetime(2026, 1, 31)), ("value", float("nan")), ("lat", float("inf"))],  # noqa: DTZ001  # that is the claim
)
def test_what_could_never_be_sent_is_refused_when_the_event_is_made(field: str, value: Any) -> None:
    """In the caller's line, not in a thread of later."""
    with pytest.raises(ValueError, match=r"time zone|JSON"):
        event(**{field: value})


@pytest.mark.parametrize("user_id", [".", ".."])
def test_dots_in_a_path_are_no_steps(user_id: str) -> None:
    """`/v1/users/../events` would be another route."""
    service = answering({"user_id": user_id, "events": [], "next_cursor": None})
    with service.sojourn() as client:
        client.user_events(user_id)
    assert service.target == f"GET /v1/users/{'%2E' * len(user_id)}/events"


def test_an_empty_id_never_becomes_a_path_of_something_else() -> None:
    """`DELETE /v1/users?user_id=` and `/v1/items/` name nobody."""
    service = answering({})
    with service.sojourn() as client:
        for call in (client.delete_item, client.erase_user, client.user_events, client.activate):
            with pytest.raises(ValueError, match="must not be empty"):
                call("")
    assert service.requests == []


def test_both_clients_have_the_same_methods_with_the_same_arguments() -> None:
    """The signatures are two, so something has to hold them together."""
    annotations = [
        {
            name: {
                key: str(value).replace("AsyncIterator", "Iterator")
                for key, value in member.__annotations__.items()
            }
            for name, member in vars(kind).items()
            if callable(member) and not name.startswith("_")
        }
        for kind in (sojourn_client.Sojourn, sojourn_client.AsyncSojourn)
    ]
    assert annotations[0] == annotations[1]
    assert len(annotations[0]) == 20


def test_answers_cannot_be_changed_by_accident() -> None:
    """They may be shared by threads."""
    kinds = [getattr(sojourn_client, name) for name in sojourn_client.__all__]
    answers: list[Any] = [kind for kind in kinds if dataclasses.is_dataclass(kind)]
    assert len(answers) > 20
    assert all(kind.__dataclass_params__.frozen for kind in answers)
