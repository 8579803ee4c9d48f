"""Readings that are kept: exactly as fresh as ones that are made anew, and bounded."""

import asyncio
import tracemalloc
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from service.app import create_app
from service.bundle_loader import LoadedBundle, load_bundle
from service.config import Settings
from service.contract.events import ItemId, UserId
from service.contract.features import RequestPoint
from service.fallback import LivePopularity
from service.metrics import Metrics
from service.nearest import Bonus
from service.ranker import AtPoint, Encoded
from service.readings import Readings
from service.recommendation import RecommendationQuery
from service.serving_model import ModelSlot, Ranked, RankJob, open_model
from service.store.history import PackedHistory
from service.store.history_codec import encode_events
from tests.builders import event, make_bundle
from tests.clients import client_of
from tests.fake_stores import fake_stores
from tests.fakes import NOON_MS, FakeClock, FakeCounters, FakeHistory
from tests.recommenders import model_of, recommender_on

ANNA = UserId("anna")
POINT = RequestPoint(NOON_MS, 60)
ROOM = 1 << 20
CANDIDATES = (ItemId("night-1"), ItemId("day-1"))
HOUR_MS = 3_600_000


def encoded(until_ms: int = NOON_MS + HOUR_MS) -> Encoded:
    """Return what an encoder might say."""
    bonus = Bonus(np.array([0, 3]), np.array([0.0, 1.0], np.float32))
    return Encoded(np.ones(4, np.float32), bonus, until_ms)


def packed(*item_ids: str, oldest_ms: int = 0) -> PackedHistory:
    """Return the stored history of events on these items, a minute apart."""
    events = [
        event(event_id=str(at), item_id=item, timestamp_ms=NOON_MS - 3_600_000 + at * 60_000)
        for at, item in enumerate(item_ids)
    ]
    return PackedHistory(encode_events(events), None, oldest_ms)


def readings(bundle: LoadedBundle, max_bytes: int = ROOM) -> Readings:
    """Return room for readings."""
    return Readings(bundle.vocabulary, Metrics(), max_bytes)


def kept(bundle: LoadedBundle, *, until_ms: int = NOON_MS + HOUR_MS) -> Readings:
    """Return readings of which one, of two events, is kept."""
    found = readings(bundle)
    found.keep(ANNA, found.of(ANNA, packed("night-1", "day-1")), encoded(until_ms), POINT)
    return found


def known(found: Readings, history: PackedHistory, point: RequestPoint) -> bool:
    """Say whether the encoder need not be asked."""
    return found.of(ANNA, history).encoded_at(point) is not None


def test_the_same_bytes_at_the_same_time_and_place_are_known(bundle: LoadedBundle) -> None:
    """The bytes are other objects: Redis sends them anew each time."""
    assert known(kept(bundle), packed("night-1", "day-1"), POINT)


@pytest.mark.parametrize(
    ("history", "point"),
    [
        (packed("night-1", "day-1", "day-1"), POINT),
        (packed("night-1"), POINT),
        (packed(), POINT),
        (packed("night-1", "day-1")._replace(seen=b"x" * 15), POINT),
        (packed("night-1", "day-1"), RequestPoint(NOON_MS + HOUR_MS, 60)),
        (packed("night-1", "day-1"), RequestPoint(NOON_MS - 1, 60)),
        (packed("night-1", "day-1"), RequestPoint(NOON_MS, 120)),
        (packed("night-1", "day-1"), RequestPoint(NOON_MS, 60, 1.0, 2.0)),
        (packed("night-1", "day-1"), RequestPoint()),
        (packed("night-1", "day-1", oldest_ms=-1), POINT),
    ],
    ids=["one more event", "one less", "erased", "seen", "an hour later", "before", "offset",
         "place", "no time", "events may be young again"],
)  # fmt: skip
def test_whatever_differs_is_not_known(
    bundle: LoadedBundle, history: PackedHistory, point: RequestPoint
) -> None:
    """An event that arrived a moment ago, an hour that began, another place."""
    assert not known(kept(bundle), history, point)


def test_events_that_grow_too_old_end_a_reading(bundle: LoadedBundle) -> None:
    """The bytes in Redis stay as they were until the next event."""
    stale = packed("night-1", "day-1", oldest_ms=NOON_MS - HOUR_MS + 1)
    found = kept(bundle)
    assert not known(found, stale, POINT)
    assert found.of(ANNA, stale).deeds.past.item_ids == ("day-1",)


def test_a_kept_reading_reads_its_bytes_where_somebody_asks(bundle: LoadedBundle) -> None:
    """What is kept does not hold what the bytes say twice."""
    found = kept(bundle).of(ANNA, packed("night-1", "day-1"))
    made = readings(bundle).of(ANNA, packed("night-1", "day-1"))
    assert found.deeds.past.item_ids == made.deeds.past.item_ids == ("night-1", "day-1")
    assert found.deeds.items.tolist() == made.deeds.items.tolist()
    assert found.last_offset_min == made.last_offset_min


