import pytest

from service.config import Settings
from service.metrics import Metrics
from service.store import keys
from service.store.client import RedisClient
from service.store.counters import CounterStore
from service.store.history import HistoryStore
from service.store.servers import ServerClient
from tests.fakes import NOON_MS, FakeClock
from tests.integration.store.builders import event

pytestmark = pytest.mark.integration


@pytest.fixture(params=["server", "cluster"])
def shape(request: pytest.FixtureRequest) -> str:
    """Return both shapes that the store must work on."""
    shape: str = request.param
    return shape


@pytest.fixture
def counters(store_client: RedisClient, store_settings: Settings) -> CounterStore:
    """Return the counters of the store under test."""
    return CounterStore(store_client, store_settings, Metrics())


async def test_weights_are_summed_over_users_of_all_partitions(
    history_store: HistoryStore, counters: CounterStore
) -> None:
    """A purchase weighs 3, a view 1: 20 views of a make 20, 7 purchases of b 21."""
    await history_store.append([event(n, user_id=f"u{n}", item_id="a") for n in range(20)])
    bought = [
        event(n, user_id=f"u{n}", item_id="b", event_type="purchase") for n in range(100, 107)
    ]
    await history_store.append(bought)
    assert await counters.popular(NOON_MS, 10) == [("b", 21.0), ("a", 20.0)]
    assert await counters.popular(NOON_MS, 1) == [("b", 21.0)]


async def test_a_duplicate_and_a_dislike_do_not_make_an_item_popular(
    history_store: HistoryStore, counters: CounterStore
) -> None:
    """A retry is no second visit, and a dislike no praise."""
    await history_store.append([event(1, item_id="a"), event(1, item_id="a")])
    await history_store.append([event(2, item_id="b", event_type="dislike")])
    assert await counters.popular(NOON_MS, 10) == [("a", 1.0)]


async def test_only_the_last_days_count_by_the_events_own_time(
    history_store: HistoryStore,
    redis_client: ServerClient,
    counters: CounterStore,
    clock: FakeClock,
) -> None:
    """A log of last year, posted today, is not what is popular today, nor worth a key a day."""
    day = keys.MS_PER_DAY
    for age in range(4):
        await history_store.append(
            [event(age, item_id=f"{age}-days-old", timestamp_ms=NOON_MS - age * day)]
        )
    assert [item for item, _ in await counters.popular(NOON_MS, 10)] == [
        "0-days-old",
        "1-days-old",
        "2-days-old",
    ]
    names = [name async for name in redis_client.scan_iter(match="*:c1:*")]
    assert len(names) == 3
    clock.advance(day)
    assert [item for item, _ in await counters.popular(clock(), 10)] == [
        "0-days-old",
        "1-days-old",
    ]


async def test_a_days_counters_are_bounded(
    history_store: HistoryStore, redis_client: ServerClient, counters: CounterStore
) -> None:
    """7,000 items into 5,000 places, cut above 6,250: the popular one stays."""
    await history_store.append([event(n, item_id="star") for n in range(10)])
    for start in range(1_000, 8_000, 1_000):
        await history_store.append([event(n, item_id=f"i{n}") for n in range(start, start + 1_000)])
    name = keys.counter_key(keys.partition_of("anna", 16), NOON_MS // keys.MS_PER_DAY)
    assert 5_000 <= await redis_client.zcard(name) <= 6_250
    assert (await counters.popular(NOON_MS, 1)) == [("star", 10.0)]
