"""Redis is slow, deaf or gone: answers in time, at the cost of few calls, and recovery alone."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.app import create_app
from service.bundle_loader import LoadedBundle
from service.config import Settings
from tests.builders import event_json
from tests.clients import client_of, metric
from tests.fakes import NOON_MS
from tests.integration.processes import free_port, serving, valkey_at
from tests.integration.proxies import Proxy, proxy_to

pytestmark = pytest.mark.integration

DEADLINE_S = 2.0
PATIENCE_S = 30.0
SEEN = {"item_id": "drama-1", "event_type": "view", "timestamp": NOON_MS}
INLINE = {"k": 3, "user_id": "anna", "events": [SEEN]}
OPEN = 'sojourn_redis_breaker{state="open"}'


@pytest.fixture(scope="module")
def valkey_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Run a server for this module's proxies to lead to."""
    port = free_port()
    with valkey_at(port, tmp_path_factory.mktemp("valkey")):
        yield port


@pytest.fixture
def proxy(valkey_port: int) -> Iterator[Proxy]:
    """Return a proxy that passes everything on at first."""
    with proxy_to(valkey_port) as proxy:
        yield proxy


@pytest.fixture
def degradable(proxy: Proxy, bundle_path: Path) -> Settings:
    """Return settings that lead to the proxy; a breaker that opens stays so for a moment."""
    return Settings(
        redis_url=f"redis://127.0.0.1:{proxy.port}/0",
        bundle_path=bundle_path,
        retention_days=36_500,
        redis_breaker_open_ms=300,
        request_deadline_ms=int(DEADLINE_S * 1_000),
    )


@pytest.fixture
async def client(degradable: Settings, bundle: LoadedBundle) -> AsyncIterator[httpx.AsyncClient]:
    """Return a client of the service on that Redis, with an event of anna stored."""
    async with client_of(create_app(degradable, bundle=bundle)) as client:
        await until_whole(client)
        yield client


async def until_whole(client: httpx.AsyncClient) -> None:
    """Return once an event is stored and answers are whole again; no restart helps with it."""
    end_s = time.monotonic() + PATIENCE_S
    event = {"events": [event_json(item_id="drama-1", user_id="anna")]}
    while time.monotonic() < end_s:
        stored = await client.post("/v1/events", json=event)
        answer = await client.get("/v1/users/anna/recommendations")
        if stored.status_code == 200 and answer.json()["degraded"] == []:
            return
        await asyncio.sleep(0.05)
    pytest.fail(f"not whole again: {stored.text} {answer.text}")


async def timed(client: httpx.AsyncClient, **body: Any) -> tuple[dict[str, Any], float]:
    """Return the answer to a request with events in it, and how long it took, seconds."""
    started_s = time.monotonic()
    answer = await client.post("/v1/recommendations", json=INLINE | body)
    assert answer.status_code == 200, answer.text
    return answer.json(), time.monotonic() - started_s


def spoil(proxy: Proxy, how: str) -> None:
    """Make Redis slow, deaf or gone."""
    if how == "slow":
        proxy.delay_s = 0.5
    elif how == "deaf":
        proxy.is_deaf = True
    else:
        proxy.go_away()


@pytest.mark.parametrize("how", ["slow", "deaf", "gone"])
async def test_answers_come_in_time_and_are_whole_again_by_themselves(
    client: httpx.AsyncClient, proxy: Proxy, how: str
) -> None:
    """From the request's own events meanwhile, or from what is popular; `degraded` says why."""
    spoil(proxy, how)
    for _ in range(10):
        answer, elapsed_s = await timed(client)
        assert (answer["source"], answer["degraded"]) == ("model", ["redis"])
        assert elapsed_s < DEADLINE_S
    popular, _ = await timed(client, events=[])
    assert (popular["source"], popular["degraded"]) == ("popular", ["redis"])
    health = await client.get("/healthz")
    assert (health.status_code, health.json()["redis"]) == (503, "unavailable")
    assert health.json()["redis_breaker"] in ("open", "half-open")
    proxy.come_back()
    await until_whole(client)
    health = await client.get("/healthz")
    assert (health.json()["redis"], health.json()["redis_breaker"]) == ("ok", "closed")
    assert await metric(client, OPEN) == 0


async def test_a_deaf_redis_is_asked_by_a_few_calls_and_not_by_every_request(
    degradable: Settings, bundle: LoadedBundle, proxy: Proxy
) -> None:
    """Each call would cost its request the whole timeout; a write is refused at once instead."""
    for_long = degradable.model_copy(update={"redis_breaker_open_ms": 60_000})
    async with client_of(create_app(for_long, bundle=bundle)) as client:
        await until_whole(client)
        proxy.is_deaf = True
        while not await metric(client, OPEN):
            await timed(client)
        said = proxy.num_said
        for _ in range(30):
            answer, _ = await timed(client)
            assert answer["degraded"] == ["redis"]
        refused = await client.post("/v1/events", json={"events": [event_json()]})
        assert proxy.num_said == said
    assert refused.status_code == 503
    assert refused.headers["content-type"] == "application/problem+json"
    assert 1 <= int(refused.headers["retry-after"]) <= 60


async def test_a_cancelled_or_late_call_shifts_no_replies(
    client: httpx.AsyncClient, proxy: Proxy
) -> None:
    """Connections of calls that timed out are replaced: what comes late is nobody's."""
    for number in range(8):
        event = event_json(item_id="night-1", user_id=f"u{number}")
        assert (await client.post("/v1/events", json={"events": [event]})).status_code == 200
    proxy.delay_s = 0.3
    await asyncio.gather(
        *(client.get(f"/v1/users/u{number}/recommendations") for number in range(8))
    )
    proxy.come_back()
    await until_whole(client)
    for number in range(8):
        held = await client.get(f"/v1/users/u{number}")
        assert held.json()["user_id"] == f"u{number}"
        assert [one["item_id"] for one in held.json()["events"]] == ["night-1"]


def test_two_workers_outlive_redis_and_see_it_come_back(bundle_path: Path, proxy: Proxy) -> None:
    """Every worker has breakers of its own; none is restarted, and none stays degraded."""
    options = ("--redis", f"redis://127.0.0.1:{proxy.port}/0")
    with serving(bundle_path, *options, workers=2) as (process, client):
        assert all_answers(client) == {()}
        proxy.go_away()
        assert all_answers(client) == {("redis",)}
        event = {"events": [event_json()]}
        refused = [client.post("/v1/events", json=event) for _ in range(10)]
        assert {answer.status_code for answer in refused} == {503}
        assert all("retry-after" in answer.headers for answer in refused)
        proxy.come_back()
        end_s = time.monotonic() + PATIENCE_S
        while all_answers(client) != {()}:
            assert time.monotonic() < end_s, "a worker stays degraded"
        assert client.post("/v1/events", json=event).status_code == 200
        assert process.output.count('"event": "Started server process') == 2


def all_answers(client: httpx.Client) -> set[tuple[str, ...]]:
    """Return what many answers say of their degradation, over connections of their own."""
    found = set()
    limits = httpx.Limits(max_keepalive_connections=0)
    with httpx.Client(base_url=client.base_url, limits=limits, timeout=PATIENCE_S) as fresh:
        for _ in range(20):
            answer = fresh.get("/v1/users/anna/recommendations")
            assert answer.status_code == 200, answer.text
            found.add(tuple(answer.json()["degraded"]))
    return found
