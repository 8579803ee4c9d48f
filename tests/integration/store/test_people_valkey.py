"""What only a real server can show of erasures and merges."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from service.config import Settings
from service.contract.events import user_hash
from service.errors import StoreMismatch, StoreUnavailable, UserChanging
from service.metrics import Metrics
from service.store import keys
from service.store.client import Script, ScriptCall
from service.store.counters import CounterStore
from service.store.embedded import EmbeddedValkey
from service.store.history import HistoryStore
from service.store.outcomes import ACCEPTED
from service.store.people import PeopleStore
from service.store.servers import ServerClient
from tests.fakes import NOON_MS, FakeClock
from tests.integration.store.builders import event, events, store_at

pytestmark = pytest.mark.integration

USER = "zoe-unmistakable-7c1f"
# In order of time neither sorted nor reversed, so that no sorted list has them as a sequence.
ITEMS = ("w3-unmistakable", "a1-unmistakable", "m2-unmistakable")
PARTITION = keys.partition_of(USER, 16)
STREAM = keys.stream_key(PARTITION)


@pytest.fixture
def clock() -> FakeClock:
    """Return a clock that is an hour past noon, after all events unless a test says otherwise."""
    return FakeClock(NOON_MS + 3_600_000)


@pytest.fixture
async def store(history_store: HistoryStore, redis_client: ServerClient) -> AsyncIterator[Any]:
    """Return a store whose server writes values out as they are, so that a search can see them."""
    await redis_client.config_set("rdbcompression", "no")
    yield history_store
    await redis_client.config_set("rdbcompression", "yes")


def of_zoe() -> list[Any]:
    """Return the events of the user that tests look for."""
    return [event(n, user_id=USER, item_id=item) for n, item in enumerate(ITEMS)]


async def dumped(redis_client: ServerClient) -> dict[bytes, bytes]:
    """Return every key of the server with all bytes of its value."""
    names = [name async for name in redis_client.scan_iter(count=1_000)]
    return {name: name + (await redis_client.dump(name) or b"") for name in names}


async def stream_payloads(redis_client: ServerClient, stream: str = STREAM) -> list[Any]:
    """Return the JSON of each entry of a stream, whatever its field."""
    entries: Any = await redis_client.xrange(stream)
    return [json.loads(value) for _, fields in entries for value in fields.values()]


class OvertakenPeople(PeopleStore):
    """Merges, and each time that it has given what it read, the first user has another event."""

    store: HistoryStore
    number = 100

    async def _give(self, *args: Any) -> None:
        await super()._give(*args)
        self.number += 1
        await self.store.append([event(self.number, user_id=USER)])


async def merge_at_last(people: PeopleStore) -> None:
    """Merge as a caller does who is told to come again."""
    while True:
        try:
            await people.merge(USER, "anna")
        except UserChanging:
            continue
        return


def neighbours(number: int) -> list[str]:
    """Return users of the same partition as the user that tests look for."""
    names = (f"other-{n}" for n in range(10_000))
    return [name for name in names if keys.partition_of(name, 16) == PARTITION][:number]


async def test_no_byte_of_an_erased_user_is_left_on_the_server(
    store: HistoryStore, redis_client: ServerClient
) -> None:
    """Names and values of all keys; items are still counted in the sums over all users."""
    others = [event(n, user_id=name) for name in neighbours(3) for n in range(100)]
    await store.append([*others[:150], *of_zoe(), *others[150:]])
    before = await dumped(redis_client)
    assert {name for name, value in before.items() if USER.encode() in value} == {
        keys.history_key(PARTITION, USER).encode(),
        STREAM.encode(),
    }
    erased = await store.people.erase(USER)
    after = await dumped(redis_client)
    assert (erased.num_events, erased.num_stream_entries) == (3, 3)
    assert not any(USER.encode() in value for value in after.values())
    with_items = {name for name, value in after.items() if ITEMS[0].encode() in value}
    assert with_items == {keys.counter_key(PARTITION, NOON_MS // keys.MS_PER_DAY).encode()}
    places = [after[name].index(item.encode()) for name in with_items for item in ITEMS]
    assert places != sorted(places)
    assert len(await redis_client.xrange(STREAM) or ()) == len(others) + 1


async def test_the_stream_keeps_all_else_and_ends_with_a_mark(
    store: HistoryStore, redis_client: ServerClient, clock: FakeClock
) -> None:
    """Collectors go on from the id they had, and are told whose rows to drop."""
    [other] = neighbours(1)
    await store.append([event(1, user_id=other), *of_zoe(), event(2, user_id=other)])
    for name in (USER, other):
        await redis_client.xadd(STREAM, {"exposure": json.dumps({"user_id": name, "items": [1]})})
    entries: Any = await redis_client.xrange(STREAM)
    erased = await store.people.erase(USER)
    stored: Any = await redis_client.xrange(STREAM)
    *after, (_, mark) = stored
    assert erased.num_stream_entries == 4
    assert after == [entry for entry in entries if USER not in str(entry)]
    assert len(after) == 3
    wanted = {"user": user_hash(USER), "before_ms": clock.now_ms}
    assert json.loads(mark[b"erase"]) == wanted


async def test_a_stream_without_the_user_is_not_written_anew(
    store: HistoryStore, redis_client: ServerClient
) -> None:
    """The price is paid only by erasures that need it; the mark is written all the same."""
    [other] = neighbours(1)
    await store.append([event(1, user_id=other)])
    await redis_client.config_resetstat()
    await store.people.erase(USER)
    commands = await redis_client.info("commandstats")
    assert "cmdstat_rename" not in commands
    assert [set(payload) for payload in await stream_payloads(redis_client)][1] == {
        "user",
        "before_ms",
    }


async def test_long_streams_are_looked_through_to_their_end(
    valkey: EmbeddedValkey, redis_client: ServerClient, clock: FakeClock
) -> None:
    """2,500 entries are three pages, and every tenth is of the user."""
    await redis_client.flushall()
    async with store_at(valkey.url, clock=clock) as store:
        names = [USER, *neighbours(9)]
        sent = [event(n, user_id=names[n % 10]) for n in range(2_500)]
        for start in range(0, 2_500, 500):
            await store.append(sent[start : start + 500])
        assert len((await store.people.held(USER)).stream) == 250
        assert (await store.people.erase(USER)).num_stream_entries == 250
    payloads = await stream_payloads(redis_client)
    left = [sent[n].event_id for n in range(2_500) if n % 10]
    assert sorted(payload["event_id"] for payload in payloads[:-1]) == sorted(left)


async def test_concurrent_appends_leave_nothing_older_than_an_erasure(
    valkey: EmbeddedValkey, redis_client: ServerClient, clock: FakeClock
) -> None:
    """Two replicas post while a third erases: each event is before it and gone, or refused."""
    await redis_client.flushall()
    async with (
        store_at(valkey.url, clock=clock) as one,
        store_at(valkey.url, clock=clock) as other,
        store_at(valkey.url, clock=clock) as third,
    ):
        appends = [
            asyncio.create_task((one, other)[n % 2].append([event(n, user_id=USER)]))
            for n in range(200)
        ]
        for _ in range(3):
            await asyncio.sleep(0)
        erased = await third.people.erase(USER)
        results = [(await task)[0].kind for task in appends]
        held = await third.people.held(USER)
    assert set(results) <= {"accepted", "erased"}
    assert results.count("accepted") == erased.num_events == erased.num_stream_entries
    assert (held.events, held.seen, held.stream) == ((), (), ())


async def test_concurrent_erasures_of_one_partition_restore_nobody(
    store: HistoryStore, redis_client: ServerClient, store_settings: Settings, clock: FakeClock
) -> None:
    """Each writes the stream anew, from a copy in which the others still were, in many pages."""
    names = neighbours(6)
    people = [
        PeopleStore(redis_client, store_settings, Metrics(), clock, stream_page=7) for _ in range(3)
    ]
    await store.append([event(n, user_id=names[n % 6]) for n in range(120)])
    await asyncio.gather(
        *(one.erase(name) for one, name in zip(people, names, strict=False)),
        store.append([event(n, user_id=names[5]) for n in range(120, 150)]),
    )
    held = [len((await people[0].held(name)).stream) for name in names]
    for one in people:
        await one.close()
    assert held == [0, 0, 0, 20, 20, 50]
    found = {name.decode() async for name in redis_client.scan_iter(match="*ev1*")}
    assert found == {STREAM}
    raw = (await dumped(redis_client))[STREAM.encode()]
    assert [name.encode() in raw for name in names] == [False] * 3 + [True] * 3


async def test_an_erasure_that_was_cut_short_is_completed_by_the_next(
    store: HistoryStore, redis_client: ServerClient
) -> None:
    """Flagged entries and a request to rewrite are left if the process ends before it is done."""
    await store.append([event(99, user_id=neighbours(1)[0]), *of_zoe()])
    for entry in (await store.people.held(USER)).stream:
        await redis_client.xdel(STREAM, entry.entry_id)
    await redis_client.set(keys.rewrite_key(PARTITION), "1-1")
    assert (await store.people.held(USER)).stream == ()
    assert USER.encode() in (await dumped(redis_client))[STREAM.encode()]
    assert (await store.people.erase(USER)).num_stream_entries == 0
    assert USER.encode() not in (await dumped(redis_client))[STREAM.encode()]


async def test_a_copy_with_a_gap_is_never_put_in_the_streams_place(
    store: HistoryStore, redis_client: ServerClient
) -> None:
    """It may expire while its writer is held up, or lack its end after a failover."""
    await store.append([event(n, user_id=USER) for n in range(6)])
    names = [STREAM, keys.stream_copy_key(PARTITION, "token"), keys.rewrite_key(PARTITION)]
    await redis_client.set(names[2], "1-1")
    script = Script("rewrite_stream.lua")

    async def copy_page(last_id: bytes) -> list[bytes]:
        [answer] = await script.run(redis_client, [ScriptCall(names, ("1-1", last_id, 2, 60))])
        return list(answer)

    _, first = await copy_page(b"0-0")
    state, second = await copy_page(first)
    assert state == b"more"
    assert await copy_page(first) == [b"over", b"1-1"]
    assert await copy_page(second) == [b"over", b"1-1"]
    assert not await redis_client.exists(names[1])
    assert len(await stream_payloads(redis_client)) == 6


async def test_a_user_can_be_erased_when_the_memory_is_full(
    store: HistoryStore, redis_client: ServerClient, store_settings: Settings, clock: FakeClock
) -> None:
    """Otherwise the one call that makes room would be the one that is refused."""
    await store.append([*of_zoe(), *(event(n, user_id=neighbours(1)[0]) for n in range(9))])
    people = PeopleStore(redis_client, store_settings, Metrics(), clock, stream_page=2)
    await redis_client.config_set("maxmemory", 1)
    try:
        with pytest.raises(StoreUnavailable, match="OutOfMemory"):
            await store.append([event(5, user_id=USER)])
        assert (await people.erase(USER)).num_stream_entries == 3
    finally:
        await redis_client.config_set("maxmemory", 0)
    await people.close()
    assert len(await stream_payloads(redis_client)) == 9 + 1


async def test_every_key_of_an_erasure_lives_for_a_limited_time(
    store: HistoryStore, redis_client: ServerClient
) -> None:
    """The tombstone too: late events are refused for a month."""
    await store.append(of_zoe())
    await store.people.erase(USER)
    day_s = 86_400
    limits = {keys.tombstone_key(PARTITION, USER): 30 * day_s, STREAM: 365 * day_s}
    counters = keys.counter_key(PARTITION, NOON_MS // keys.MS_PER_DAY)
    names = {name.decode() async for name in redis_client.scan_iter()}
    assert names == {*limits, counters, keys.META_KEY}
    for name, limit in limits.items():
        assert limit - 60 <= await redis_client.ttl(name) <= limit


async def test_a_value_that_is_no_history_can_be_erased(
    store: HistoryStore, redis_client: ServerClient
) -> None:
    """Whatever stands under the user's key, it goes; to merge it is refused."""
    name = keys.history_key(PARTITION, USER)
    await redis_client.set(name, b"\x09\x00\x00")
    with pytest.raises(StoreMismatch, match="layout 9"):
        await store.people.merge(USER, "anna")
    assert (await store.people.erase(USER)).num_events == 0
    await redis_client.lpush(name, "not a history")
    await store.people.erase(USER)
    assert not await redis_client.exists(name)


