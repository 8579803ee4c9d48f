"""One suite for the announcement of models: on the fake that unit tests use, and on Valkey."""

import asyncio
from pathlib import Path

import pytest

from service.config import Settings
from service.errors import StoreUnavailable
from service.metrics import Metrics
from service.models import Announcements
from service.store.announcements import Announced, ModelAnnouncements
from service.store.client import RedisClient, connect
from service.store.keys import MODEL_KEY
from service.store.servers import ServerClient
from tests.fakes import FakeAnnouncements

pytestmark = pytest.mark.integration


@pytest.fixture(params=["fake", "server", "cluster"])
def shape(request: pytest.FixtureRequest) -> str:
    """Return the fake and both shapes that the store must work on."""
    shape: str = request.param
    return shape


@pytest.fixture
def announcements(request: pytest.FixtureRequest, shape: str) -> Announcements:
    """Return announcements of which there are none yet."""
    if shape == "fake":
        return FakeAnnouncements()
    return ModelAnnouncements(request.getfixturevalue("store_client"), Metrics())


async def test_nothing_is_announced_at_first(announcements: Announcements) -> None:
    """A new store leaves the choice to the file CURRENT."""
    assert await announcements.read() is None


async def test_the_first_announcement_is_made_once(announcements: Announcements) -> None:
    """All processes start at once and each would announce its own."""
    first = await announcements.announce_first("a", "a", 1)
    second = await announcements.announce_first("b", "b", 2)
    assert first == second == await announcements.read() == Announced("a", "", "a", 1)


async def test_an_announcement_keeps_what_was_before(announcements: Announcements) -> None:
    """Rollback goes there."""
    await announcements.announce_first("a", "a", 1)
    assert await announcements.announce("b", 2) == Announced("b", "a", "a", 2)
    assert await announcements.announce("c", 3) == Announced("c", "b", "a", 3)
    assert await announcements.read() == Announced("c", "b", "a", 3)


async def test_announcing_what_is_active_changes_nothing(announcements: Announcements) -> None:
    """Two people may press the button; previous must not become the active one."""
    await announcements.announce_first("a", "a", 1)
    await announcements.announce("b", 2)
    assert await announcements.announce("b", 3) == Announced("b", "a", "a", 2)


async def test_a_pointer_counts_once(announcements: Announcements) -> None:
    """Every process sees the moved file, at its own time."""
    await announcements.announce_first("a", "a", 1)
    assert await announcements.announce_pointer("b", 2) == Announced("b", "a", "b", 2)
    await announcements.announce("a", 3)
    assert await announcements.announce_pointer("b", 4) == Announced("a", "b", "b", 3)


async def test_a_pointer_to_what_is_active_is_noted(announcements: Announcements) -> None:
    """Its next move back is a move."""
    await announcements.announce_first("a", "a", 1)
    await announcements.announce("b", 2)
    assert await announcements.announce_pointer("b", 3) == Announced("b", "a", "b", 2)
    assert await announcements.announce_pointer("a", 4) == Announced("a", "b", "a", 4)


async def test_what_is_prepared_is_said_until_it_is_announced_or_given_up(
    announcements: Announcements,
) -> None:
    """Another version's announcement is not the end of it."""
    await announcements.announce_first("a", "a", 1)
    await announcements.prepare("b", 2)
    assert await announcements.read() == Announced("a", "", "a", 1, "b", 2)
    await announcements.give_up("c")
    assert await announcements.announce("d", 3) == Announced("d", "a", "a", 3, "b", 2)
    assert await announcements.announce("b", 4) == Announced("b", "d", "a", 4)
    await announcements.prepare("e", 5)
    await announcements.give_up("e")
    assert await announcements.read() == Announced("b", "d", "a", 4)


async def test_concurrent_announcements_end_in_one_whole_state(
    announcements: Announcements,
) -> None:
    """The last one is active, the one before it is previous, whatever their order was."""
    await announcements.announce_first("start", "start", 0)
    results = await asyncio.gather(*(announcements.announce(f"v{n}", n) for n in range(20)))
    end = await announcements.read()
    assert end in results
    assert end is not None
    assert end.active == f"v{end.changed_at_ms}"
    assert end.previous != end.active


@pytest.mark.parametrize("shape", ["server", "cluster"])
async def test_the_hash_has_six_fields_however_many_switches(
    store_client: RedisClient, redis_client: ServerClient
) -> None:
    """It has no time to live, so it must have a bound."""
    announcements = ModelAnnouncements(store_client, Metrics())
    await announcements.announce_first("a", "a", 1)
    for number in range(10):
        await announcements.announce(f"v{number}", number)
        await announcements.announce_pointer(f"p{number}", number)
        await announcements.prepare(f"n{number}", number)
    assert await redis_client.hlen(MODEL_KEY) == 6
    assert [name async for name in redis_client.scan_iter()] == [MODEL_KEY.encode()]


async def test_a_server_that_is_away_is_said_to_be(tmp_path: Path) -> None:
    """And counted under a name of its own."""
    metrics = Metrics()
    client = connect(Settings(redis_url=f"unix://{tmp_path / 'nobody.sock'}"))
    announcements = ModelAnnouncements(client, metrics)
    for call in (announcements.read(), announcements.announce("a", 1)):
        with pytest.raises(StoreUnavailable, match="'models'"):
            await call
    await client.aclose()
    assert 'sojourn_redis_errors_total{operation="models"} 2.0' in metrics.render()[0].decode()
