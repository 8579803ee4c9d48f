from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import httpx
import pytest
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import StreamingResponse
from structlog.testing import capture_logs
from structlog.typing import EventDict

from service.logs import request_id
from service.metrics import Metrics
from service.middleware import BodyLimitMiddleware, RequestMiddleware
from service.problems import register_problem_handlers
from tests.clients import metric


@pytest.fixture(autouse=True)
def logged() -> Iterator[list[EventDict]]:
    """Return what is logged, instead of writing it."""
    with capture_logs() as lines:
        yield lines


@asynccontextmanager
async def small_app() -> AsyncIterator[tuple[httpx.AsyncClient, Metrics]]:
    """Yield a client of the smallest application that shows what the middleware does."""
    metrics = Metrics()
    app = FastAPI()
    app.add_middleware(BodyLimitMiddleware, max_body_bytes=10)
    app.add_middleware(RequestMiddleware, metrics=metrics)
    register_problem_handlers(app, lambda _path: ["GET"])

    @app.get("/id")
    async def own_id() -> str:
        return request_id.get()

    @app.get("/bug/{name}")
    async def bug(name: str) -> None:
        raise LookupError(f"a secret about {name}")

    @app.get("/late-bug")
    async def late_bug() -> StreamingResponse:
        async def parts() -> AsyncIterator[bytes]:
            yield b"begun"
            raise LookupError("too late")

        return StreamingResponse(parts())

    @app.post("/size")
    async def size(request: Request) -> int:
        return len(await request.body())

    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
        yield client, metrics


def num_requests(metrics: Metrics, labels: str) -> float:
    """Return how many requests were timed under these labels."""
    lines = metrics.render()[0].decode().splitlines()
    wanted = f"sojourn_request_seconds_count{{{labels}}} "
    return sum(float(line.removeprefix(wanted)) for line in lines if line.startswith(wanted))


async def test_a_sane_request_id_is_taken_and_echoed() -> None:
    """The caller's logs and ours then speak of the same request."""
    async with small_app() as (client, _):
        answer = await client.get("/id", headers={"X-Request-ID": "my-request.7"})
    assert answer.json() == answer.headers["x-request-id"] == "my-request.7"


@pytest.mark.parametrize("given", ["", "a b", "x" * 65, 'a"b', "a;b"])
async def test_any_other_request_id_is_replaced(given: str) -> None:
    """It ends up in logs and headers, so it may not say just anything."""
    async with small_app() as (client, _):
        answer = await client.get("/id", headers={"X-Request-ID": given})
    assert answer.headers["x-request-id"] not in {given, ""}
    assert answer.json() == answer.headers["x-request-id"]


async def test_requests_are_timed_by_template_and_never_by_path() -> None:
    """User ids in labels would be personal data, and without bound."""
    async with small_app() as (client, metrics):
        for path in ("/bug/anna", "/bug/bob", "/nothing/anna", "/.env"):
            await client.get(path)
        await client.request("BREW", "/id")
        text = metrics.render()[0].decode()
    assert num_requests(metrics, 'method="GET",route="/bug/{name}",status="500"') == 2
    assert num_requests(metrics, 'method="GET",route="unmatched",status="404"') == 2
    assert num_requests(metrics, 'method="other",route="/id",status="405"') == 1
    assert "anna" not in text


async def test_a_bug_is_a_problem_without_internals_and_is_counted(
    logged: list[EventDict],
) -> None:
    """The reason is in the log, under the id that the answer names."""
    async with small_app() as (client, metrics):
        answer = await client.get("/bug/anna")
    body = answer.json()
    assert (answer.status_code, body["type"]) == (500, "urn:sojourn:problem:internal")
    assert body["instance"] == answer.headers["x-request-id"]
    assert "secret" not in answer.text
    assert [line["event"] for line in logged if line.get("exc_info")] == ["unhandled error"]
    assert "sojourn_unhandled_errors_total 1.0" in metrics.render()[0].decode()


async def test_an_answer_that_has_begun_is_broken_off() -> None:
    """A second start would be nonsense in the middle of a body; the server cuts the connection."""
    async with small_app() as (client, metrics):
        with pytest.raises(LookupError):
            await client.get("/late-bug")
    assert "sojourn_unhandled_errors_total 1.0" in metrics.render()[0].decode()


async def test_a_body_of_the_limit_is_taken_and_one_byte_more_is_not() -> None:
    """Counted in bytes."""
    async with small_app() as (client, _):
        taken = await client.post("/size", content=b"x" * 10)
        refused = await client.post("/size", content=b"x" * 11)
    assert (taken.json(), refused.status_code) == (10, 413)


async def test_the_real_application_times_by_template(client: httpx.AsyncClient) -> None:
    """The same through its routers."""
    await client.get("/v1/users/anna/recommendations")
    labels = 'method="GET",route="/v1/users/{user_id}/recommendations",status="200"'
    assert await metric(client, f"sojourn_request_seconds_count{{{labels}}}") == 1