async def test_the_stream_forgets_what_is_older_than_the_retention(
    valkey: EmbeddedValkey, redis_client: ServerClient
) -> None:
    """Its ids are the server's time, so the clock of this test is a day past what is kept."""
    await redis_client.flushall()
    seconds, _ = await redis_client.time()
    clock = FakeClock(seconds * 1_000)
    async with store_at(valkey.url, clock=clock, retention_days=10) as store:
        await store.append(events(1, 2, user_id=USER, timestamp_ms=clock.now_ms))
        clock.advance(11 * keys.MS_PER_DAY)
        assert (await store.people.held(USER)).stream == ()
        await store.append([event(3, user_id=USER, timestamp_ms=clock.now_ms)])
    assert [payload["event_id"] for payload in await stream_payloads(redis_client)] == ["e3"]


async def test_a_merge_over_partitions_counts_nothing_twice(
    store: HistoryStore, redis_client: ServerClient, store_settings: Settings
) -> None:
    """The users' keys may be on two servers; popularity and streams stay as they were."""
    assert keys.partition_of("anna", 16) != PARTITION
    await store.append([*of_zoe(), event(5, item_id=ITEMS[0])])
    counters = CounterStore(redis_client, store_settings, Metrics())
    before = await counters.popular(NOON_MS, 10)
    merged = await store.people.merge(USER, "anna")
    assert merged.num_events == 3
    assert await counters.popular(NOON_MS, 10) == before == [(ITEMS[0], 2.0), *before[1:]]
    assert not any(USER.encode() in value for value in (await dumped(redis_client)).values())
    of_anna = await stream_payloads(redis_client, keys.stream_key(keys.partition_of("anna", 16)))
    assert [payload["event_id"] for payload in of_anna] == ["e5"]


