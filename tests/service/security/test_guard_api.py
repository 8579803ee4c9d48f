"""Keys through the whole application: every route, every scope, expiry, rotation, guesses."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeAlias

import httpx
import pytest
from fastapi import APIRouter, FastAPI
from fastapi.routing import iter_route_contexts
from starlette.routing import Mount, Route

from service.app import create_app
from service.bundle_loader import LoadedBundle
from service.config import Settings
from service.security.keys import SCOPES, Scope, new_key_text
from service.security.scopes import ROUTES, AccessTable
from tests.builders import event_json
from tests.clients import client_of, metric
from tests.fake_stores import fake_stores
from tests.fakes import NOON_MS, FakeClock
from tests.keys import bearer, entry_of, key_file, key_with
from tests.service.test_bad_inputs import check_problem

EVENTS = "/v1/events"
BODIES: dict[str, Any] = {
    EVENTS: {"events": [event_json()]},
    "/v1/recommendations": {},
    "/v1/rank": {"items": [{"item_id": "a"}]},
    "/v1/items": {"items": [{"item_id": "a"}]},
    "/v1/items/{item_id:text}": {},
    "/v1/users/merge": {"from_user_id": "a", "into_user_id": "b"},
}
PARAMS = {
    ("GET", "/v1/users"): {"user_id": "anna"},
    ("DELETE", "/v1/users"): {"user_id": "anna"},
    ("GET", "/v1/items"): {"item_id": "action-1"},
}
# What an open route answers here if it is not 200: there is one model only.
ANSWERS = {
    ("POST", "/v1/models/rollback"): 409,
    ("POST", "/v1/models/{version}/activate"): 404,
    ("DELETE", "/v1/items/{item_id:text}"): 204,
}

MakeApp: TypeAlias = Callable[..., FastAPI]


@pytest.fixture
def keys_path(tmp_path: Path) -> Path:
    """Return where the file of keys is; it has none until a test writes some."""
    return key_file(tmp_path / "keys.json")


@pytest.fixture
def guarded(settings: Settings, bundle: LoadedBundle, clock: FakeClock, keys_path: Path) -> MakeApp:
    """Return what makes the application on fakes, asking for the keys of the file."""

    def make(**changes: Any) -> FastAPI:
        return create_app(
            settings.model_copy(update={"keys_file": keys_path} | changes),
            **fake_stores(),
            bundle=bundle,
            clock=clock,
        )

    return make


def routes_of(app: FastAPI) -> set[tuple[str, str]]:
    """Return the method and the path, converters included, of each route that the app has."""
    return {
        (method, context.path or "")
        for context in iter_route_contexts(app.router.routes)
        for method in context.methods or ()
    }


async def call(
    client: httpx.AsyncClient, method: str, path: str, headers: dict[str, str] | None = None
) -> httpx.Response:
    """Call a route of the table, of which user ids are filled in, with a body that is right."""
    filled = path.replace("{user_id:text}", "anna").replace("{item_id:text}", "action-1")
    filled = filled.replace("{name}", "app.js")
    params = PARAMS.get((method, path))
    body = BODIES.get(path)
    return await client.request(method, filled, json=body, params=params, headers=headers)


def test_every_route_has_an_entry_and_every_entry_a_route(
    guarded: MakeApp, keys_path: Path
) -> None:
    """A route that was forgotten is closed where keys are asked for; say what it asks for."""
    key_file(keys_path)
    assert routes_of(guarded()) == set(ROUTES)


@pytest.mark.parametrize("user_id", ["anna", "a/b", "x/recommendations/y", "v1/events/y"])
def test_a_path_leads_to_its_own_entry(user_id: str) -> None:
    """A user id may hold slashes, so that a path could fit two templates."""
    table = AccessTable()
    for method, path in ROUTES:
        access = table.find(
            method, path.replace("{user_id:text}", user_id).replace("{item_id:text}", user_id)
        )
        assert access is not None
        assert (access.method, access.template) == (method, path.replace(":text", ""))


@pytest.mark.parametrize("granted", [None, *SCOPES])
@pytest.mark.parametrize(("method", "path"), ROUTES, ids=[" ".join(route) for route in ROUTES])
async def test_a_route_opens_to_its_scope_and_to_no_other(
    guarded: MakeApp, keys_path: Path, method: str, path: str, granted: Any
) -> None:
    """Every route with every scope and without a key; admin opens what is admin's, no more."""
    headers = bearer(key_with(keys_path, granted or "admin")) if granted else {}
    async with client_of(guarded()) as client:
        answer = await call(client, method, path, headers)
    asked = ROUTES[method, path]
    if asked in (None, granted):
        assert answer.status_code == ANSWERS.get((method, path), 200), answer.text
    elif granted is None:
        check_problem(answer, 401, "unauthenticated")
        assert answer.headers["www-authenticate"] == 'Bearer realm="sojourn"'
    else:
        assert repr(asked) in check_problem(answer, 403, "forbidden")["detail"]


