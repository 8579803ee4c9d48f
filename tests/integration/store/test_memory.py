"""The calculator of memory, held to what a real server says that it uses."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from service.config import Settings
from service.contract.events import Event, ItemId, UserId
from service.contract.exposures import Exposure, Impression
from service.metrics import Metrics
from service.store import keys
from service.store.catalogue import CatalogueStore, ItemChange
from service.store.exposures import ExposureStore
from service.store.history import HistoryStore
from service.store.memory import StoreLoad, glibc, jemalloc, parts_of, total_bytes
from service.store.servers import ServerClient
from tests.fakes import NOON_MS, FakeClock
from tests.integration.store.builders import PATIENT_MS

pytestmark = pytest.mark.integration

NUM_ITEMS = 800
TOLERANCE = 0.1
LOAD = StoreLoad(
    num_users=3_000,
    window=30,
    num_seen=6,
    num_shown_users=1_500,
    num_shown=20,
    num_answers=1_500,
    num_places=20,
    num_live_items=1_500,
    num_counted=NUM_ITEMS,
    num_days=1,
    num_streamed=1_000,
    num_partitions=16,
    item_id_bytes=len("item-00001"),
    user_id_bytes=len("user-00001"),
    title_bytes=40,
    num_numbers=1,
)
PATTERNS = {
    "histories": "*:h1:*",
    "seen": "*:s1:*",
    "showings": "*:w1:*",
    "answers": "*:x1:*",
    "streams": "*:ev1",
    "counters": "*:c1:*",
    "catalogue": "{items}:*",
}


@pytest.fixture
def settings(store_settings: Settings) -> Settings:
    """Return settings with the bounds of the load."""
    bounds = {
        "max_events": LOAD.window,
        "max_seen": 50,
        "stream_max_events": LOAD.num_streamed,
        "redis_timeout_ms": PATIENT_MS,
    }
    return store_settings.model_copy(update=bounds)


@pytest.fixture
async def stores(
    redis_client: ServerClient, settings: Settings
) -> AsyncIterator[tuple[HistoryStore, ExposureStore, CatalogueStore]]:
    """Return the stores that fill an empty server."""
    history = HistoryStore(redis_client, settings, Metrics(), FakeClock())
    exposures = ExposureStore(redis_client, settings, Metrics())
    yield history, exposures, CatalogueStore(redis_client, settings, Metrics())
    await history.close()


def event_of(user: int, number: int) -> Event:
    """Return a user's n-th event, on an item that others have events on too."""
    return Event(
        event_id=f"{user:016}{number:016}",
        user_id=UserId(f"user-{user:05}"),
        item_id=ItemId(f"item-{(7 * user + number) % NUM_ITEMS:05}"),
        event_type="view",
        timestamp_ms=NOON_MS + 1_000 * number,
        value=4.0,
    )


def exposure_of(user: int) -> Exposure:
    """Return an answer that a user was shown."""
    user_id = UserId(f"user-{user:05}")
    places = range(1, LOAD.num_places + 1)
    return Exposure(
        recommendation_id=keys.new_recommendation_id(user_id, LOAD.num_partitions),
        user_id=user_id,
        timestamp_ms=NOON_MS,
        model_version="0123456789abcdef",
        policy="best",
        impressions=tuple(Impression(f"item-{at:05}", at, "model", 1.0) for at in places),
    )


async def fill(
    stores: tuple[HistoryStore, ExposureStore, CatalogueStore], num_users: int, num_items: int
) -> None:
    """Store the load of so many users: a post of a window, then one event after the other."""
    history, exposures, catalogue = stores
    users = range(num_users)
    for at in range(0, num_users, 250):
        group = users[at : at + 250]
        first = [[event_of(user, n) for n in range(LOAD.window)] for user in group]
        await asyncio.gather(*map(history.append, first))
        for number in range(LOAD.window, LOAD.window + LOAD.num_seen):
            await asyncio.gather(*(history.append([event_of(user, number)]) for user in group))
        shown = group[::2]
        await exposures.record([exposure_of(user) for user in shown])
    for at in range(0, num_items, 500):
        said = {"categories": ["category-1", "category-2"], "available": True}
        changes = [
            ItemChange(f"item-{number:05}", said | {"title": "t" * LOAD.title_bytes}, True)
            for number in range(at, min(at + 500, num_items))
        ]
        await catalogue.change(changes)


async def used_bytes(client: ServerClient) -> int:
    """Return what the server says that it uses."""
    return int((await client.info("memory"))["used_memory"])


async def usage_of(client: ServerClient, pattern: str) -> int:
    """Return the sum of what the server says of each key, all of it looked at."""
    names = [name async for name in client.scan_iter(pattern, count=1_000)]
    pipeline = client.pipeline(transaction=False)
    for name in names:
        pipeline.memory_usage(name, samples=0)
    return sum(await pipeline.execute())


async def test_the_calculator_is_right_to_a_tenth(
    redis_client: ServerClient, stores: tuple[HistoryStore, ExposureStore, CatalogueStore]
) -> None:
    """Each kind of keys by MEMORY USAGE, and all of them by what the server grew."""
    # What the server keeps of scripts and connections is no data.
    await fill(stores, 20, 20)
    await redis_client.flushall()
    before = await used_bytes(redis_client)
    await fill(stores, LOAD.num_users, LOAD.num_live_items)
    grown = await used_bytes(redis_client) - before
    allocator = str((await redis_client.info("memory"))["mem_allocator"])
    parts = parts_of(LOAD, jemalloc if allocator.startswith("jemalloc") else glibc)
    found = {name: await usage_of(redis_client, text) for name, text in PATTERNS.items()}
    wrong = {
        part.name: (round(part.total_bytes), found[part.name])
        for part in parts
        if part.name in found and part.total_bytes != pytest.approx(found[part.name], rel=TOLERANCE)
    }
    assert not wrong
    assert total_bytes(parts) == pytest.approx(grown, rel=TOLERANCE), (grown, found)
