"""What people may ask of a store: one suite for the fake and for the real one."""

from collections.abc import AsyncIterator

import pytest

from service.contract.vocabulary import item_hash
from service.store.history import HistoryStore
from service.store.outcomes import ACCEPTED, DUPLICATE, Appended, Erased
from service.store.people_codec import Held, SeenRecord
from tests.fakes import DAY_MS, NOON_MS, FakeClock, FakeHistory, held_event
from tests.integration.store.builders import empty, event, events, store_at

BOUNDS = {"max_events": 4, "max_seen": 3, "retention_days": 10}

Store = FakeHistory | HistoryStore


@pytest.fixture
def clock() -> FakeClock:
    """Return a clock that is a minute past noon, after all events unless a test says otherwise."""
    return FakeClock(NOON_MS + 60_000)


@pytest.fixture(
    params=["fake"]
    + [pytest.param(name, marks=pytest.mark.integration) for name in ("valkey", "cluster")]
)
async def store(request: pytest.FixtureRequest, clock: FakeClock) -> AsyncIterator[Store]:
    """Return an empty store that keeps 4 events, 3 that left, and nothing of 10 days ago."""
    if request.param == "fake":
        yield FakeHistory(**BOUNDS, clock=clock)
        return
    url: str = request.getfixturevalue(request.param).url
    await empty(url)
    async with store_at(url, clock=clock, **BOUNDS) as real:
        yield real


def erased_at(clock: FakeClock) -> Appended:
    """Return what becomes of an event of a user who was erased now."""
    return Appended("erased", clock.now_ms)


async def test_nothing_is_held_of_an_unknown_user(store: Store) -> None:
    """That is an answer, not an error."""
    assert await store.people.held("nobody") == Held()
    assert await store.people.events("nobody") == ()


async def test_an_export_holds_every_field_that_is_stored(store: Store) -> None:
    """4.2 is shown as it was sent, though 32 bits of it are kept; what was not sent is None."""
    full = event(
        1, event_type="rating", value=4.2, duration_s=0.5, lat=48.86, lon=-2.35, tz_offset_min=120
    )
    await store.append([full, event(2)])
    held = await store.people.held("anna")
    assert held.events == (held_event(full), held_event(event(2)))
    assert held.events[0].value == 4.2
    assert held.events[1].tz_offset_min is None
    assert await store.people.events("anna") == held.events
    assert [entry.field for entry in held.stream] == ["event", "event"]
    assert [entry.payload["event_id"] for entry in held.stream] == ["e1", "e2"]
    assert held.stream[0].payload["value"] == 4.2
    assert held.expires_in_ms is not None
    assert 0 < held.expires_in_ms <= 365 * DAY_MS


async def test_an_export_says_what_is_kept_of_what_left_the_history(store: Store) -> None:
    """Hashes and the type; nobody may say that less is held than is."""
    await store.append(events(1, 2, 3, 4, 5, event_type="play"))
    [record] = (await store.people.held("anna")).seen
    event_hash = held_event(event(1)).event_hash
    assert record == SeenRecord(f"{item_hash('i1'):016x}", "play", event_hash)


async def test_an_erased_user_is_gone_and_others_are_not(store: Store, clock: FakeClock) -> None:
    """History, what left it, and the stream's entries; the numbers say so."""
    await store.append([*events(1, 2, 3, 4, 5), event(6, user_id="ben")])
    assert await store.people.erase("anna") == Erased(4, 1, 5, clock.now_ms)
    assert await store.people.held("anna") == Held(erased_ms=clock.now_ms)
    assert len(await store.read("anna")) == 0
    other = await store.people.held("ben")
    assert (len(other.events), len(other.stream), other.erased_ms) == (1, 1, None)


async def test_a_late_event_of_an_erased_user_stays_out(store: Store, clock: FakeClock) -> None:
    """A device that was offline, or a retry; its time tells it from somebody who has come back."""
    await store.append([event(1)])
    await store.people.erase("anna")
    late, same, newer = (
        event(n, timestamp_ms=clock.now_ms + late_ms) for n, late_ms in ((2, -1), (3, 0), (4, 1))
    )
    results = await store.append([event(1), late, same, newer])
    assert results == [erased_at(clock)] * 3 + [ACCEPTED]
    assert (await store.read("anna")).item_ids == ("i4",)


async def test_an_event_from_ahead_of_the_clock_cannot_come_back(
    store: Store, clock: FakeClock
) -> None:
    """Clocks may be minutes ahead. Its retry is not somebody who has come back."""
    ahead = event(1, timestamp_ms=clock.now_ms + 5_000)
    await store.append([ahead])
    erased = await store.people.erase("anna")
    assert erased.erased_ms == clock.now_ms + 5_000
    assert [one.kind for one in await store.append([ahead])] == ["erased"]


async def test_an_unknown_user_can_be_erased_before_anything_comes(
    store: Store, clock: FakeClock
) -> None:
    """The events may still be on their way."""
    assert await store.people.erase("anna") == Erased(0, 0, 0, clock.now_ms)
    assert await store.append([event(1)]) == [erased_at(clock)]


async def test_an_erasure_can_be_repeated(store: Store, clock: FakeClock) -> None:
    """A caller who got no answer asks again; the later time counts, also if a clock goes back."""
    await store.append([event(1)])
    await store.people.erase("anna")
    clock.advance(1_000)
    assert await store.people.erase("anna") == Erased(0, 0, 0, clock.now_ms)
    clock.advance(-500)
    assert await store.people.erase("anna") == Erased(0, 0, 0, clock.now_ms + 500)