def test_arrays_of_a_batch_are_not_held(bundle: LoadedBundle) -> None:
    """A row of a batch would keep the memory of all rows."""
    batch = np.ones((16, 4), np.float32)
    found = readings(bundle)
    point = POINT
    found.keep(ANNA, found.of(ANNA, packed("night-1")), encoded()._replace(query=batch[3]), point)
    answer = found.of(ANNA, packed("night-1")).encoded_at(point)
    assert answer is not None
    assert answer.query.base is None
    assert answer.bonus.items.tolist() == [3]


def test_what_ends_at_once_is_not_kept(bundle: LoadedBundle) -> None:
    """An encoder that cannot say until when says a millisecond."""
    assert len(kept(bundle, until_ms=NOON_MS + 1)) == 0


def test_memory_is_bounded_and_the_longest_unused_goes_first(bundle: LoadedBundle) -> None:
    """Of ten users those stay that were asked for last."""
    found = readings(bundle, 10_000)
    users = [UserId(str(number)) for number in range(10)]
    for user in users:
        found.keep(user, found.of(user, packed("night-1")), encoded(), POINT)
    held = [found.of(user, packed("night-1")).encoded_at(POINT) for user in users]
    number = len(found)
    assert 1 < number < 10
    assert [one is not None for one in held] == [False] * (10 - number) + [True] * number


def test_memory_is_counted_as_it_is(bundle: LoadedBundle) -> None:
    """Within a tenth, for windows of one event and of two hundred."""
    for num_events in (1, 200):
        found = readings(bundle, 64 * ROOM)
        histories = [packed(*["night-1"] * num_events) for _ in range(300)]
        bonus = Bonus(np.ones(num_events, np.int64), np.ones(num_events, np.float32))
        answer = encoded()._replace(bonus=bonus)
        tracemalloc.start()
        for at in range(len(histories)):
            history = PackedHistory(
                bytes(bytearray(histories[at].history or b"")), None, at * 1_000
            )
            user = UserId(f"user-{at}")
            reading = found.of(user, history)
            reading.seen = reading.deeds.items.copy()
            point = RequestPoint(NOON_MS + at, 1_000 + at, 1.0 + at, 2.0 + at)
            found.keep(user, reading, answer._replace(until_ms=NOON_MS + HOUR_MS + at), point)
        del reading, history
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert found.num_bytes == pytest.approx(held, rel=0.1)


def test_without_room_nothing_is_kept(bundle: LoadedBundle) -> None:
    """How an operator turns it off."""
    found = readings(bundle, 0)
    found.keep(ANNA, found.of(ANNA, packed("night-1")), encoded(), POINT)
    assert len(found) == 0


def test_a_user_is_forgotten(bundle: LoadedBundle) -> None:
    """Erasure leaves nothing in memory."""
    found = kept(bundle)
    found.forget(ANNA)
    found.forget(UserId("somebody else"))
    assert len(found) == 0


def test_what_was_read_before_somebody_was_forgotten_is_not_kept(bundle: LoadedBundle) -> None:
    """A request that read a history before its erasure may still be at work after it."""
    found = readings(bundle)
    reading = found.of(ANNA, packed("night-1"))
    found.forget(ANNA)
    found.keep(ANNA, reading, encoded(), POINT)
    assert len(found) == 0


def test_another_vocabulary_begins_without_readings(bundle: LoadedBundle) -> None:
    """Indices mean something in one vocabulary only."""
    assert len(kept(bundle).for_vocabulary(bundle.vocabulary)) == 0


class CountingRanking:
    """A ranking that gives nothing, and says what it was asked."""

    def __init__(self) -> None:
        self.asked: list[AtPoint | Encoded] = []

    async def submit(self, item: RankJob) -> Ranked:
        """Note what was asked."""
        self.asked.append(item.of)
        return Ranked([], encoded())

    def encodings(self) -> Sequence[bool]:
        """Say of each ranking whether the encoder was needed."""
        return [isinstance(one, AtPoint) for one in self.asked]


PLAIN = RecommendationQuery(k=1, user_id=ANNA, now_ms=NOON_MS)


