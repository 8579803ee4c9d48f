"""A real Valkey for the session, emptied before each test."""

import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import cast

import pytest

from deploy.chaos.topologies import Servers, running_cluster
from service.config import Settings
from service.metrics import Metrics
from service.store.client import RedisClient, connect
from service.store.embedded import EmbeddedValkey
from service.store.history import HistoryStore
from service.store.servers import ServerClient
from tests.fakes import FakeClock
from tests.integration import processes
from tests.integration.store.builders import PATIENT_MS, empty_at


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedValkey]:
    """Run the server that the service embeds."""
    with EmbeddedValkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Run a Cluster of three primaries and three replicas."""
    with running_cluster(tmp_path_factory.mktemp("cluster")) as servers:
        yield servers


@pytest.fixture
def free_port() -> int:
    """Return a port at which nothing listens."""
    return processes.free_port()


@pytest.fixture
def shape() -> str:
    """Return what the test's Redis is: a server; modules that want both override it."""
    return "server"


@pytest.fixture
def store_url(shape: str, request: pytest.FixtureRequest) -> str:
    """Return the URL of the test's Redis."""
    url: str = request.getfixturevalue("cluster" if shape == "cluster" else "valkey").url
    return url


@pytest.fixture
def store_settings(store_url: str) -> Settings:
    """Return settings that lead to the test's Redis."""
    return Settings(redis_url=store_url, redis_timeout_ms=PATIENT_MS)


@pytest.fixture
async def store_client(store_settings: Settings) -> AsyncIterator[RedisClient]:
    """Return a client of an empty Redis, as stores are given one."""
    client = connect(store_settings)
    await empty_at(client)
    async with contextlib.aclosing(client):
        yield client


@pytest.fixture
def redis_client(store_client: RedisClient) -> ServerClient:
    """Return what sends any command to the same Redis; of a Cluster, its driver."""
    return cast("ServerClient", getattr(store_client, "driver", store_client))


@pytest.fixture
def clock() -> FakeClock:
    """Return the time of the store under test."""
    return FakeClock()


@pytest.fixture
async def history_store(
    store_client: RedisClient, store_settings: Settings, clock: FakeClock
) -> AsyncIterator[HistoryStore]:
    """Return a history store on an empty server."""
    store = HistoryStore(store_client, store_settings, Metrics(), now_ms=clock)
    yield store
    await store.close()
