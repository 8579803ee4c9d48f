"""Ranked lists on a real Valkey: kept for a while, for whom they were made."""

import asyncio
from dataclasses import replace

import pytest

from service.config import Settings
from service.contract.events import UserId
from service.errors import StoreUnavailable
from service.metrics import Metrics
from service.store import keys
from service.store.client import RedisClient
from service.store.exposures import ExposureStore
from service.store.history import HistoryStore
from service.store.lists import ListedItem, ListStore, RankedItems
from service.store.outcomes import ACCEPTED
from service.store.servers import ServerClient
from tests.fakes import NOON_MS
from tests.integration.store.builders import event

pytestmark = pytest.mark.integration

ITEMS = (ListedItem("ä/1", 2.5, "model", 0.25), ListedItem("b", -1.0, "popular"))


def ranked(user_id: UserId | None) -> RankedItems:
    """Return a list of two items for a user."""
    return RankedItems(keys.new_recommendation_id(user_id, 16), user_id, "m1", ITEMS, "best", True)


@pytest.fixture(params=["server", "cluster"])
def shape(request: pytest.FixtureRequest) -> str:
    """Return both shapes that the store must work on."""
    shape: str = request.param
    return shape


@pytest.fixture
def store(store_client: RedisClient, store_settings: Settings) -> ListStore:
    """Return a list store on an empty server."""
    return ListStore(store_client, store_settings, Metrics())


@pytest.mark.parametrize("user_id", [UserId("anna"), None])
async def test_a_list_comes_back_as_it_was(store: ListStore, user_id: UserId | None) -> None:
    """Order, scores and sources are those of the moment when the list was made."""
    saved = ranked(user_id)
    await store.save(saved)
    assert await store.load(saved.recommendation_id, user_id) == saved


async def test_nobody_else_reads_a_users_list(store: ListStore) -> None:
    """A cursor that got into other hands says nothing."""
    saved = ranked(UserId("anna"))
    await store.save(saved)
    assert await store.load(saved.recommendation_id, UserId("bert")) is None
    assert await store.load(saved.recommendation_id, None) is None


async def test_a_list_names_nobody_and_ends_by_itself(
    store: ListStore, redis_client: ServerClient
) -> None:
    """It may outlive an erasure by minutes, so the id must not be in it."""
    await store.save(ranked(UserId("somebody-unmistakable")))
    [name] = [name async for name in redis_client.scan_iter("{p*")]
    assert 0 < await redis_client.ttl(name) <= keys.LIST_TTL_S
    value = await redis_client.get(name)
    assert "unmistakable" not in f"{name!r} {value!r}"


async def test_ids_that_are_not_ours_find_nothing(store: ListStore) -> None:
    """A cursor is a caller's text: any is an answer, none an error."""
    for text in ("", "x", "ffff" + "0" * 28, "{p1}"):
        assert await store.load(text, None) is None


async def test_a_list_goes_with_its_user(store: ListStore, history_store: HistoryStore) -> None:
    """Made before the erasure it is gone; a person who comes back has new lists."""
    before = replace(ranked(UserId("anna")), created_ms=NOON_MS)
    after = replace(ranked(UserId("anna")), created_ms=NOON_MS + 1)
    for one in (before, after):
        await store.save(one)
    await history_store.people.erase("anna")
    assert await store.load(before.recommendation_id, UserId("anna")) is None
    assert await store.load(after.recommendation_id, UserId("anna")) == after


async def test_callers_wait_for_a_connection_instead_of_failing(
    store: ListStore, history_store: HistoryStore
) -> None:
    """More calls at once than connections: each is answered, and events beside them are stored."""
    saved = ranked(UserId("anna"))
    await store.save(saved)
    loads = [store.load(saved.recommendation_id, UserId("anna")) for _ in range(100)]
    appends = [history_store.append([event(number)]) for number in range(20)]
    answers = await asyncio.gather(*loads, *appends)
    assert answers[:100] == [saved] * 100
    assert answers[100:] == [[ACCEPTED]] * 20


async def test_an_error_of_the_server_does_not_name_the_user(
    store_client: RedisClient, store_settings: Settings
) -> None:
    """The driver writes the command, keys and all, into what it raises; errors are logged."""
    exposures = ExposureStore(store_client, store_settings, Metrics())
    partition = keys.partition_of("unmistakable", 16)
    pipeline = store_client.pipeline(transaction=False)
    pipeline.execute_command("SADD", keys.shown_key(partition, "unmistakable"), "x")
    await pipeline.execute()
    with pytest.raises(StoreUnavailable) as raised:
        await exposures.shown(UserId("unmistakable"))
    assert "WRONGTYPE" in str(raised.value)
    assert "unmistakable" not in str(raised.value)
