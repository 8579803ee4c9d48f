"""What only a real server can show of the history store."""

import asyncio
import json
import math
import random
import struct
from typing import Any

import numpy as np
import pytest

from service.config import Settings
from service.contract.events import Event
from service.contract.features import NUMBER_COLUMNS
from service.contract.vocabulary import item_hash
from service.errors import StoreMismatch, StoreUnavailable
from service.metrics import Metrics
from service.store.embedded import EmbeddedValkey
from service.store.history import APPENDS_AT_ONCE, HistoryStore
from service.store.history_codec import NUMBERS, History, encode_events, event_hash
from service.store.keys import (
    COUNTER_TTL_S,
    META_KEY,
    counter_key,
    history_key,
    partition_of,
    seen_key,
    stream_key,
)
from service.store.outcomes import ACCEPTED, DUPLICATE
from service.store.servers import ServerClient
from tests.fakes import NOON_MS, FakeHistory
from tests.integration.store.builders import event, events, packed_records, store_at

pytestmark = pytest.mark.integration

PARTITION = partition_of("anna", 16)


async def test_an_append_works_after_the_server_forgot_the_script(
    history_store: HistoryStore, redis_client: ServerClient
) -> None:
    """A restart or a failover empties the script cache, and several users go in one pipeline."""
    await history_store.append([event(1)])
    await redis_client.script_flush()
    sent = [event(n, user_id=f"user-{n % 3}") for n in range(9)]
    assert await history_store.append(sent) == [ACCEPTED] * 9
    assert await history_store.append([event(1)]) == [DUPLICATE]


async def test_numbers_that_look_like_an_event_id_are_not_taken_for_it(
    history_store: HistoryStore,
) -> None:
    """The script searches packed records for 6 bytes; only those at the id's place count."""
    looks = event_hash("e2") + b"\0\0"
    value, duration_s = struct.unpack("<2f", looks)
    assert await history_store.append([event(1, value=value, duration_s=duration_s)]) == [ACCEPTED]
    read = await history_store.read("anna")
    assert struct.pack("<2f", read.values[0], read.durations_s[0]) == looks
    assert await history_store.append([event(2)]) == [ACCEPTED]
    assert await history_store.append([event(2)]) == [DUPLICATE]


async def test_concurrent_appends_to_one_user_lose_nothing(
    valkey: EmbeddedValkey, redis_client: ServerClient
) -> None:
    """Two replicas and many requests write one history; the script makes each whole."""
    await redis_client.flushall()
    async with store_at(valkey.url) as one, store_at(valkey.url) as other:
        appends = [(one, other)[n % 2].append([event(n)]) for n in range(150)]
        assert await asyncio.gather(*appends) == [[ACCEPTED]] * 150
        read = await one.read("anna")
    assert read.item_ids == tuple(f"i{n}" for n in range(150))


async def test_cancelled_reads_never_give_another_users_history(
    history_store: HistoryStore, redis_client: ServerClient
) -> None:
    """A cancelled call can leave its reply in the connection, for whoever comes next."""
    random_source = random.Random(11)
    await history_store.append([event(n, user_id=f"user-{n}") for n in range(100)])

    async def check(number: int) -> None:
        assert (await history_store.read(f"user-{number}")).item_ids == (f"i{number}",)

    for _ in range(30):
        tasks = [asyncio.create_task(check(number)) for number in range(100)]
        for _ in range(random_source.randrange(6)):
            await asyncio.sleep(0)
        for task in random_source.sample(tasks, 50):
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        kinds = {type(outcome) for outcome in outcomes if outcome is not None}
        assert kinds <= {asyncio.CancelledError}
    await asyncio.gather(*map(check, range(100)))
    ours = [one for one in await redis_client.client_list() if one["name"] == "sojourn"]
    assert len(ours) <= 2


async def test_concurrent_reads_share_one_round_trip(
    history_store: HistoryStore, redis_client: ServerClient
) -> None:
    """Fifty callers who ask while the queue is idle are one pipeline, fifty commands in it."""
    await history_store.ping()
    before = (await redis_client.info("stats"))["total_reads_processed"]
    await asyncio.gather(*(history_store.read(f"user-{n}") for n in range(50)))
    after = (await redis_client.info("stats"))["total_reads_processed"]
    # One read of the socket for the pipeline, one for the INFO that asks.
    assert after - before == 2


