"""What only a Cluster does: nodes fail alone, slots move, and a node forgets scripts."""

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from deploy.chaos.topologies import HOST, Node, Servers
from service.config import Settings
from service.errors import StoreUnavailable
from service.metrics import Metrics
from service.store.client import RedisClient, connect
from service.store.cluster import ClusterClient
from service.store.history import HistoryStore
from service.store.keys import partition_of, stream_key
from service.store.outcomes import ACCEPTED, DUPLICATE
from tests.fakes import FakeClock
from tests.integration.store.builders import PATIENT_MS, empty, event, store_at

pytestmark = pytest.mark.integration

USERS = [f"u{number}" for number in range(60)]
NUM_PARTITIONS = 16


@pytest.fixture
async def store(cluster: Servers) -> AsyncIterator[HistoryStore]:
    """Return a store on an empty Cluster."""
    await empty(cluster.url)
    async with store_at(cluster.url) as store:
        yield store


def slot_key(user_id: str) -> str:
    """Return a key in the slot of a user."""
    return stream_key(partition_of(user_id, NUM_PARTITIONS))


def primaries_of(cluster: Servers) -> dict[str, Node]:
    """Return for each user the node that has it."""
    by_key = {key: cluster.primary_of(key) for key in {slot_key(user) for user in USERS}}
    return {user: by_key[slot_key(user)] for user in USERS}


async def test_users_are_spread_over_the_primaries(cluster: Servers, store: HistoryStore) -> None:
    """One hash tag for all would leave two thirds of the Cluster empty."""
    await store.append([event(at, user_id=user) for at, user in enumerate(USERS)])
    primaries = {node.name: node for node in primaries_of(cluster).values()}
    assert len(primaries) == 3
    assert all(int(str(node.ask("DBSIZE"))) > 0 for node in primaries.values())
    assert [len(await store.read(user)) for user in USERS] == [1] * len(USERS)


async def test_a_script_that_one_node_forgot_is_taught_to_it_alone(
    cluster: Servers, store: HistoryStore
) -> None:
    """A node that was restarted knows no scripts; what the others did is not done twice."""
    post = [event(at, user_id=user) for at, user in enumerate(USERS)]
    await store.append(post)
    cluster.primary_of(slot_key(USERS[0])).ask("SCRIPT", "FLUSH")
    more = [event(100 + at, user_id=user) for at, user in enumerate(USERS)]
    assert await store.append(more) == [ACCEPTED] * len(USERS)
    assert await store.append(post + more) == [DUPLICATE] * 2 * len(USERS)


async def test_a_node_that_hangs_fails_its_own_users_only(cluster: Servers) -> None:
    """The reads of all users share a round trip; two thirds of them are answered."""
    await empty(cluster.url)
    owners = primaries_of(cluster)
    hanging = owners[USERS[0]]
    async with store_at(cluster.url, redis_timeout_ms=300) as store:
        await store.ping()
        for user in USERS[:3]:
            await store.append([event(1, user_id=user)])
        hanging.ask("CLIENT", "PAUSE", 1_500, "ALL")
        try:
            answers = await asyncio.gather(
                *(store.read(user) for user in USERS), return_exceptions=True
            )
        finally:
            # Waits for the end of the pause, as does every other call.
            hanging.ask("PING")
        failed = {
            user
            for user, answer in zip(USERS, answers, strict=True)
            if isinstance(answer, StoreUnavailable)
        }
    assert failed == {user for user, node in owners.items() if node.name == hanging.name}


async def test_a_slot_that_moves_is_followed_and_nothing_is_lost(
    cluster: Servers, store: HistoryStore
) -> None:
    """ASK while its keys are on their way, and MOVED afterwards; nobody is told of either.

    Calls of several keys of which one does not exist are refused by both nodes until then.
    """
    user = USERS[0]
    await store.append([event(1, user_id=user)])
    client = connect(Settings(redis_url=cluster.url, redis_timeout_ms=PATIENT_MS))
    key = f"{{p{partition_of(user, NUM_PARTITIONS)}}}:l1:list"
    assert await many(client, "SET", key, "pages") == [True] * 8
    source = cluster.primary_of(key)
    target = next(node for node in primaries_of(cluster).values() if node.name != source.name)
    move_keys(source, target, key)
    # Over many connections: what is allowed on one is not allowed on another.
    assert await many(client, "GET", key) == [b"pages"] * 8
    with pytest.raises(StoreUnavailable, match="TryAgain"):
        await store.append([event(2, user_id=user)])
    slot = source.ask("CLUSTER", "KEYSLOT", key)
    for node in (target, source):
        node.ask("CLUSTER", "SETSLOT", str(slot), "NODE", str(target.ask("CLUSTER", "MYID")))
    assert await many(client, "GET", key) == [b"pages"] * 8
    assert await store.append([event(2, user_id=user)]) == [ACCEPTED]
    assert (await store.read(user)).item_ids == ("i1", "i2")
    assert cluster.primary_of(key).name == target.name
    await client.aclose()


