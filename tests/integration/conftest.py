"""A real Valkey for the session, emptied before each test."""

import contextlib
from collections.abc import AsyncIterator, Iterator

import pytest

from service.config import Settings
from service.metrics import Metrics
from service.store.client import RedisClient, connect
from service.store.embedded import EmbeddedValkey
from service.store.history import HistoryStore
from tests.fakes import FakeClock
from tests.integration.store.builders import PATIENT_MS


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedValkey]:
    """Run the server that the service embeds."""
    with EmbeddedValkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture
def store_settings(valkey: EmbeddedValkey) -> Settings:
    """Return settings that lead to the server."""
    return Settings(redis_url=valkey.url, redis_timeout_ms=PATIENT_MS)


@pytest.fixture
async def redis_client(store_settings: Settings) -> AsyncIterator[RedisClient]:
    """Return a client of an empty server."""
    client = connect(store_settings)
    await client.flushall()
    async with contextlib.aclosing(client):
        yield client


@pytest.fixture
def clock() -> FakeClock:
    """Return the time of the store under test."""
    return FakeClock()


@pytest.fixture
async def history_store(
    redis_client: RedisClient, store_settings: Settings, clock: FakeClock
) -> AsyncIterator[HistoryStore]:
    """Return a history store on an empty server."""
    store = HistoryStore(redis_client, store_settings, Metrics(), now_ms=clock)
    yield store
    await store.close()
