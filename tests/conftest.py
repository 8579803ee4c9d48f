"""Fixtures only: a tiny bundle, and the whole application on fakes, asked over HTTP."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from service.app import create_app
from service.bundle_loader import LoadedBundle, load_bundle
from service.config import Settings
from tests.builders import make_bundle
from tests.clients import client_of
from tests.fakes import FakeClock, FakeCounters, FakeHistory


@pytest.fixture(scope="session")
def bundle_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a valid bundle; a test that spoils one makes its own."""
    return make_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="session")
def bundle(bundle_path: Path) -> LoadedBundle:
    """Return the loaded bundle."""
    return load_bundle(bundle_path)


@pytest.fixture
def settings(bundle_path: Path) -> Settings:
    """Return settings that no environment variable changes in what tests rely on."""
    return Settings(bundle_path=bundle_path, redis_url=None, max_body_bytes=1_048_576)


@pytest.fixture
def clock() -> FakeClock:
    """Return a clock that stands at noon."""
    return FakeClock()


@pytest.fixture
def history(clock: FakeClock) -> FakeHistory:
    """Return an empty store of histories."""
    return FakeHistory(clock=clock)


@pytest.fixture
def counters() -> FakeCounters:
    """Return live counts of nothing."""
    return FakeCounters()


@pytest.fixture
async def client(
    settings: Settings,
    bundle: LoadedBundle,
    history: FakeHistory,
    counters: FakeCounters,
    clock: FakeClock,
) -> AsyncIterator[httpx.AsyncClient]:
    """Return a client of the whole application on fakes."""
    app = create_app(settings, history=history, counters=counters, bundle=bundle, clock=clock)
    async with client_of(app) as running:
        yield running