def move_keys(source: Node, target: Node, key: str) -> None:
    """Begin to move a key's slot: all its keys are at the target, the slot still at the source."""
    slot = int(str(source.ask("CLUSTER", "KEYSLOT", key)))
    target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", str(source.ask("CLUSTER", "MYID")))
    source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", str(target.ask("CLUSTER", "MYID")))
    names = source.ask("CLUSTER", "GETKEYSINSLOT", slot, 1_000)
    assert isinstance(names, list)
    source.ask("MIGRATE", HOST, target.port, "", 0, 5_000, "KEYS", *names)


async def many(client: RedisClient, *command: str) -> list[Any]:
    """Return the replies to one command that is sent eight times at once."""

    async def one() -> Any:
        pipeline = client.pipeline(transaction=False)
        pipeline.execute_command(*command)
        [reply] = await pipeline.execute()
        return reply

    return await asyncio.gather(*(one() for _ in range(8)))


async def test_callers_that_leave_shift_no_replies(store: HistoryStore) -> None:
    """A reply that is left in a connection would be the next caller's, who is somebody else."""
    await store.append([event(at, user_id=user) for at, user in enumerate(USERS)])
    chance = random.Random(7)

    async def read(at: int) -> bool:
        history = await store.read(USERS[at])
        return history.item_ids == (f"i{at}",)

    for _ in range(20):
        tasks = [asyncio.create_task(read(at)) for at in range(len(USERS))]
        for task in tasks:
            if chance.random() < 0.3:
                await asyncio.sleep(0)
                task.cancel()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        right = [answer for answer in answers if not isinstance(answer, asyncio.CancelledError)]
        assert right == [True] * len(right)


async def test_a_call_that_is_cancelled_leaves_no_reply_behind(cluster: Servers) -> None:
    """Stores never cancel their calls; the client holds even where somebody does."""
    await empty(cluster.url)
    client = connect(Settings(redis_url=cluster.url, redis_timeout_ms=PATIENT_MS))
    for number in range(40):
        first = client.pipeline(transaction=False)
        first.execute_command("SET", "{p1}:a", f"left {number}", "GET")
        task = asyncio.create_task(first.execute())
        for _ in range(number % 8):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        second = client.pipeline(transaction=False)
        second.execute_command("SET", "{p1}:b", number)
        second.execute_command("MGET", "{p1}:b")
        assert await second.execute() == [True, [str(number).encode()]]
    await client.aclose()


async def test_every_node_is_asked_whether_it_keeps_histories(cluster: Servers) -> None:
    """A replica without persistence is a primary without, after the next fail-over."""
    replica = next(node for node in cluster.nodes if "slave" in str(node.ask("ROLE")))
    replica.ask("CONFIG", "SET", "appendonly", "no")
    try:
        async with store_at(cluster.url) as store:
            with capture_logs() as lines:
                await store.ping()
    finally:
        replica.ask("CONFIG", "SET", "appendonly", "yes")
    reasons = [line["reason"] for line in lines if line["event"] == "store_may_lose_histories"]
    assert len(reasons) == 1
    assert reasons[0].startswith(f"{replica.name}: appendonly is no")


async def test_a_cluster_that_is_nowhere_is_said_to_be_away() -> None:
    """Nothing listens at port 1, and what is not found is not looked for by every call."""
    settings = Settings(redis_url="redis+cluster://127.0.0.1:1,127.0.0.1:2")
    client = connect(settings)
    assert isinstance(client, ClusterClient)
    store = HistoryStore(client, settings, Metrics(), now_ms=FakeClock())
    for _ in range(4):
        with pytest.raises(StoreUnavailable) as caught:
            await store.read("anna")
    assert "not asked now" in str(caught.value)
    await store.close()
    await client.aclose()