async def test_a_merge_puts_two_histories_in_order_of_time(store: Store, clock: FakeClock) -> None:
    """Before the login and after it are one person; what both have counts once."""
    await store.append(events(1, 3, user_id="device"))
    await store.append(events(2, 3))
    merged = await store.people.merge("device", "anna")
    assert (merged.num_events, merged.num_duplicates, merged.num_left_out) == (1, 1, 0)
    assert merged.erased == Erased(2, 0, 2, clock.now_ms)
    assert (await store.read("anna")).item_ids == ("i1", "i2", "i3")
    assert await store.people.held("device") == Held(erased_ms=clock.now_ms)
    assert await store.append([event(4, user_id="device")]) == [erased_at(clock)]


async def test_merged_events_are_no_new_ones(store: Store) -> None:
    """Collectors would learn them twice; those of the first user go with that user."""
    await store.append(events(1, 2, user_id="device"))
    await store.append([event(3)])
    await store.people.merge("device", "anna")
    stream = (await store.people.held("anna")).stream
    assert [entry.payload["event_id"] for entry in stream] == ["e3"]
    assert await store.append([event(1)]) == [DUPLICATE]


async def test_a_merge_brings_what_left_the_history_too(store: Store) -> None:
    """Items seen on the phone are seen; one that both have seen counts once."""
    await store.append(events(1, 2, 3, 4, 5, 6, user_id="device"))
    await store.append(events(2, 7))
    merged = await store.people.merge("device", "anna")
    assert (merged.num_events, merged.num_seen) == (4, 1)
    read = await store.read("anna")
    assert read.item_ids == ("i4", "i5", "i6", "i7")
    assert read.seen_hashes.tolist() == [item_hash(f"i{n}") for n in (1, 2, 3)]


async def test_a_merge_brings_nothing_from_before_the_other_ones_erasure(
    store: Store, clock: FakeClock
) -> None:
    """Nor what left a history, since nobody knows its time."""
    await store.append(events(1, 2, 3, 4, 5, user_id="device"))
    await store.people.erase("anna")
    await store.append([event(6, user_id="device", timestamp_ms=clock.now_ms + 1)])
    merged = await store.people.merge("device", "anna")
    assert (merged.num_events, merged.num_left_out, merged.num_seen) == (1, 3, 0)
    read = await store.read("anna")
    assert (read.item_ids, len(read.seen_hashes)) == (("i6",), 0)


async def test_a_merge_of_an_unknown_user_gives_nothing_and_holds_off_what_comes(
    store: Store, clock: FakeClock
) -> None:
    """The answer of a first attempt may have been lost."""
    await store.append([event(1)])
    merged = await store.people.merge("nobody", "anna")
    assert (merged.num_events, merged.erased) == (0, Erased(0, 0, 0, clock.now_ms))
    assert await store.append([event(2, user_id="nobody")]) == [erased_at(clock)]
    assert (await store.read("anna")).item_ids == ("i1",)


async def test_what_is_older_than_the_retention_is_not_shown(
    store: Store, clock: FakeClock
) -> None:
    """Also of a user who has not come back since, whose history nobody has trimmed."""
    await store.append([event(1), event(2, timestamp_ms=NOON_MS + DAY_MS)])
    clock.now_ms = NOON_MS + 10 * DAY_MS + 1_001
    assert (await store.read("anna")).item_ids == ("i2",)
    assert [held.item_id for held in (await store.people.held("anna")).events] == ["i2"]
    assert [held.item_id for held in await store.people.events("anna")] == ["i2"]


async def test_what_is_older_than_the_retention_goes_with_the_next_event(
    store: Store, clock: FakeClock
) -> None:
    """It is dropped, not remembered as seen: nothing of it is kept."""
    await store.append(events(1, 2))
    clock.now_ms = NOON_MS + 10 * DAY_MS + 2_000
    await store.append([event(3, timestamp_ms=clock.now_ms)])
    clock.now_ms = NOON_MS
    read = await store.read("anna")
    assert (read.item_ids, len(read.seen_hashes)) == (("i2", "i3"), 0)


async def test_an_event_that_is_too_old_already_is_not_stored(
    store: Store, clock: FakeClock
) -> None:
    """And nobody is told that it was."""
    limit = clock.now_ms - 10 * DAY_MS
    sent = [event(1, timestamp_ms=limit - 1), event(2, timestamp_ms=limit)]
    assert await store.append(sent) == [Appended("expired", limit), ACCEPTED]
    held = await store.people.held("anna")
    assert (len(held.events), len(held.seen), len(held.stream)) == (1, 0, 1)


async def test_any_unicode_id_can_be_shown_erased_and_merged(store: Store) -> None:
    """Ids that JSON, Lua or a pattern would write otherwise."""
    for user_id in ('a"b\\c', "größe ✓ 🙂", "a\r\n\tb", "%d.*[x]", "a/b", "\x01\x7f\u2028"):
        await store.append([event(1, user_id=user_id), event(2, user_id=user_id + "x")])
        assert len((await store.people.held(user_id)).stream) == 1
        merged = await store.people.merge(user_id, user_id + "x")
        assert (merged.num_events, merged.erased.num_stream_entries) == (1, 1)
        erased = await store.people.erase(user_id + "x")
        assert (erased.num_events, erased.num_stream_entries) == (2, 1)
