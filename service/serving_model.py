"""The model that a request uses from its start to its end, and how one follows another."""

import asyncio
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, AsyncExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol

from service.batcher import Batcher
from service.bundle_loader import LoadedBundle
from service.config import Settings
from service.contract.errors import ContractError, InvalidField
from service.fallback import LivePopularity, Pick
from service.metrics import Metrics
from service.ranker import AtPoint, Encoded, Ranker, Wanted
from service.readings import Readings
from service.text_match import TextMatch, TextQuery
from service.text_vectors import TextVectors
from service.turns import Turns

BYTES_PER_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class RankJob:
    """What a ranking needs: of what window, what may be found, and by whom.

    What the encoder says of the window may be known already. The ranker is the one of the request's
    view: items may be put while the job waits. `match` are words that the items are to match.
    """

    of: AtPoint | Encoded
    wanted: Wanted
    ranker: Ranker
    match: TextMatch | None = None


class Ranked(NamedTuple):
    """The best of one window, and what the encoder says of it, whatever the request's words."""

    picks: list[Pick]
    encoded: Encoded


class Ranking(Protocol):
    """Ranks what one window may be answered with, in a batch with whoever asks at the same time."""

    async def submit(self, item: RankJob) -> Ranked:
        """Return the best k of the job; raises ContractError, Overloaded or NotReady."""
        ...


@dataclass(frozen=True, slots=True)
class ServingModel:
    """Everything of a request that a bundle decides.

    Item indices mean something only within one bundle, so all that holds indices is here: taken
    apart, a ranking of one model could be read with the vocabulary of another. `turns` are for what
    takes long, as explanations do; `texts` is None of a bundle without a text encoder.
    """

    bundle: LoadedBundle
    ranking: Ranking
    live: LivePopularity
    readings: Readings
    turns: Turns
    texts: TextVectors | None = None

    @property
    def version(self) -> str:
        """Return the bundle's version."""
        return self.bundle.manifest.bundle_version

    async def match(self, query: TextQuery) -> TextMatch:
        """Return what a request's words match.

        Raises InvalidField of a bundle that reads no texts, ContractError if its encoder fails, and
        Overloaded or NotReady.
        """
        if self.texts is None:
            fix = (
                f"needs a bundle with a text encoder, and {self.version}, which is served, has "
                "none: leave `query` out, or export a bundle from a run with a [text] section"
            )
            raise InvalidField("query", query.text, fix)
        return TextMatch.of(await self.texts.of(query.text), query.weight)


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
        live, readings = model.live, model.readings
        if bundle.vocabulary is not model.bundle.vocabulary:
            live = live.for_vocabulary(bundle.vocabulary)
            readings = readings.for_vocabulary(bundle.vocabulary)
        self._tenure.model = replace(model, bundle=bundle, live=live, readings=readings)

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
    """Return a model that ranks in batches, and what ends it."""
    resources = AsyncExitStack()
    rankings = Rankings()
    resources.push_async_callback(rankings.close)
    batcher: Batcher[RankJob, Ranked | ContractError] = Batcher(
        "ranker",
        rankings.rank,
        max_batch=settings.max_batch,
        max_pending=settings.max_pending,
        metrics=metrics,
    )
    resources.push_async_callback(batcher.close)
    readings = Readings(bundle.vocabulary, metrics, settings.kept_readings_mib * BYTES_PER_MIB)
    texts = None
    if bundle.text_encoder is not None:
        texts = TextVectors(bundle.text_encoder, metrics, max_pending=settings.max_pending)
        resources.push_async_callback(texts.close)
    turns = Turns("explain", metrics, max_pending=settings.max_pending)
    resources.push_async_callback(turns.close)
    ranking = BatchedRanking(batcher)
    return ServingModel(bundle, ranking, live, readings, turns, texts), resources


class BatchedRanking:
    """A ranking whose jobs wait for each other; what fails one job fails no other."""

    def __init__(self, batcher: Batcher[RankJob, Ranked | ContractError]) -> None:
        self._batcher = batcher

    async def submit(self, item: RankJob) -> Ranked:
        """Return the best k of the job; raises ContractError, Overloaded or NotReady."""
        result = await self._batcher.submit(item)
        if isinstance(result, ContractError):
            raise result
        return result


class Rankings:
    """Ranks batches of jobs: on the event loop where that is short, else on a thread of its own.

    A hop to a thread and back costs more than ranking a small catalogue does, and the two would
    take the interpreter from each other; a large catalogue would keep other requests waiting.
    """

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ranker")

    async def rank(self, jobs: list[RankJob]) -> list[Ranked | ContractError]:
        """Return each job's best k by the model, or why there are none."""
        if all(job.ranker.is_short(job.wanted) for job in jobs):
            return rank_jobs(jobs)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, rank_jobs, jobs)

    async def close(self) -> None:
        """Let a running batch finish and end the thread."""
        # Not here: a batch that outlasts its callers' patience would stop the loop for others.
        await asyncio.to_thread(self._executor.shutdown)


def rank_jobs(jobs: Sequence[RankJob]) -> list[Ranked | ContractError]:
    """Score jobs, those of one ranker in one batch, and cut each to its k."""
    places: dict[Ranker, list[int]] = {}
    for place, job in enumerate(jobs):
        places.setdefault(job.ranker, []).append(place)
    ranked: dict[int, Ranked | ContractError] = {}
    for ranker, own in places.items():
        results = _rank_apart(ranker, [jobs[at] for at in own])
        ranked |= zip(own, results, strict=True)
    return [ranked[place] for place in range(len(jobs))]


def _rank_apart(ranker: Ranker, jobs: Sequence[RankJob]) -> list[Ranked | ContractError]:
    """Rank a batch; if that fails, each job by itself, so that only the wrong ones fail."""
    try:
        return list(_rank_batch(ranker, jobs))
    except ContractError as exc:
        if len(jobs) == 1:
            return [exc]
    return [result for job in jobs for result in _rank_apart(ranker, [job])]


def _rank_batch(ranker: Ranker, jobs: Sequence[RankJob]) -> list[Ranked]:
    windows = [job.of for job in jobs if isinstance(job.of, AtPoint)]
    new = iter(ranker.encode_at(windows) if windows else ())
    encoded = [next(new) if isinstance(job.of, AtPoint) else job.of for job in jobs]
    sought = [
        of_window if job.match is None else job.match.blended(of_window)
        for of_window, job in zip(encoded, jobs, strict=True)
    ]
    best = ranker.best(list(zip(sought, [job.wanted for job in jobs], strict=True)))
    return [
        Ranked(
            [
                Pick(index, score, "model")
                for index, score in zip(indices.tolist(), scores.tolist(), strict=True)
            ],
            of_window,
        )
        for (indices, scores), of_window in zip(best, encoded, strict=True)
    ]
