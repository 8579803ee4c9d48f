"""Fixtures only: a tiny bundle, and the whole application on fakes, asked over HTTP."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.app import create_app
from service.bundle_loader import LoadedBundle, load_bundle
from service.config import Settings
from tests.builders import make_bundle
from tests.clients import client_of
from tests.fake_stores import FakeExposures, FakeLists, fake_stores
from tests.fakes import FakeAnnouncements, FakeClock, FakeCounters, FakeHistory
from tests.folders import add_bundle, point_at


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
def exposures() -> FakeExposures:
    """Return an empty store of exposures."""
    return FakeExposures()


@pytest.fixture
def lists() -> FakeLists:
    """Return an empty store of ranked lists."""
    return FakeLists()


@pytest.fixture
def stores(
    history: FakeHistory, counters: FakeCounters, exposures: FakeExposures, lists: FakeLists
) -> dict[str, Any]:
    """Return the stores of the application under test."""
    return fake_stores(history=history, counters=counters, exposures=exposures, lists=lists)


@pytest.fixture
async def client(
    settings: Settings, bundle: LoadedBundle, stores: dict[str, Any], clock: FakeClock
) -> AsyncIterator[httpx.AsyncClient]:
    """Return a client of the whole application on fakes."""
    app = create_app(settings, **stores, bundle=bundle, clock=clock)
    async with client_of(app) as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder of no bundles."""
    path = tmp_path / "bundles"
    path.mkdir()
    return path


@pytest.fixture
def old(folder: Path) -> str:
    """Return the version that CURRENT names."""
    version = add_bundle(folder, "old")
    point_at(folder, version)
    return version


@pytest.fixture
def new(folder: Path) -> str:
    """Return another version, whose items have other indices."""
    return add_bundle(folder, "new", reverse=True)


@pytest.fixture
def announcements() -> FakeAnnouncements:
    """Return what all applications of a test share."""
    return FakeAnnouncements()
