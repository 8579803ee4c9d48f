"""Exposures on a real Valkey: noted in one step, found by the answer and by the user."""

import json

import numpy as np
import pytest

from service.config import Settings
from service.contract.events import UserId
from service.contract.exposures import Exposure, Impression
from service.contract.vocabulary import item_hash
from service.errors import StoreMismatch, StoreUnavailable
from service.metrics import Metrics
from service.store import keys
from service.store.client import RedisClient, connect
from service.store.exposures import ExposureStore, decode_shown
from service.store.history import HistoryStore
from service.store.servers import ServerClient
from tests.fakes import NOON_MS

pytestmark = pytest.mark.integration

ANNA = UserId("anna")


def exposure(*item_ids: str, user_id: UserId | None = ANNA, at_ms: int = NOON_MS) -> Exposure:
    """Return an answer that showed these items, each with a chance of one half."""
    return Exposure(
        recommendation_id=keys.new_recommendation_id(user_id, Settings().num_partitions),
        user_id=user_id,
        timestamp_ms=at_ms,
        model_version="m1",
        policy="plain",
        impressions=tuple(
            Impression(text, rank, "model", 0.5) for rank, text in enumerate(item_ids, start=1)
        ),
    )


@pytest.fixture(params=["server", "cluster"])
def shape(request: pytest.FixtureRequest) -> str:
    """Return both shapes that the store must work on."""
    shape: str = request.param
    return shape


@pytest.fixture
async def store(store_client: RedisClient, store_settings: Settings) -> ExposureStore:
    """Return an exposure store on an empty server."""
    return ExposureStore(store_client, store_settings, Metrics())


async def test_an_answer_is_found_again_without_whose_it_was(store: ExposureStore) -> None:
    """Attribution needs the places and the policy; a record that names nobody can stay."""
    noted = exposure("a", "b")
    await store.record([noted])
    found = await store.find([noted.recommendation_id, "not-ours", "f" * 32])
    assert list(found) == [noted.recommendation_id]
    answer = found[noted.recommendation_id]
    assert answer.user_id is None
    assert answer.impressions == noted.impressions
    assert answer.impression_of("b") == Impression("b", 2, "model", 0.5)
    assert answer.impression_of("c") is None


async def test_what_was_shown_is_kept_in_order_and_bounded(store: ExposureStore) -> None:
    """The newest showings stay, so that rotation sees what was shown last."""
    await store.record([exposure("a", "b")])
    await store.record([exposure("c", at_ms=NOON_MS + 5)])
    shown = await store.shown(ANNA)
    assert shown.item_hashes.tolist() == [item_hash(text) for text in "abc"]
    assert shown.timestamps_ms.tolist() == [NOON_MS, NOON_MS, NOON_MS + 5]
    many = [f"i{number}" for number in range(keys.SHOWN_MAX_ITEMS)]
    await store.record([exposure(*many)])
    assert len((await store.shown(ANNA)).item_hashes) == keys.SHOWN_MAX_ITEMS
    assert len((await store.shown(UserId("bert"))).item_hashes) == 0


async def test_the_stream_carries_the_answer_with_its_propensities(
    store: ExposureStore, redis_client: ServerClient
) -> None:
    """Training off-policy needs who was shown what, where, and how probable that was."""
    noted = exposure("ä", user_id=None)
    await store.record([noted])
    partition = keys.partition_of_recommendation(noted.recommendation_id, 16)
    assert partition is not None
    pipeline = redis_client.pipeline(transaction=False)
    pipeline.execute_command("XRANGE", keys.stream_key(partition), "-", "+")
    [[(_, fields)]] = await pipeline.execute()
    document = json.loads(fields[b"exposure"])
    assert document["user_id"] is None
    assert document["impressions"] == [["ä", 1, "model", 0.5]]


async def test_a_call_that_is_sent_again_counts_once(
    store: ExposureStore, redis_client: RedisClient
) -> None:
    """The client repeats a call whose connection broke, and cannot know whether it was done."""
    noted = exposure("a")
    for _ in range(2):
        await store.record([noted])
    assert len((await store.shown(ANNA)).item_hashes) == 1
    partition = keys.partition_of("anna", 16)
    pipeline = redis_client.pipeline(transaction=False)
    pipeline.execute_command("XLEN", keys.stream_key(partition))
    assert await pipeline.execute() == [1]


async def test_a_value_of_another_type_costs_no_answer(
    store: ExposureStore, redis_client: ServerClient
) -> None:
    """Answers of many users go in one call; what was shown to this one begins anew."""
    partition = keys.partition_of(ANNA, 16)
    for name in (keys.shown_key(partition, ANNA), keys.tombstone_key(partition, ANNA)):
        await redis_client.hset(name, mapping={"not": "ours"})
    ben = UserId("ben")
    assert await store.record([exposure("a"), exposure("b", user_id=ben)]) == [None, None]
    assert (await store.shown(ANNA)).item_hashes.tolist() == [item_hash("a")]
    assert (await store.shown(ben)).item_hashes.tolist() == [item_hash("b")]


async def test_every_key_of_an_answer_ends_by_itself(
    store: ExposureStore, redis_client: ServerClient
) -> None:
    """Redis is bounded: nothing is written without a time to live."""
    await store.record([exposure("a")])
    names = [name async for name in redis_client.scan_iter("{p*")]
    assert len(names) == 3
    assert all([await redis_client.ttl(name) > 0 for name in names])


async def test_a_users_answers_share_the_users_slot() -> None:
    """One script changes them all, so on a Cluster they must be on one server."""
    for user_id in ("anna", "bert", "ü"):
        recommendation_id = keys.new_recommendation_id(user_id, 16)
        partition = keys.partition_of_recommendation(recommendation_id, 16)
        assert partition == keys.partition_of(user_id, 16)
    assert keys.partition_of_recommendation("0010" + "a" * 28, 16) is None


async def test_a_store_that_is_away_is_said_to_be(store_settings: Settings) -> None:
    """Nothing listens at port 1."""
    settings = store_settings.model_copy(update={"redis_url": "redis://127.0.0.1:1"})
    client = connect(settings)
    store = ExposureStore(client, settings, Metrics())
    with pytest.raises(StoreUnavailable):
        await store.record([exposure("a")])
    with pytest.raises(StoreUnavailable):
        await store.shown(ANNA)
    await client.aclose()


def test_bytes_of_another_layout_are_refused() -> None:
    """Half a record is not read as one."""
    with pytest.raises(StoreMismatch, match="15 bytes"):
        decode_shown(b"x" * 15)
    assert decode_shown(None).timestamps_ms.dtype == np.int64


async def test_an_erasure_takes_what_was_shown_and_what_is_on_its_way(
    store: ExposureStore, history_store: HistoryStore, redis_client: ServerClient
) -> None:
    """The fake clock stands at noon: an answer of that time is before the erasure, a later not."""
    await store.record([exposure("a")])
    assert len((await history_store.people.held("anna")).shown) == 1
    erased = await history_store.people.erase("anna")
    assert erased.num_stream_entries == 1
    await store.record([exposure("b")])
    assert len((await store.shown(ANNA)).item_hashes) == 0
    assert (await history_store.people.held("anna")).stream == ()
    for name in [name async for name in redis_client.scan_iter("*")]:
        dumped = await redis_client.dump(name)
        assert b"anna" not in bytes(name) + bytes(dumped or b"")
    await store.record([exposure("c", at_ms=NOON_MS + 1)])
    assert len((await store.shown(ANNA)).item_hashes) == 1
