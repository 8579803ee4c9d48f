"""What a history store promises: one suite for the fake and for the real one."""

from collections.abc import AsyncIterator

import pytest

from service.contract.events import EVENT_TYPE_CODES
from service.contract.vocabulary import item_hash
from service.store.history import HistoryStore
from service.store.history_codec import History
from service.store.outcomes import ACCEPTED, DUPLICATE
from tests.fakes import NOON_MS, FakeHistory
from tests.integration.store.builders import empty, event, events, store_at

MAX_EVENTS = 4
MAX_SEEN = 3

Store = FakeHistory | HistoryStore


@pytest.fixture(
    params=["fake"]
    + [pytest.param(name, marks=pytest.mark.integration) for name in ("valkey", "cluster")]
)
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    """Return an empty store that keeps 4 events and 3 that left."""
    if request.param == "fake":
        yield FakeHistory(max_events=MAX_EVENTS, max_seen=MAX_SEEN)
        return
    url: str = request.getfixturevalue(request.param).url
    await empty(url)
    async with store_at(url, max_events=MAX_EVENTS, max_seen=MAX_SEEN) as real:
        yield real


def seen_items(history: History) -> set[int]:
    """Return the hashes of all items that the user is known to have seen."""
    return {*history.seen_hashes.tolist(), *map(item_hash, history.item_ids)}


async def test_a_read_sees_what_was_just_appended(store: Store) -> None:
    """Read-your-writes is what makes recommendations live."""
    sent = event(
        1, event_type="rating", value=4.5, duration_s=2.5, lat=48.25, lon=-16.5, tz_offset_min=120
    )
    assert await store.append([sent]) == [ACCEPTED]
    read = await store.read("anna")
    assert read.item_ids == ("i1",)
    assert read.event_types.tolist() == [EVENT_TYPE_CODES["rating"]]
    assert read.timestamps_ms.tolist() == [NOON_MS + 1_000]
    assert read.tz_offsets_min.tolist() == [120]
    numbers = (read.values, read.durations_s, read.lats, read.lons)
    assert [float(column[0]) for column in numbers] == [4.5, 2.5, 48.25, -16.5]


async def test_an_unknown_user_has_an_empty_history(store: Store) -> None:
    """A cold user is served, not refused."""
    assert len(await store.read("nobody")) == 0


async def test_appending_nothing_does_nothing(store: Store) -> None:
    """All events of a post may have been rejected before."""
    assert await store.append([]) == []


async def test_a_retry_is_a_duplicate_whether_sent_apart_or_together(store: Store) -> None:
    """Callers retry whatever was not answered; counting twice would distort the history."""
    assert await store.append(events(1, 2, 2)) == [ACCEPTED, ACCEPTED, DUPLICATE]
    assert await store.append(events(2, 3, 1)) == [DUPLICATE, ACCEPTED, DUPLICATE]
    assert (await store.read("anna")).item_ids == ("i1", "i2", "i3")


async def test_an_event_id_decides_whatever_else_differs(store: Store) -> None:
    """A retry may be stamped anew; the id is the event's identity."""
    await store.append([event(1)])
    assert await store.append([event(1, item_id="i7", timestamp_ms=NOON_MS)]) == [DUPLICATE]
    assert (await store.read("anna")).item_ids == ("i1",)


async def test_repeats_are_kept(store: Store) -> None:
    """A user may visit one place daily; that is the signal, not noise."""
    await store.append(events(1, 2, 3, item_id="home"))
    assert (await store.read("anna")).item_ids == ("home", "home", "home")


async def test_events_out_of_order_are_merged_by_time(store: Store) -> None:
    """Devices send late; the model reads times, not arrivals."""
    await store.append(events(5, 2))
    await store.append(events(4, 1))
    read = await store.read("anna")
    assert read.item_ids == ("i1", "i2", "i4", "i5")
    assert read.timestamps_ms.tolist() == [NOON_MS + 1_000 * n for n in (1, 2, 4, 5)]


async def test_events_of_one_time_stay_in_the_order_of_arrival(store: Store) -> None:
    """Half of all events of some logs have equal times; any other order would be invented."""
    await store.append(events(3, 1, timestamp_ms=NOON_MS))
    await store.append([event(9)])
    await store.append(events(2, timestamp_ms=NOON_MS))
    assert (await store.read("anna")).item_ids == ("i3", "i1", "i2", "i9")


async def test_results_are_in_the_order_of_the_events(store: Store) -> None:
    """The caller matches a status to an event by its place."""
    await store.append(events(2))
    mixed = [event(3), event(2), event(1, user_id="ben"), event(1)]
    assert await store.append(mixed) == [ACCEPTED, DUPLICATE, ACCEPTED, ACCEPTED]


async def test_a_history_keeps_its_newest_events(store: Store) -> None:
    """Six events into four places: the two oldest leave."""
    await store.append(events(1, 2, 3))
    await store.append(events(4, 5, 6))
    assert (await store.read("anna")).item_ids == ("i3", "i4", "i5", "i6")


async def test_what_left_the_history_still_counts_as_seen(store: Store) -> None:
    """A seen film stays seen after two hundred others."""
    await store.append(events(1, event_type="purchase"))
    await store.append(events(2, 3, 4, 5, 6))
    read = await store.read("anna")
    assert seen_items(read) == {item_hash(f"i{n}") for n in range(1, 7)}
    types = dict(zip(read.seen_hashes.tolist(), read.seen_types.tolist(), strict=True))
    assert types[item_hash("i1")] == EVENT_TYPE_CODES["purchase"]


async def test_an_event_older_than_a_full_history_is_seen_but_not_kept(store: Store) -> None:
    """It is accepted, since nothing may be lost; its late retry is a duplicate all the same."""
    await store.append(events(2, 3, 4, 5))
    assert await store.append([event(1)]) == [ACCEPTED]
    read = await store.read("anna")
    assert read.item_ids == ("i2", "i3", "i4", "i5")
    assert read.seen_hashes.tolist() == [item_hash("i1")]
    assert await store.append([event(1)]) == [DUPLICATE]


async def test_an_event_that_left_the_history_is_still_a_duplicate(store: Store) -> None:
    """Idempotency must not end with the window: i1 has left when its retry comes."""
    await store.append(events(1, 2, 3, 4, 5))
    assert await store.append([event(1)]) == [DUPLICATE]


async def test_what_left_long_ago_is_forgotten(store: Store) -> None:
    """The bound: 4 kept and 3 to 3.75 that left; of 20 events, the first 13 are gone."""
    for number in range(1, 21):
        await store.append([event(number)])
    read = await store.read("anna")
    assert read.item_ids == ("i17", "i18", "i19", "i20")
    assert read.seen_hashes.tolist() == [item_hash(f"i{n}") for n in (14, 15, 16)]


async def test_users_do_not_mix(store: Store) -> None:
    """One post may hold the events of many."""
    sent = [event(n, user_id=f"user-{n % 7}") for n in range(21)]
    assert await store.append(sent) == [ACCEPTED] * 21
    for user in range(7):
        read = await store.read(f"user-{user}")
        assert read.item_ids == tuple(f"i{n}" for n in range(user, 21, 7))


async def test_any_unicode_can_be_an_id(store: Store) -> None:
    """Ids come from outside: braces, spaces, line ends, emoji."""
    for user_id in ("{p3}:h1:x", "größe ✓", "a\r\nb", "🙂"):
        await store.append([event(1, user_id=user_id, item_id="日本\n🗼%z{}")])
        assert (await store.read(user_id)).item_ids == ("日本\n🗼%z{}",)
