"""How often a request goes to Redis and through the encoder: counted, so that no clock is asked."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from onnxruntime import InferenceSession

from service.app import create_app
from service.bundle_loader import LoadedBundle, load_bundle
from service.config import Settings
from service.store.servers import ServerClient
from tests.builders import event_json, make_bundle
from tests.clients import client_of

pytestmark = pytest.mark.integration

NUM_USERS = 16
# What goes on by itself a few times a second: it follows other processes.
BACKGROUND = {"info", "hgetall", "xread", "xrange", "xinfo|stream", "hset", "hmget", "zunion"}
BEHIND_THE_ANSWER = {"evalsha", "eval"}


@pytest.fixture
async def client(
    store_settings: Settings, bundle_path: Path, bundle: LoadedBundle, redis_client: ServerClient
) -> AsyncIterator[httpx.AsyncClient]:
    """Return a client of a service on an empty Redis, with an event of each user stored."""
    settings = store_settings.model_copy(
        update={"bundle_path": bundle_path, "retention_days": 36_500}
    )
    async with client_of(create_app(settings, bundle=bundle)) as client:
        await store_events(client)
        yield client


@pytest.fixture
async def keeping_client(
    store_settings: Settings, tmp_path: Path, redis_client: ServerClient
) -> AsyncIterator[httpx.AsyncClient]:
    """Return a client of a service whose encoder says that its answers last."""
    path = make_bundle(tmp_path, says_until=True)
    settings = store_settings.model_copy(update={"bundle_path": path, "retention_days": 36_500})
    async with client_of(create_app(settings, bundle=load_bundle(path))) as client:
        await store_events(client)
        yield client


async def store_events(client: httpx.AsyncClient) -> None:
    """Store an event of each user."""
    events = [
        event_json(item_id="drama-1", user_id=f"user-{at}", event_id=f"{at}")
        for at in range(NUM_USERS)
    ]
    stored = await client.post("/v1/events", json={"events": events})
    assert stored.json()["accepted"] == NUM_USERS


@pytest.fixture
def encoder_calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the number of windows in each call of an encoder from now on."""
    calls: list[int] = []
    run = InferenceSession.run

    def counted(session: InferenceSession, names: Any, fed: Mapping[str, Any]) -> Any:
        calls.append(len(fed["items"]))
        return run(session, names, fed)

    monkeypatch.setattr(InferenceSession, "run", counted)
    return calls


async def commands(redis: ServerClient) -> Counter[str]:
    """Return how often each command was called, but for those of the background."""
    stats = await redis.info("commandstats")
    calls = {name.removeprefix("cmdstat_"): one["calls"] for name, one in stats.items()}
    # A script's own commands are counted too; they need no round trip.
    inside = {"get", "set", "exists", "expire", "xadd"}
    return Counter({name: n for name, n in calls.items() if name not in BACKGROUND | inside})


async def recommend(client: httpx.AsyncClient, at: int) -> None:
    """Ask for one user's recommendations, made by the model."""
    answer = await client.get(f"/v1/users/user-{at}/recommendations?k=3")
    assert (answer.status_code, answer.json()["source"]) == (200, "model")


async def commands_of(
    client: httpx.AsyncClient, redis: ServerClient, encoder_calls: list[int], users: range
) -> Counter[str]:
    """Return the commands for the recommendations of users, all at once and after a first one."""
    await recommend(client, 0)
    await asyncio.sleep(0.05)
    before = await commands(redis)
    encoder_calls.clear()
    await asyncio.gather(*(recommend(client, at) for at in users))
    await asyncio.sleep(0.05)
    return await commands(redis) - before


async def test_a_request_reads_once_and_is_encoded_once(
    client: httpx.AsyncClient, redis_client: ServerClient, encoder_calls: list[int]
) -> None:
    """One round trip before the answer; one behind it, which notes what was shown."""
    called = await commands_of(client, redis_client, encoder_calls, range(1, 2))
    assert encoder_calls == [1]
    assert called["mget"] == 1
    assert sum(called[name] for name in BEHIND_THE_ANSWER) == 1
    assert set(called) <= {"mget", *BEHIND_THE_ANSWER}


async def test_requests_of_one_moment_share_both(
    client: httpx.AsyncClient, redis_client: ServerClient, encoder_calls: list[int]
) -> None:
    """Sixteen at once are one read and one batch, or two where the first was alone in its turn."""
    called = await commands_of(client, redis_client, encoder_calls, range(NUM_USERS))
    assert sum(encoder_calls) == NUM_USERS
    assert len(encoder_calls) <= 2
    assert called["mget"] <= 2
    assert 1 <= sum(called[name] for name in BEHIND_THE_ANSWER) <= 3


async def test_without_a_user_nothing_is_read(
    client: httpx.AsyncClient, redis_client: ServerClient, encoder_calls: list[int]
) -> None:
    """An anonymous session's events come with the request."""
    before = await commands(redis_client)
    seen = {"item_id": "drama-1", "event_type": "view", "timestamp": "2026-01-14T10:00:00Z"}
    answer = await client.post("/v1/recommendations", json={"k": 3, "events": [seen]})
    assert (answer.status_code, answer.json()["source"]) == (200, "model")
    called = await commands(redis_client) - before
    assert encoder_calls == [1]
    assert called["mget"] == 0


async def test_who_asks_again_is_read_again_and_not_encoded(
    keeping_client: httpx.AsyncClient, redis_client: ServerClient, encoder_calls: list[int]
) -> None:
    """While nothing happened; an event, and an erasure, are in the very next answer."""
    await commands_of(keeping_client, redis_client, encoder_calls, range(NUM_USERS))
    # The first one's was encoded before the count.
    assert sum(encoder_calls) == NUM_USERS - 1
    called = await commands_of(keeping_client, redis_client, encoder_calls, range(NUM_USERS))
    assert encoder_calls == []
    assert 1 <= called["mget"] <= 2
    event = event_json(item_id="night-1", user_id="user-3", event_id="new")
    await keeping_client.post("/v1/events", json={"events": [event]})
    await recommend(keeping_client, 3)
    assert encoder_calls == [1]
    await keeping_client.delete("/v1/users/user-4")
    answer = await keeping_client.get("/v1/users/user-4/recommendations?k=3")
    assert answer.json()["source"] == "popular"
    assert encoder_calls == [1]