async def test_two_hundred_events_and_what_left_fit_in_8_kib(
    history_store: HistoryStore, redis_client: ServerClient
) -> None:
    """4 + 200 x (14 + 4 + 6 + 1) = 5,004 bytes, 60 x 15 that left, and the keys' own."""
    for start in range(0, 260, 20):
        sent = [event(n, item_id=f"{n:06}", value=4.0) for n in range(start, start + 20)]
        await history_store.append(sent)
    names = [history_key(PARTITION, "anna"), seen_key(PARTITION, "anna")]
    used = [await redis_client.memory_usage(name) or 0 for name in names]
    assert await redis_client.strlen(names[0]) == 5_004
    assert sum(used) <= 8 * 1_024


async def test_the_bytes_of_a_user_do_not_grow_with_more_events(
    valkey: EmbeddedValkey, redis_client: ServerClient
) -> None:
    """Full is full: after 200 or 2,000 events past the bounds a user takes as much."""
    await redis_client.flushall()
    names = [history_key(PARTITION, "anna"), seen_key(PARTITION, "anna")]
    most = []
    async with store_at(valkey.url, max_events=50, max_seen=20) as store:
        for rounds in (range(10), range(10, 100)):
            for number in rounds:
                numbers = range(20 * number, 20 * number + 20)
                await store.append([event(n, item_id=f"{n:06}", value=n) for n in numbers])
            most.append(sum([await redis_client.memory_usage(name) or 0 for name in names]))
    # Which block the allocator had free differs by a size class.
    assert most[1] <= most[0] + 64


async def test_a_history_of_the_older_layout_is_read_and_written_anew(
    history_store: HistoryStore, redis_client: ServerClient
) -> None:
    """Stores are upgraded in place: its events, numbers and duplicates stay what they are."""
    known = [event(n, value=4.5, lat=48.5, lon=2.25, tz_offset_min=60) for n in (1, 2, 4)]
    name = history_key(PARTITION, "anna")
    await redis_client.set(name, packed_records(known))
    assert (await history_store.read("anna")).item_ids == ("i1", "i2", "i4")
    sent = [event(2), event(3), event(5)]
    assert await history_store.append(sent) == [DUPLICATE, ACCEPTED, ACCEPTED]
    read = await history_store.read("anna")
    assert read.item_ids == ("i1", "i2", "i3", "i4", "i5")
    np.testing.assert_array_equal(read.values, [4.5, 4.5, np.nan, 4.5, np.nan])
    np.testing.assert_array_equal(read.lons, [2.25, 2.25, np.nan, 2.25, np.nan])
    assert read.tz_offsets_min.tolist() == [60, 60, 0, 60, 0]
    assert (await redis_client.get(name) or b"")[0] == 2


async def test_a_history_of_the_older_layout_loses_the_numbers_that_nobody_sent(
    history_store: HistoryStore, redis_client: ServerClient
) -> None:
    """A record has all four; written anew they would take 16 bytes an event for ever."""
    known, later = [event(1), event(2, value=2.5)], event(3)
    name = history_key(PARTITION, "anna")
    await redis_client.set(name, packed_records(known))
    assert await history_store.append([later]) == [ACCEPTED]
    assert await redis_client.get(name) == encode_events([*known, later])


async def test_a_number_that_comes_later_is_unknown_of_the_events_before(
    history_store: HistoryStore,
) -> None:
    """A column is stored from the first event on that has a number in it."""
    await history_store.append(events(1, 4))
    await history_store.append([event(2, value=2.0), event(5, duration_s=5.0)])
    await history_store.append([event(3, lat=3.0, lon=-3.0)])
    read, nan = await history_store.read("anna"), np.nan
    assert read.item_ids == ("i1", "i2", "i3", "i4", "i5")
    np.testing.assert_array_equal(read.values, [nan, 2, nan, nan, nan])
    np.testing.assert_array_equal(read.durations_s, [nan, nan, nan, nan, 5])
    np.testing.assert_array_equal(read.lats, [nan, nan, 3, nan, nan])
    np.testing.assert_array_equal(read.lons, [nan, nan, -3, nan, nan])


async def test_histories_agree_with_a_plain_model_whatever_comes_in_which_order(
    valkey: EmbeddedValkey, redis_client: ServerClient
) -> None:
    """The script cuts and joins columns by place; a slip would mix the fields of events."""
    source = random.Random(7)
    for number in range(30):
        await redis_client.flushall()
        model = FakeHistory(max_events=12, max_seen=500)
        async with store_at(valkey.url, max_events=12, max_seen=500) as store:
            for _ in range(8):
                post = [any_event(source) for _ in range(source.randrange(1, 9))]
                assert await store.append(post) == await model.append(post), number
                for user_id in ("anna", "ben"):
                    assert_equal(await store.read(user_id), await model.read(user_id))


