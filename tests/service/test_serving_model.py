import asyncio
import gc
import threading
import weakref
from contextlib import AsyncExitStack
from pathlib import Path

from service.bundle_loader import LoadedBundle, load_bundle
from service.config import Settings
from service.contract.events import UserId
from service.fallback import LivePopularity
from service.metrics import Metrics
from service.recommendation import RecommendationQuery
from service.serving_model import ModelSlot, Ranked, RankJob, ServingModel, open_model
from tests.builders import ITEM_ROWS, event, make_bundle
from tests.fakes import FakeClock, FakeCounters, FakeHistory
from tests.recommenders import NOTHING_RANKED, model_of, recommender_on


class HeldRanking:
    """A ranking that answers, with nothing, once it is let go."""

    def __init__(self) -> None:
        self.began, self.go = asyncio.Event(), asyncio.Event()

    async def submit(self, item: RankJob) -> Ranked:
        """Wait to be let go."""
        self.began.set()
        await self.go.wait()
        return NOTHING_RANKED


def popularity(bundle: LoadedBundle) -> LivePopularity:
    """Return live popularity of nothing."""
    return LivePopularity(FakeCounters(), bundle.vocabulary, FakeClock())


def opened(bundle: LoadedBundle) -> tuple[ServingModel, AsyncExitStack]:
    """Return a model with its thread."""
    return open_model(bundle, popularity(bundle), Settings(), Metrics())


async def test_a_request_ends_on_the_model_it_began_with(
    tmp_path: Path, bundle: LoadedBundle, history: FakeHistory
) -> None:
    """The other bundle counts the items from the other end: it would name another one."""
    reversed_rows = dict(reversed([*ITEM_ROWS.items()]))
    other = load_bundle(make_bundle(tmp_path, item_rows=reversed_rows))
    ranking = HeldRanking()
    closed: list[str] = []
    resources = AsyncExitStack()
    resources.callback(closed.append, "old")
    slot = ModelSlot(model_of(bundle, ranking), resources)
    recommender = recommender_on(slot, history)
    await history.append([event(item_id="night-1")])
    query = RecommendationQuery(k=1, user_id=UserId("anna"))
    request = asyncio.create_task(recommender.recommend(query))
    await ranking.began.wait()
    slot.put(*opened(other))
    during, closed_during = await recommender.recommend(query), list(closed)
    ranking.go.set()
    answer = await request
    await slot.close()
    assert (answer.model_version, answer.items[0].item_id) == (
        bundle.manifest.bundle_version,
        "night-1",
    )
    assert during.model_version == other.manifest.bundle_version
    assert (closed_during, closed) == ([], ["old"])


async def test_what_a_replaced_model_held_is_let_go(tmp_path: Path, bundle: LoadedBundle) -> None:
    """Its session and its map of the matrix are most of a process's memory."""
    old = load_bundle(make_bundle(tmp_path))
    held: list[weakref.ReferenceType[object]]
    held = [weakref.ref(old.ranker), weakref.ref(old.item_matrix), weakref.ref(old.vocabulary)]
    slot = ModelSlot(*opened(old))
    del old
    with slot.lease():
        slot.put(*opened(bundle))
        assert all(reference() is not None for reference in held)
    await slot.close()
    gc.collect()
    assert [reference() for reference in held] == [None, None, None]
    assert not [one for one in threading.enumerate() if one.name.startswith("ranker")]
