"""Events and stores for the tests of the store."""

import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from service.config import Settings
from service.contract.events import EVENT_TYPE_CODES, Event
from service.metrics import Metrics
from service.store.client import RedisClient, connect
from service.store.cluster import ClusterClient
from service.store.history import HistoryStore
from service.store.history_codec import event_hash
from service.store.servers import ServerClient
from tests.fakes import NOON_MS, FakeClock

# Far more than a call takes, so that a busy machine fails no test.
PATIENT_MS = 20_000


def event(number: int, **overrides: Any) -> Event:
    """Return event number n of anna: item `i<n>`, n seconds after noon."""
    fields: dict[str, Any] = {
        "event_id": f"e{number}",
        "user_id": "anna",
        "item_id": f"i{number}",
        "event_type": "view",
        "timestamp_ms": NOON_MS + 1_000 * number,
    }
    return Event(**(fields | overrides))


def events(*numbers: int, **overrides: Any) -> list[Event]:
    """Return several events."""
    return [event(number, **overrides) for number in numbers]


def packed_records(events: list[Event]) -> bytes:
    """Return a history of layout 1, as older stores hold them: a whole record for each event."""
    records = [
        struct.pack(
            "<IH6sBb4f",
            event.timestamp_ms % (1 << 32),
            event.timestamp_ms >> 32,
            event_hash(event.event_id),
            EVENT_TYPE_CODES[event.event_type],
            -128 if event.tz_offset_min is None else event.tz_offset_min // 15,
            *(
                float("nan") if number is None else number
                for number in (event.value, event.duration_s, event.lat, event.lon)
            ),
        )
        for event in events
    ]
    ids = b"".join(event.item_id.encode() + b"\0" for event in events)
    return struct.pack("<BH", 1, len(events)) + b"".join(records) + ids


async def empty(url: str) -> None:
    """Remove everything from the server at a URL."""
    client = connect(Settings(redis_url=url, redis_timeout_ms=PATIENT_MS))
    await empty_at(client)
    await client.aclose()


async def empty_at(client: RedisClient) -> None:
    """Remove everything from the servers of a client."""
    if isinstance(client, ClusterClient):
        await client.check()
        await client.driver.flushall(target_nodes=client.driver.PRIMARIES)
    else:
        await client.flushall()


def connect_server(url: str) -> ServerClient:
    """Return a client of a single server that sends any command."""
    client = connect(Settings(redis_url=url))
    assert isinstance(client, ServerClient)
    return client


@asynccontextmanager
async def store_at(
    url: str, *, clock: FakeClock | None = None, **settings: Any
) -> AsyncIterator[HistoryStore]:
    """Open a history store on the server at a URL; close both it and its client."""
    chosen = Settings(redis_url=url, **({"redis_timeout_ms": PATIENT_MS} | settings))
    client = connect(chosen)
    store = HistoryStore(client, chosen, Metrics(), now_ms=clock or FakeClock())
    try:
        yield store
    finally:
        await store.close()
        await client.aclose()
