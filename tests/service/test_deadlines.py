"""A request's time is one budget, from its first byte on; what waits for Redis leaves some over."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import httpx
import pytest

from service.app import create_app
from service.bundle_loader import LoadedBundle
from service.config import Settings
from service.contract.events import UserId
from service.deadline import Deadline, request_began_s
from service.metrics import Metrics
from service.recommendation import RecommendationQuery
from service.serving_model import ModelSlot, Ranked, RankJob
from service.store.history import PackedHistory
from tests.builders import event
from tests.clients import client_of
from tests.fake_stores import fake_stores
from tests.fakes import FakeHistory
from tests.recommenders import NOTHING_RANKED, model_of, recommender_on

ANNA = RecommendationQuery(k=3, user_id=UserId("anna"), events=(event(item_id="night-1"),))


class StuckHistory(FakeHistory):
    """A store that never answers a read."""

    async def read_packed(self, user_id: str) -> PackedHistory:
        """Wait for ever."""
        await asyncio.Event().wait()
        return await super().read_packed(user_id)


class NotedRanking:
    """A ranking that gives nothing and notes when it was asked, by the loop's clock."""

    def __init__(self) -> None:
        self.asked_s: list[float] = []

    async def submit(self, item: RankJob) -> Ranked:
        """Note the time."""
        self.asked_s.append(asyncio.get_running_loop().time())
        # Where a deadline that has passed makes itself known.
        await asyncio.sleep(0)
        return NOTHING_RANKED


@pytest.fixture
def ranking() -> NotedRanking:
    """Return a ranking that was never asked."""
    return NotedRanking()


async def test_a_stuck_redis_leaves_the_model_its_part_of_the_time(
    bundle: LoadedBundle, ranking: NotedRanking
) -> None:
    """Half of what remains is for the history; the request's own events are ranked then."""
    models = ModelSlot(model_of(bundle, ranking), AsyncExitStack())
    started_s = asyncio.get_running_loop().time()
    answer = await recommender_on(models, StuckHistory(), deadline_ms=1_000).recommend(ANNA)
    assert answer.degraded == ("redis",)
    [asked_s] = ranking.asked_s
    assert asked_s - started_s >= 0.49


async def test_a_request_that_waited_too_long_is_answered_without_the_model(
    bundle: LoadedBundle, ranking: NotedRanking
) -> None:
    """Its time counts from its first byte, not from the moment when somebody looked at it."""
    models = ModelSlot(model_of(bundle, ranking), AsyncExitStack())
    token = request_began_s.set(asyncio.get_running_loop().time() - 10)
    try:
        answer = await recommender_on(models, FakeHistory(), deadline_ms=9_000).recommend(ANNA)
    finally:
        request_began_s.reset(token)
    assert answer.degraded[-1] == "model"
    assert answer.source == "repeat"


@pytest.fixture
async def stuck_client(
    settings: Settings, bundle: LoadedBundle
) -> AsyncIterator[httpx.AsyncClient]:
    """Return a client of a service whose store of histories never answers a read."""
    brisk = settings.model_copy(update={"request_deadline_ms": 100})
    stores = fake_stores(history=StuckHistory())
    async with client_of(create_app(brisk, **stores, bundle=bundle)) as client:
        yield client


async def test_the_deadline_of_a_request_reaches_its_calls(
    stuck_client: httpx.AsyncClient,
) -> None:
    """Without it this request would wait for ever."""
    answer = await stuck_client.get("/v1/users/anna/recommendations")
    assert (answer.status_code, answer.json()["degraded"]) == (200, ["redis"])


async def test_a_part_of_no_time_is_no_time() -> None:
    """A share of a negative rest would be a time before the deadline was missed."""
    late = Deadline(asyncio.get_running_loop().time() - 5)
    with pytest.raises(TimeoutError):
        async with late.part(0.5):
            await asyncio.Event().wait()


async def test_dropped_items_have_a_series_from_the_start() -> None:
    """A rate over a series that appears late misses its first step."""
    metrics = Metrics()
    metrics.queue("ranking")
    assert 'sojourn_batch_dropped_total{queue="ranking"} 0.0' in metrics.render()[0].decode()
