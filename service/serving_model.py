"""The model that a request uses from its start to its end, and how one follows another."""

import asyncio
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, AsyncExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Protocol

from service.allowed import Allowed
from service.batcher import Batcher
from service.bundle_loader import LoadedBundle
from service.config import Settings
from service.contract.features import Arrays
from service.fallback import LivePopularity, Pick
from service.metrics import Metrics
from service.ranker import Ranker, RankRequest

Ranked = list[Pick]


@dataclass(frozen=True, slots=True)
class RankJob:
    """What the ranking thread needs: encoder arrays, what is allowed, how many, and by whom.

    The ranker is the one of the request's view: items may be put while the job waits.
    """

    arrays: Arrays
    allowed: Allowed
    k: int
    ranker: Ranker


class Ranking(Protocol):
    """Ranks what one window may be answered with, in a batch with whoever asks at the same time."""

    async def submit(self, item: RankJob) -> Ranked:
        """Return the best k of the job; raises ContractError, Overloaded or NotReady."""
        ...


@dataclass(frozen=True, slots=True)
class ServingModel:
    """Everything of a request that a bundle decides.

    Item indices mean something only within one bundle, so all that holds indices is here: taken
    apart, a ranking of one model could be read with the vocabulary of another.
    """

    bundle: LoadedBundle
    ranking: Ranking
    live: LivePopularity

    @property
    def version(self) -> str:
        """Return the bundle's version."""
        return self.bundle.manifest.bundle_version


class ModelSource(Protocol):
    """Lends the model that is served now."""

    def lease(self) -> AbstractContextManager[ServingModel]:
        """Return the model for one request; it stays whole until the context ends."""
        ...


@dataclass(slots=True)
class _Tenure:
    """A model's time of service: what ends it, and how many requests still use it."""

    model: ServingModel
    resources: AsyncExitStack
    num_leases: int = 0
    is_over: bool = False
    unused: asyncio.Event = field(default_factory=asyncio.Event)

    def give_back(self) -> None:
        """End one lease; after the last one of a model that was replaced, say that it is unused."""
        self.num_leases -= 1
        self._tell()

    def end(self) -> None:
        """Note that nobody will lease the model any more."""
        self.is_over = True
        self._tell()

    def _tell(self) -> None:
        if self.is_over and not self.num_leases:
            self.unused.set()


class ModelSlot:
    """Holds the model that is served; a request keeps the one it began with. For one loop."""

    def __init__(self, model: ServingModel, resources: AsyncExitStack) -> None:
        self._tenure = _Tenure(model, resources)
        self._retiring: set[asyncio.Task[None]] = set()

    @property
    def current(self) -> ServingModel:
        """Return the model that the next request gets."""
        return self._tenure.model

    @contextmanager
    def lease(self) -> Iterator[ServingModel]:
        """Return the model for one request; what replaces it meanwhile is for later ones."""
        tenure = self._tenure
        tenure.num_leases += 1
        try:
            yield tenure.model
        finally:
            tenure.give_back()

    def put(self, model: ServingModel, resources: AsyncExitStack) -> None:
        """Serve this model from now on; the old one's resources end after its last request."""
        old, self._tenure = self._tenure, _Tenure(model, resources)
        retiring = asyncio.create_task(_retire(old))
        self._retiring.add(retiring)
        retiring.add_done_callback(self._retiring.discard)

    def renew(self, bundle: LoadedBundle) -> None:
        """Serve another view of the same model from the next request on."""
        model = self._tenure.model
        live = model.live
        if bundle.vocabulary is not model.bundle.vocabulary:
            live = live.for_vocabulary(bundle.vocabulary)
        self._tenure.model = replace(model, bundle=bundle, live=live)

    async def close(self) -> None:
        """End the resources of every model, the last one included."""
        await asyncio.gather(*self._retiring, _retire(self._tenure))


async def _retire(tenure: _Tenure) -> None:
    tenure.end()
    await tenure.unused.wait()
    await tenure.resources.aclose()


def open_model(
    bundle: LoadedBundle, live: LivePopularity, settings: Settings, metrics: Metrics
) -> tuple[ServingModel, AsyncExitStack]:
    """Return a model that ranks in batches on a thread of its own, and what ends both."""
    resources = AsyncExitStack()
    thread = RankingThread()
    resources.push_async_callback(thread.close)
    ranking: Batcher[RankJob, Ranked] = Batcher(
        "ranker",
        thread.rank,
        max_batch=settings.max_batch,
        max_pending=settings.max_pending,
        metrics=metrics,
    )
    resources.push_async_callback(ranking.close)
    return ServingModel(bundle, ranking, live), resources


class RankingThread:
    """Ranks batches of jobs on one thread of its own, so that the event loop never waits."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ranker")

    async def rank(self, jobs: list[RankJob]) -> list[Ranked]:
        """Return each job's best k by the model."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, rank_jobs, jobs)

    async def close(self) -> None:
        """Let a running batch finish and end the thread."""
        # Not here: a batch that outlasts its callers' patience would stop the loop for others.
        await asyncio.to_thread(self._executor.shutdown)


def rank_jobs(jobs: Sequence[RankJob]) -> list[Ranked]:
    """Score jobs, those of one ranker in one batch, and cut each to its k."""
    places: dict[Ranker, list[int]] = {}
    for place, job in enumerate(jobs):
        places.setdefault(job.ranker, []).append(place)
    ranked: list[Ranked] = [[] for _ in jobs]
    for ranker, own in places.items():
        for place, picks in zip(own, _rank_batch(ranker, [jobs[at] for at in own]), strict=True):
            ranked[place] = picks
    return ranked


def _rank_batch(ranker: Ranker, jobs: Sequence[RankJob]) -> list[Ranked]:
    requests = [RankRequest(job.arrays, job.allowed, job.k) for job in jobs]
    return [
        [
            Pick(index, score, "model")
            for index, score in zip(best.tolist(), scores.tolist(), strict=True)
        ]
        for best, scores in ranker.rank(requests)
    ]