async def test_the_other_header_carries_a_key_too(guarded: MakeApp, keys_path: Path) -> None:
    """Some gateways keep `Authorization` for themselves; a bearer token is taken first."""
    text = key_with(keys_path, "write-events")
    async with client_of(guarded()) as client:
        statuses = [
            (await call(client, "POST", EVENTS, headers)).status_code
            for headers in (
                {"X-API-Key": text},
                {"X-API-Key": text, "Authorization": "Basic YTpi"},
                {"X-API-Key": text, "Authorization": "Bearer sjn_wrong"},
                {"X-API-Key": "nonsense", "Authorization": f"bearer  {text} "},
                {"Authorization": text},
                {"Authorization": "Bearer "},
            )
        ]
    assert statuses == [200, 200, 401, 200, 401, 401]


async def test_a_refused_body_is_not_even_read(guarded: MakeApp, keys_path: Path) -> None:
    """Neither its form nor its size is judged before the key: nothing is done for a stranger."""
    key_file(keys_path)
    async with client_of(guarded()) as client:
        for content in (b"{", b"x" * 2_000_000):
            answer = await client.post(EVENTS, content=content)
            check_problem(answer, 401, "unauthenticated")


async def test_a_key_counts_until_it_expires(
    guarded: MakeApp, keys_path: Path, clock: FakeClock
) -> None:
    """The instant itself is too late; and its holder is told why."""
    text = new_key_text()
    expires_at = datetime.fromtimestamp(NOON_MS / 1000, UTC) + timedelta(seconds=1)
    key_file(keys_path, entry_of(text, "recommend", expires_at=expires_at))
    async with client_of(guarded(auth_failures_per_min=1)) as client:
        path = "/v1/users/anna/recommendations"
        clock.advance(999)
        before = await client.get(path, headers=bearer(text))
        clock.advance(1)
        after = [await client.get(path, headers=bearer(text)) for _ in range(3)]
    assert before.status_code == 200
    for answer in after:
        assert "expired at 2026-01-14" in check_problem(answer, 401, "unauthenticated")["detail"]


async def test_refusals_are_counted_by_route(guarded: MakeApp, keys_path: Path) -> None:
    """By its template, as answers are: nobody's id, and not all of them as one."""
    admin = key_with(keys_path, "admin")
    async with client_of(guarded()) as client:
        await client.get("/v1/users/anna/recommendations")
        client.headers.update(bearer(admin))
        labels = 'method="GET",route="/v1/users/{user_id}/recommendations",status="401"'
        assert await metric(client, f"sojourn_request_seconds_count{{{labels}}}") == 1


async def test_keys_are_rotated_without_a_restart(
    guarded: MakeApp, keys_path: Path, clock: FakeClock
) -> None:
    """Both count while both are in the file, and a second after it is rewritten only the new."""
    old, new = new_key_text(), new_key_text()
    steps = ([old], [old, new], [new])
    key_file(keys_path, entry_of(old, "recommend"))
    statuses = []
    async with client_of(guarded()) as client:
        for texts in steps:
            key_file(keys_path, *(entry_of(text, "recommend") for text in texts))
            clock.advance(1_000)
            for text in (old, new):
                answer = await client.post("/v1/recommendations", json={}, headers=bearer(text))
                statuses.append(answer.status_code)
    assert statuses == [200, 401, 200, 200, 401, 200]


async def test_guesses_from_one_address_are_limited(
    guarded: MakeApp, keys_path: Path, clock: FakeClock
) -> None:
    """Three a minute: then even a right key is not looked at, and a minute's third later it is."""
    text = key_with(keys_path, "recommend", "admin")
    app = guarded(auth_failures_per_min=3, trusted_proxies=("127.0.0.1",))

    def sent(key: str, address: str = "203.0.113.9") -> dict[str, str]:
        return bearer(key) | {"X-Forwarded-For": address}

    async with client_of(app) as client:
        guesses = [
            await client.post("/v1/recommendations", json={}, headers=sent(new_key_text()))
            for _ in range(6)
        ]
        right = await client.post("/v1/recommendations", json={}, headers=sent(text))
        other = await client.post("/v1/recommendations", json={}, headers=sent(text, "10.1.1.1"))
        health = await client.get("/healthz", headers=sent("wrong"))
        clock.advance(20_000)
        later = await client.post("/v1/recommendations", json={}, headers=sent(text))
        client.headers.update(bearer(text))
        refused = 'sojourn_refused_requests_total{reason="%s"}'
        counts = [await metric(client, refused % why) for why in ("unknown-key", "attempts")]
    assert [answer.status_code for answer in guesses] == [401, 401, 401, 429, 429, 429]
    check_problem(right, 429, "too-many-attempts")
    assert right.headers["retry-after"] == "20"
    assert (other.status_code, health.status_code, later.status_code) == (200, 200, 200)
    assert counts == [3, 4]


