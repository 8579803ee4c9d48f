"""Readings that are kept: exactly as fresh as ones that are made anew, and bounded."""

from collections.abc import Sequence
from contextlib import AsyncExitStack

import numpy as np
import pytest

from service.bundle_loader import LoadedBundle
from service.contract.events import UserId
from service.contract.features import RequestPoint
from service.metrics import Metrics
from service.nearest import Bonus
from service.ranker import Encoded
from service.readings import Reading, Readings, deeds_of
from service.recommendation import RecommendationQuery
from service.serving_model import AtPoint, ModelSlot, Ranked, RankJob
from service.store.history import PackedHistory
from service.store.history_codec import encode_events
from tests.builders import event
from tests.fakes import NOON_MS, FakeHistory
from tests.recommenders import model_of, recommender_on

ANNA = UserId("anna")
POINT = RequestPoint(NOON_MS, 60)
ROOM = 1 << 20
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
    return found.encoded_at(found.of(ANNA, history), point) is not None


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
    ],
    ids=["one more event", "one less", "erased", "seen", "an hour later", "before", "offset",
         "place", "no time"],
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


def test_a_reading_at_rest_reads_its_bytes_again(bundle: LoadedBundle) -> None:
    """It does not hold what the bytes say twice."""
    found = kept(bundle).of(ANNA, packed("night-1", "day-1"))
    deeds = deeds_of(bundle.vocabulary, packed("night-1", "day-1"))
    assert found.deeds.past.item_ids == deeds.past.item_ids
    assert found.deeds.items.tolist() == deeds.items.tolist()


def test_arrays_of_a_batch_are_not_held(bundle: LoadedBundle) -> None:
    """A row of a batch would keep the memory of all rows."""
    batch = np.ones((16, 4), np.float32)
    found = readings(bundle)
    point = POINT
    found.keep(ANNA, found.of(ANNA, packed("night-1")), encoded()._replace(query=batch[3]), point)
    answer = found.encoded_at(found.of(ANNA, packed("night-1")), point)
    assert answer is not None
    assert answer.query.base is None
    assert answer.bonus.items.tolist() == [3]


def test_what_ends_at_once_is_not_kept(bundle: LoadedBundle) -> None:
    """An encoder that cannot say until when says a millisecond."""
    assert len(kept(bundle, until_ms=NOON_MS + 1)) == 0


def test_memory_is_bounded_and_the_longest_unused_goes_first(bundle: LoadedBundle) -> None:
    """Of ten users those stay that were asked for last."""
    size = 0
    found = readings(bundle, 8_000)
    users = [UserId(str(number)) for number in range(10)]
    for user in users:
        reading = found.of(user, packed("night-1"))
        found.keep(user, reading, encoded(), POINT)
        size = reading.num_bytes
    held = [found.encoded_at(found.of(user, packed("night-1")), POINT) for user in users]
    number = 8_000 // size
    assert 1 < number < 10
    assert [one is not None for one in held] == [False] * (10 - number) + [True] * number


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


@pytest.mark.parametrize("more", [{}, {"categories": ("drama",)}, {"events": (event(),)}])
async def test_only_what_is_stored_is_kept(
    bundle: LoadedBundle, history: FakeHistory, more: dict[str, object]
) -> None:
    """What a request sends along is a part of its own window only."""
    await history.append([event(item_id="night-1")])
    ranking = CountingRanking()
    model = model_of(bundle, ranking, kept_bytes=ROOM)
    recommender = recommender_on(ModelSlot(model, AsyncExitStack()), history)
    query = RecommendationQuery(k=1, user_id=ANNA, now_ms=NOON_MS, **more)  # type: ignore[arg-type]
    for _ in range(2):
        await recommender.recommend(query)
    await history.append([event(event_id="new", item_id="day-1", timestamp_ms=NOON_MS)])
    await recommender.recommend(query)
    assert ranking.encodings() == [True, bool(more), True]


async def test_a_users_reading_ends_with_the_user(
    bundle: LoadedBundle, history: FakeHistory
) -> None:
    """`forget` reaches the model that serves."""
    await history.append([event(item_id="night-1")])
    model = model_of(bundle, CountingRanking(), kept_bytes=ROOM)
    recommender = recommender_on(ModelSlot(model, AsyncExitStack()), history)
    await recommender.recommend(RecommendationQuery(k=1, user_id=ANNA, now_ms=NOON_MS))
    assert len(model.readings) == 1
    recommender.forget([ANNA])
    assert len(model.readings) == 0


def test_a_reading_of_nothing_stored_is_of_no_bytes(bundle: LoadedBundle) -> None:
    """A user without a history has a reading too."""
    nothing = PackedHistory(None, None)
    reading = Reading(bundle.vocabulary, deeds_of(bundle.vocabulary, nothing), nothing)
    assert reading.is_of(nothing)
    assert not reading.is_of(packed("night-1"))
