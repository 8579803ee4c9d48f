import asyncio
from contextlib import AsyncExitStack

import pytest

from service.bundle_loader import LoadedBundle
from service.contract.events import ItemId, UserId
from service.errors import NotReady, Overloaded, ServiceError
from service.metrics import Metrics
from service.recommendation import RecommendationQuery
from service.recommender import Recommender
from service.serving_model import ModelSlot, Ranked, Ranking, RankJob
from tests.builders import event
from tests.fakes import FakeHistory
from tests.recommenders import model_of, recommender_on

ANNA = RecommendationQuery(k=2, user_id=UserId("anna"))


class StuckRanking:
    """A ranking that never ends."""

    async def submit(self, item: RankJob) -> Ranked:
        """Wait for ever."""
        never: asyncio.Future[Ranked] = asyncio.get_running_loop().create_future()
        return await never


class RefusingRanking:
    """A ranking that raises what it was given."""

    def __init__(self, error: ServiceError) -> None:
        self._error = error

    async def submit(self, item: RankJob) -> Ranked:
        """Raise the error."""
        raise self._error


def recommender_of(
    bundle: LoadedBundle, ranking: Ranking, history: FakeHistory, metrics: Metrics | None = None
) -> Recommender:
    """Return a recommender whose deadline is a millisecond."""
    models = ModelSlot(model_of(bundle, ranking), AsyncExitStack())
    return recommender_on(models, history, metrics=metrics, deadline_ms=1)


async def test_a_model_past_the_deadline_is_not_waited_for(
    bundle: LoadedBundle, history: FakeHistory
) -> None:
    """A late list is worth less than one from the ladder."""
    await history.append([event(item_id="night-1")])
    answer = await recommender_of(bundle, StuckRanking(), history).recommend(ANNA)
    assert (answer.source, answer.degraded) == ("repeat", ("model",))


@pytest.mark.parametrize("error", [Overloaded("full"), NotReady("stopping")])
async def test_an_overloaded_service_says_so_instead_of_working_on(
    bundle: LoadedBundle, history: FakeHistory, error: ServiceError
) -> None:
    """Fallbacks for everybody would keep it overloaded; another process may be free."""
    await history.append([event()])
    with pytest.raises(type(error)):
        await recommender_of(bundle, RefusingRanking(error), history).recommend(ANNA)


async def test_a_disliked_item_is_no_repeat(bundle: LoadedBundle, history: FakeHistory) -> None:
    """The weights of event types have a sign."""
    await history.append(
        [
            event(event_id="1", item_id="night-1", event_type="dislike"),
            event(event_id="2", item_id="drama-2", event_type="view"),
        ]
    )
    answer = await recommender_of(bundle, StuckRanking(), history).recommend(ANNA)
    assert [(item.item_id, item.source) for item in answer.items] == [
        ("drama-2", "repeat"),
        ("action-2", "popular"),
    ]


@pytest.mark.parametrize(
    ("query", "labels"),
    [
        (RecommendationQuery(k=1), 'reason="no-history",source="popular"'),
        (
            RecommendationQuery(k=1, candidates=(ItemId("z"),)),
            'reason="unknown-candidates",source="new"',
        ),
        (
            RecommendationQuery(k=1, candidates=(ItemId("z"),), exclude=frozenset({"z"})),
            'reason="all-excluded",source="none"',
        ),
    ],
)
async def test_fallbacks_are_counted_by_source_and_reason(
    bundle: LoadedBundle, history: FakeHistory, query: RecommendationQuery, labels: str
) -> None:
    """An operator sees why the model was not asked."""
    metrics = Metrics()
    await recommender_of(bundle, StuckRanking(), history, metrics).recommend(query)
    assert f"sojourn_fallbacks_total{{{labels}}} 1.0" in metrics.render()[0].decode()