@pytest.mark.parametrize(
    "query", [PLAIN, replace(PLAIN, categories=("drama",)), replace(PLAIN, events=(event(),))]
)
async def test_only_what_is_stored_is_kept(
    bundle: LoadedBundle, history: FakeHistory, query: RecommendationQuery
) -> None:
    """What a request sends along is a part of its own window only."""
    await history.append([event(item_id="night-1")])
    ranking = CountingRanking()
    model = model_of(bundle, ranking, kept_bytes=ROOM)
    recommender = recommender_on(ModelSlot(model, AsyncExitStack()), history)
    for _ in range(2):
        await recommender.recommend(query)
    await history.append([event(event_id="new", item_id="day-1", timestamp_ms=NOON_MS)])
    await recommender.recommend(query)
    assert ranking.encodings() == [True, query is not PLAIN, True]


async def test_a_users_reading_ends_with_the_user(
    bundle: LoadedBundle, history: FakeHistory
) -> None:
    """`forget` reaches the model that serves."""
    await history.append([event(item_id="night-1")])
    model = model_of(bundle, CountingRanking(), kept_bytes=ROOM)
    recommender = recommender_on(ModelSlot(model, AsyncExitStack()), history)
    await recommender.recommend(PLAIN)
    assert len(model.readings) == 1
    recommender.forget([ANNA])
    assert len(model.readings) == 0


async def test_what_counts_as_seen_is_asked_for_each_time(
    tmp_path: Path, history: FakeHistory
) -> None:
    """By the bundle's rule it is kept; a request with a rule of its own gets its own."""
    bundle = load_bundle(make_bundle(tmp_path, exclude_seen="all"))
    await history.append([event(item_id="night-1")])
    live = LivePopularity(FakeCounters(), bundle.vocabulary, FakeClock())
    model, resources = open_model(bundle, live, Settings(), Metrics())
    recommender = recommender_on(ModelSlot(model, resources), history)
    everything = RecommendationQuery(k=9, user_id=ANNA, exclude_seen=())
    for query, shown in [
        (RecommendationQuery(k=9, user_id=ANNA), False),
        (everything, True),
        (replace(everything, exclude_seen=("view",)), False),
        (replace(everything, exclude_seen=("like",)), True),
        (RecommendationQuery(k=9, user_id=ANNA), False),
        (RecommendationQuery(k=9, user_id=ANNA, candidates=CANDIDATES), False),
    ]:
        answer = await recommender.recommend(query)
        assert ("night-1" in [item.item_id for item in answer.items]) == shown, query


async def test_new_items_end_the_readings_of_their_model(bundle: LoadedBundle) -> None:
    """Another vocabulary, another meaning of an index."""
    model = model_of(bundle, CountingRanking(), kept_bytes=ROOM)
    slot = ModelSlot(model, AsyncExitStack())
    model.readings.keep(ANNA, model.readings.of(ANNA, packed("night-1")), encoded(), POINT)
    slot.renew(replace(bundle, withheld=np.array([1])))
    assert len(slot.current.readings) == 1
    slot.renew(replace(bundle, vocabulary=bundle.vocabulary.extended(["new"])))
    assert len(slot.current.readings) == 0


async def test_windows_are_counted_once_they_were_ranked_for(
    bundle: LoadedBundle, history: FakeHistory
) -> None:
    """Whoever has no events asks no encoder."""
    await history.append([event(item_id="night-1")])
    metrics = Metrics()
    readings_of_model = Readings(bundle.vocabulary, metrics, ROOM)
    model = replace(model_of(bundle, CountingRanking()), readings=readings_of_model)
    recommender = recommender_on(ModelSlot(model, AsyncExitStack()), history)
    for user in ("nobody", "anna", "anna", "anna"):
        await recommender.recommend(RecommendationQuery(k=1, user_id=UserId(user), now_ms=NOON_MS))
    text = metrics.render()[0].decode()
    assert 'sojourn_encoded_windows_total{source="encoder"} 1.0' in text
    assert 'sojourn_encoded_windows_total{source="kept"} 2.0' in text


async def test_erasures_and_merges_reach_the_readings(
    settings: Settings, bundle: LoadedBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of both users of a merge."""
    forgotten: list[str] = []
    monkeypatch.setattr(Readings, "forget", lambda _, user_id: forgotten.append(user_id))
    async with client_of(create_app(settings, bundle=bundle, **fake_stores())) as client:
        assert (await client.delete("/v1/users/anna")).status_code == 200
        pair = {"from_user_id": "bert", "into_user_id": "carla"}
        assert (await client.post("/v1/users/merge", json=pair)).status_code == 200
    assert forgotten == ["anna", "bert", "carla"]


async def test_readings_whose_time_is_over_go_without_a_request(
    settings: Settings, bundle: LoadedBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that nobody asks forgets too."""
    expired = asyncio.Event()
    monkeypatch.setattr(Readings, "expire", lambda _: expired.set())
    async with client_of(create_app(settings, bundle=bundle, **fake_stores())):
        await asyncio.wait_for(expired.wait(), 5)