async def test_a_merge_loses_no_event_that_comes_meanwhile(
    valkey: EmbeddedValkey, redis_client: ServerClient, clock: FakeClock
) -> None:
    """Each event of the first user was given to the second one, or refused; none is lost."""
    await redis_client.flushall()
    async with store_at(valkey.url, clock=clock) as one, store_at(valkey.url, clock=clock) as other:
        await one.append([event(n, user_id=USER) for n in range(50)])
        merge = asyncio.create_task(merge_at_last(other.people))
        accepted = {f"e{n}" for n in range(50)}
        for n in range(50, 100):
            if (await one.append([event(n, user_id=USER)])) == [ACCEPTED]:
                accepted.add(f"e{n}")
            await one.append([event(n, item_id=f"own-{n}", event_id=f"own-{n}")])
        await merge
        read = await one.read("anna")
    given = {item for item in read.item_ids if not item.startswith("own")}
    assert given == {name.replace("e", "i") for name in accepted}
    assert len(read) == len(accepted) + 50


async def test_a_user_who_never_stands_still_is_not_erased_by_a_merge(
    store: HistoryStore, redis_client: ServerClient, store_settings: Settings, clock: FakeClock
) -> None:
    """The caller is told to come again, and both users have everything."""
    await store.append(of_zoe())
    overtaken = OvertakenPeople(redis_client, store_settings, Metrics(), clock)
    overtaken.store = store
    with pytest.raises(UserChanging, match="send the same call again"):
        await overtaken.merge(USER, "anna")
    await overtaken.close()
    assert len(await store.read(USER)) == 3 + 5
    assert len(await store.read("anna")) == 3 + 4
    merged = await store.people.merge(USER, "anna")
    assert (merged.num_events, merged.num_duplicates) == (1, 7)