def any_event(source: random.Random) -> Event:
    """Return one of 60 events, which so comes again now and then, with any of its numbers."""
    number = source.randrange(60)
    numbers = {name: float(number) for name in NUMBERS if (number + len(name)) % 3}
    user_id = ("anna", "ben")[number % 2]
    return event(number, user_id=user_id, timestamp_ms=NOON_MS - 1_000 * (number % 20), **numbers)


def assert_equal(one: History, other: History) -> None:
    """Compare all columns, and as a set what left: of equal times any may leave first."""
    assert one.item_ids == other.item_ids
    for name in NUMBER_COLUMNS:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert sorted(one.seen_hashes.tolist()) == sorted(other.seen_hashes.tolist())


@pytest.mark.parametrize("num_users", [1, 10, 50])
async def test_a_post_of_fifty_events_is_one_round_trip(
    history_store: HistoryStore, redis_client: ServerClient, num_users: int
) -> None:
    """Counted, not timed: the server reads 16 KiB at a time, and a call is for a partition."""
    await history_store.append([event(999)])
    before = await counted(redis_client)
    sent = [event(n, user_id=f"user-{n % num_users}") for n in range(50)]
    assert await history_store.append(sent) == [ACCEPTED] * 50
    after = await counted(redis_client)
    partitions = {partition_of(f"user-{n}", 16) for n in range(num_users)}
    num_reads, num_bytes, num_calls = (new - old for new, old in zip(after, before, strict=True))
    # The last read is of the INFO that asks.
    assert num_reads == math.ceil(num_bytes / 16_384) + 1
    assert num_calls == len(partitions)


async def test_posts_of_one_moment_share_the_calls_of_their_partitions(
    history_store: HistoryStore, redis_client: ServerClient
) -> None:
    """Most of a small call is its beginning; each queue makes one for all that wait in it."""
    await history_store.append([event(999)])
    *_, before = await counted(redis_client)
    posts = [history_store.append([event(n), event(n, user_id="ben")]) for n in range(20)]
    assert await asyncio.gather(*posts) == [[ACCEPTED, ACCEPTED]] * 20
    *_, after = await counted(redis_client)
    assert after - before == APPENDS_AT_ONCE * len({PARTITION, partition_of("ben", 16)})


async def test_of_an_event_that_two_callers_send_at_once_one_is_a_duplicate(
    history_store: HistoryStore,
) -> None:
    """Also within one call, where neither is in the history yet."""
    outcomes = await asyncio.gather(*(history_store.append(events(1, 2)) for _ in range(6)))
    for place in (0, 1):
        assert sorted(outcome[place].kind for outcome in outcomes) == [
            "accepted", *["duplicate"] * 5,
        ]  # fmt: skip
    assert (await history_store.read("anna")).item_ids == ("i1", "i2")


async def counted(client: ServerClient) -> tuple[int, int, int]:
    """Return the server's reads of sockets, the bytes that it read, and the scripts that it ran."""
    info = await client.info("everything")
    num_calls = info.get("cmdstat_evalsha", {}).get("calls", 0)
    return info["total_reads_processed"], info["total_net_input_bytes"], num_calls


async def test_a_history_stays_bounded_whatever_is_sent(
    valkey: EmbeddedValkey, redis_client: ServerClient
) -> None:
    """1,000 events into 10 places, 20 that left (25 before they are cut) and about 100 streamed."""
    await redis_client.flushall()
    async with store_at(valkey.url, max_events=10, max_seen=20, stream_max_events=100) as store:
        for start in range(0, 1_000, 50):
            await store.append(events(*range(start, start + 50)))
        read = await store.read("anna")
    assert read.item_ids == tuple(f"i{n}" for n in range(990, 1_000))
    assert 20 <= len(read.seen_hashes) <= 25
    assert read.seen_hashes[-1] == item_hash("i989")
    # An approximate trim leaves whole nodes of 100 entries.
    assert await redis_client.xlen(stream_key(PARTITION)) <= 300