async def test_calls_without_a_key_are_no_guesses(guarded: MakeApp, keys_path: Path) -> None:
    """A browser that was not told the key must not lock out its office."""
    key_file(keys_path)
    async with client_of(guarded(auth_failures_per_min=1)) as client:
        statuses = [(await client.post(EVENTS, json={})).status_code for _ in range(5)]
    assert statuses == [401] * 5


async def test_a_key_is_limited_to_its_rate_and_told_what_is_left(
    guarded: MakeApp, keys_path: Path, clock: FakeClock
) -> None:
    """A burst of two, then two a second: half a second later there is one again."""
    slow, free = new_key_text(), new_key_text()
    key_file(
        keys_path,
        entry_of(slow, "recommend"),
        entry_of(free, "recommend", rate_limit_per_s=0),
    )
    path = "/v1/users/anna/recommendations"
    async with client_of(guarded(rate_limit_per_s=2.0, rate_limit_burst=2)) as client:
        answers = [await client.get(path, headers=bearer(slow)) for _ in range(3)]
        clock.advance(500)
        later = await client.get(path, headers=bearer(slow))
        others = [await client.get(path, headers=bearer(free)) for _ in range(5)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert [answer.headers["ratelimit-remaining"] for answer in answers] == ["1", "0", "0"]
    check_problem(answers[2], 429, "rate-limited")
    names = ("retry-after", "ratelimit-limit", "ratelimit-reset")
    assert [answers[2].headers[name] for name in names] == ["1", "2", "1"]
    assert later.status_code == 200
    assert {answer.status_code for answer in others} == {200}
    assert "ratelimit-limit" not in others[0].headers


async def hidden() -> str:
    """Answer what nobody should see."""
    return "hidden"


async def test_a_route_without_an_entry_is_closed(guarded: MakeApp, keys_path: Path) -> None:
    """However it got there: a router, a plain route, another application, or a new method."""
    headers = bearer(key_with(keys_path, *SCOPES))
    app = guarded()
    router = APIRouter()
    router.add_api_route("/v1/hidden", hidden)
    router.add_api_route(EVENTS, hidden, methods=["DELETE"])
    app.include_router(router)
    app.router.routes.insert(0, Route("/plain", lambda _request: None))
    app.router.routes.insert(0, Mount("/other", routes=[Route("/x", lambda _request: None)]))
    async with client_of(app) as client:
        for path in ("/v1/hidden", "/plain", "/other/x"):
            check_problem(await client.get(path, headers=headers), 404, "not-found")
        other_method = await client.delete(EVENTS, headers=headers)
        check_problem(other_method, 405, "method-not-allowed")
    assert other_method.headers["allow"] == "POST"


async def test_a_route_that_takes_the_path_of_another_is_closed(
    guarded: MakeApp, keys_path: Path
) -> None:
    """The table and the framework disagree on what was called, so nobody is let in."""
    headers = bearer(key_with(keys_path, *SCOPES))
    app = guarded()
    router = APIRouter()
    router.add_api_route("/v1/users/{anything:path}", hidden)
    app.include_router(router)
    app.router.routes.insert(0, app.router.routes.pop())
    async with client_of(app) as client:
        answer = await client.get("/v1/users/anna/recommendations", headers=headers)
    check_problem(answer, 403, "forbidden")


async def test_the_description_names_keys_scopes_and_refusals(
    guarded: MakeApp, keys_path: Path, client: httpx.AsyncClient
) -> None:
    """Generated clients ask for a key where one is needed, and nowhere else."""
    key_file(keys_path)
    async with client_of(guarded()) as guarded_client:
        document = (await guarded_client.get("/openapi.json")).json()
    assert set(document["components"]["securitySchemes"]) == {"bearer", "header"}
    post = document["paths"][EVENTS]["post"]
    assert (post["security"], post["x-scope"]) == ([{"bearer": []}, {"header": []}], "write-events")
    assert {"401", "403", "429"} <= set(post["responses"])
    assert document["paths"]["/livez"]["get"]["security"] == []
    assert "securitySchemes" not in (await client.get("/openapi.json")).json()["components"]


@pytest.mark.parametrize("scopes", [("recommend",), ("recommend", "privacy")])
async def test_an_explanation_tells_a_history_only_to_whom_may_read_it(
    guarded: MakeApp, keys_path: Path, scopes: tuple[Scope, ...]
) -> None:
    """What a user did is not to be had by asking why instead of asking for it."""
    headers = bearer(key_with(keys_path, *scopes))
    may = 200 if "privacy" in scopes else 403
    body = {"explain": True, "user_id": "anna"}
    own = {"explain": True, "events": [{"item_id": "a", "event_type": "view", "timestamp": 1}]}
    async with client_of(guarded()) as client:
        got = await client.get("/v1/users/anna/recommendations?explain=true", headers=headers)
        posted = await client.post("/v1/recommendations", json=body, headers=headers)
        plain = await client.post("/v1/recommendations", json={"user_id": "anna"}, headers=headers)
        of_session = await client.post("/v1/recommendations", json=own, headers=headers)
    assert (got.status_code, posted.status_code) == (may, may)
    assert (plain.status_code, of_session.status_code) == (200, 200)