async def test_every_key_lives_for_a_limited_time(
    history_store: HistoryStore, redis_client: ServerClient, store_settings: Settings
) -> None:
    """Whoever does not come back is forgotten; only the layout's own key stays."""
    await history_store.append(events(*range(300)))
    await history_store.append(events(*range(300, 320)))
    names = {name.decode() async for name in redis_client.scan_iter()}
    year = store_settings.history_ttl_days * 86_400
    limits = {
        history_key(PARTITION, "anna"): year,
        seen_key(PARTITION, "anna"): year,
        stream_key(PARTITION): year,
        counter_key(PARTITION, NOON_MS // 86_400_000): COUNTER_TTL_S,
    }
    assert names == {*limits, META_KEY}
    for name, limit in limits.items():
        assert limit - 60 <= await redis_client.ttl(name) <= limit


async def test_the_stream_holds_each_accepted_event_once(
    history_store: HistoryStore, redis_client: ServerClient
) -> None:
    """It becomes training data: duplicates and losses would be learnt."""
    await history_store.append(events(2, 1))
    await history_store.append(events(1, 3))
    entries: list[Any] = await redis_client.xrange(stream_key(PARTITION)) or []
    payloads = [json.loads(fields[b"event"]) for _, fields in entries]
    assert [payload["event_id"] for payload in payloads] == ["e1", "e2", "e3"]


async def test_a_store_of_other_partitions_is_refused_before_anything_is_written(
    valkey: EmbeddedValkey, history_store: HistoryStore, redis_client: ServerClient
) -> None:
    """With another number of partitions every user would look new."""
    await history_store.append([event(1)])
    size = await redis_client.dbsize()
    async with store_at(valkey.url, num_partitions=32) as other:
        with pytest.raises(StoreMismatch, match="num_partitions is 16 in Redis and 32 here"):
            await other.append([event(1, user_id="ben")])
        with pytest.raises(StoreMismatch):
            await other.ping()
    assert await redis_client.dbsize() == size


async def test_a_users_broken_value_is_that_users_error_only(
    history_store: HistoryStore, redis_client: ServerClient
) -> None:
    """Callers share round trips, so one user's trouble must not become everybody's."""
    await history_store.append(events(1, user_id="ben"))
    await redis_client.lpush(history_key(PARTITION, "anna"), "not a history")
    outcomes = await asyncio.gather(
        history_store.append([event(1)]),
        history_store.append([event(2, user_id="ben")]),
        return_exceptions=True,
    )
    assert isinstance(outcomes[0], StoreUnavailable)
    assert outcomes[1] == [ACCEPTED]
    await redis_client.set(history_key(PARTITION, "anna"), b"\x09\x00\x00")
    with pytest.raises(StoreMismatch, match="layout 9"):
        await history_store.read("anna")
    with pytest.raises(StoreUnavailable, match="layout 9"):
        await history_store.append([event(3)])


async def test_a_refused_call_is_sent_again_for_each_caller_by_itself(
    history_store: HistoryStore, redis_client: ServerClient
) -> None:
    """All are of anna's partition but ben; what was stored at once is no duplicate of itself."""
    mates = [f"user-{n}" for n in range(500) if partition_of(f"user-{n}", 16) == PARTITION]
    await redis_client.lpush(history_key(PARTITION, "anna"), "not a history")
    posts = [
        [event(1)],
        *([event(1, user_id=mate), event(2, user_id="ben", event_id=mate)] for mate in mates[:9]),
        [event(3, user_id="cleo"), event(4)],
    ]
    outcomes = await asyncio.gather(*map(history_store.append, posts), return_exceptions=True)
    assert isinstance(outcomes[0], StoreUnavailable)
    assert isinstance(outcomes[-1], StoreUnavailable)
    assert outcomes[1:-1] == [[ACCEPTED, ACCEPTED]] * 9
    assert len(await history_store.read("ben")) == 9


async def test_a_server_that_hangs_costs_one_timeout(
    valkey: EmbeddedValkey, redis_client: ServerClient
) -> None:
    """The fallback answers instead, so waiting longer has no use; then it works again."""
    await redis_client.flushall()
    async with store_at(valkey.url, redis_timeout_ms=100) as store:
        await store.append([event(1)])
        await redis_client.client_pause(400, all=True)
        with pytest.raises(StoreUnavailable, match="Timeout"):
            await store.read("anna")
        await redis_client.ping()
        assert (await store.read("anna")).item_ids == ("i1",)


async def test_failed_calls_are_counted_by_operation(
    redis_client: ServerClient, store_settings: Settings
) -> None:
    """The first thing to look at when recommendations turn popular."""
    metrics = Metrics()
    store = HistoryStore(redis_client, store_settings, metrics)
    await redis_client.lpush(history_key(PARTITION, "anna"), "not a history")
    with pytest.raises(StoreUnavailable, match="WRONGTYPE"):
        await store.append([event(1)])
    await store.close()
    assert b'sojourn_redis_errors_total{operation="append"} 1.0' in metrics.render()[0]
