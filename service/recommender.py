"""One recommendation, top to bottom: history, window, candidates, model, fallback, answer."""

import asyncio
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from service.bundle_loader import LoadedBundle
from service.contract.errors import ContractError
from service.contract.events import EVENT_TYPE_CODES, EVENT_TYPES, Event, ItemId, UserId
from service.contract.features import (
    UNKNOWN_TIME_MS,
    Arrays,
    Int64s,
    Past,
    RequestPoint,
    encode_window,
)
from service.contract.vocabulary import item_hash
from service.errors import ServiceError
from service.fallback import LivePopularity, Pick, Rung, Source, climb, local_hour, repeats
from service.filters import Asked, Filter, matching
from service.logs import get_logger
from service.metrics import Metrics
from service.ordering import top_k, without
from service.ranker import Ranker, ScoreRequest
from service.retrieval import Candidates, known_indices, retrieve
from service.store.history import History
from service.windows import (
    WEIGHT_OF_CODE,
    build_window,
    merge_pasts,
    past_of_events,
)

# The values of `exclude_seen` that are not lists of event types.
ALL_TYPES = EVENT_TYPES
NO_TYPES: tuple[str, ...] = ()

DEGRADED_REDIS = "redis"
DEGRADED_MODEL = "model"
DEGRADED_ALL_SEEN = "all-seen"

Clock = Callable[[], int]
EMPTY_PAST = past_of_events(())


class HistoryReader(Protocol):
    """Reads what a user did; raises StoreUnavailable."""

    async def read(self, user_id: UserId) -> History:
        """Return all that is stored of a user, an empty history of a user unknown."""
        ...


Ranked = list[Pick]


class Ranking(Protocol):
    """Ranks one window's candidates, in a batch with whoever asks at the same time."""

    async def submit(self, item: "RankJob") -> Ranked:
        """Return the best k of the job; raises ContractError, Overloaded or NotReady."""
        ...


@dataclass(frozen=True, slots=True)
class RankJob:
    """What the ranking thread needs: encoder arrays, candidates, and how many to return."""

    arrays: Arrays
    candidates: Candidates
    k: int


@dataclass(frozen=True, slots=True)
class RecommendationQuery:
    """What was asked. None stands for "not said", except that `user_id` None is anonymous.

    `exclude_seen` holds the event types that count as seen; () excludes nothing.
    """

    k: int
    user_id: UserId | None = None
    events: tuple[Event, ...] = ()
    now_ms: int | None = None
    tz_offset_min: int | None = None
    lat: float | None = None
    lon: float | None = None
    candidates: tuple[ItemId, ...] | None = None
    exclude: frozenset[str] = frozenset()
    exclude_seen: tuple[str, ...] | None = None
    filter: Filter | None = None


@dataclass(frozen=True, slots=True)
class RecommendedItem:
    """One item of an answer; `rank` orders it, scores compare only within source "model"."""

    item_id: str
    score: float
    rank: int
    source: Source
    title: str | None


@dataclass(frozen=True, slots=True)
class Recommendation:
    """The answer; `degraded` names what was missing, `source` is the first item's."""

    recommendation_id: str
    model_version: str
    items: tuple[RecommendedItem, ...]
    degraded: tuple[str, ...]
    unknown_candidates: tuple[str, ...]

    @property
    def source(self) -> Source | None:
        """Return where the first item came from, None of an empty answer."""
        return self.items[0].source if self.items else None


@dataclass(frozen=True, slots=True)
class _Choice:
    """What may be shown: known items, and unknown candidates in the caller's order.

    `all_seen` says that only seen items were left, so that seeing was not held against them.
    """

    known: Candidates
    unknown: tuple[str, ...]
    all_seen: bool


@dataclass(frozen=True, slots=True)
class _Seen:
    """What the user has seen by the request's rule: item indices, and hashes of any id."""

    indices: Int64s
    hashes: frozenset[int]


@dataclass(frozen=True, slots=True)
class _Case:
    """All that a ranking goes by; `items` are the past's item indices, 0 where unknown."""

    past: Past
    items: Int64s
    point: RequestPoint
    choice: _Choice
    k: int


class Recommender:
    """Answers recommendation requests from one bundle and the users' live histories."""

    def __init__(
        self,
        *,
        bundle: LoadedBundle,
        history: HistoryReader,
        ranking: Ranking,
        live: LivePopularity,
        metrics: Metrics,
        clock: Clock,
        default_tz_offset_min: int,
        deadline_ms: int,
    ) -> None:
        self._bundle = bundle
        self._history = history
        self._ranking = ranking
        self._live = live
        self._metrics = metrics
        self._clock = clock
        self._default_tz_offset_min = default_tz_offset_min
        self._deadline_s = deadline_ms / 1000
        self._log = get_logger(__name__)

    async def recommend(self, query: RecommendationQuery) -> Recommendation:
        """Return the list for a request; it is empty only if nothing may be shown."""
        degraded: list[str] = []
        stored = await self._read_history(query.user_id, degraded)
        kept: Past = EMPTY_PAST if stored is None else stored
        past = merge_pasts(kept, past_of_events(query.events))
        items = self._bundle.vocabulary.indices(past.item_ids)
        asked = self._asked(query, past)
        choice = self._choose(query, self._seen(query, past, items, stored), asked)
        case = _Case(past, items, self._request_point(query, asked), choice, query.k)
        if choice.all_seen:
            degraded.append(DEGRADED_ALL_SEEN)
            picks = self._climb(case)
        else:
            picks = await self._rank(case, degraded) or self._climb(case)
        return self._answer(picks, case, degraded)

    async def _read_history(self, user_id: UserId | None, degraded: list[str]) -> History | None:
        """Return the stored history, or None, noted as degraded, while the store cannot say."""
        if user_id is None:
            return None
        try:
            return await self._history.read(user_id)
        except ServiceError as exc:
            self._log.warning("history not read", error=str(exc), user_id=user_id)
            degraded.append(DEGRADED_REDIS)
            return None

    def _asked(self, query: RecommendationQuery, past: Past) -> Asked:
        """Return when, with the local offset of the request, else of the last event."""
        offset = query.tz_offset_min
        if offset is None:
            # Histories keep an unknown offset as 0.
            last = int(past.tz_offsets_min[-1]) if len(past) else 0
            offset = last or self._default_tz_offset_min
        return Asked(self._clock() if query.now_ms is None else query.now_ms, offset)

    def _request_point(self, query: RecommendationQuery, asked: Asked) -> RequestPoint:
        """Return when and where, as the bundle reads it."""
        # The hours that a bundle without offsets was trained on are UTC; local ones would be other
        # hours.
        knows = self._bundle.manifest.features.knows_offsets
        return RequestPoint(
            time_ms=asked.time_ms,
            tz_offset_min=asked.tz_offset_min if knows else 0,
            lat=np.nan if query.lat is None else query.lat,
            lon=np.nan if query.lon is None else query.lon,
        )

    def _choose(self, query: RecommendationQuery, seen: _Seen, asked: Asked) -> _Choice:
        """Return what may be shown; everything is left out here, before the best k are taken."""
        vocabulary = self._bundle.vocabulary
        candidates = retrieve(vocabulary, query.candidates)
        excluded = known_indices(vocabulary, query.exclude)
        allowed = without(candidates.indices, excluded, len(vocabulary))
        strangers = tuple(text for text in candidates.unknown if text not in query.exclude)
        if query.filter is not None:
            fits = matching(query.filter, self._bundle.columns, asked)
            allowed = allowed[fits[allowed]]
            # Element 0 is an item of which nothing is known, which a stranger is.
            strangers = strangers if fits[0] else ()
        unseen = without(allowed, seen.indices, len(vocabulary))
        new = tuple(text for text in strangers if item_hash(text) not in seen.hashes)
        all_seen = bool(len(allowed) or strangers) and not (len(unseen) or new)
        known = Candidates(
            allowed if all_seen else unseen, candidates.unknown, candidates.is_catalogue
        )
        return _Choice(known, strangers if all_seen else new, all_seen)

    def _seen(
        self, query: RecommendationQuery, past: Past, items: Int64s, stored: History | None
    ) -> _Seen:
        """Return what counts as seen: by events of the past, and by those that left the history."""
        types = query.exclude_seen
        if types is None:
            types = ALL_TYPES if self._bundle.manifest.exclude_seen == "all" else NO_TYPES
        codes = [EVENT_TYPE_CODES[name] for name in types]
        counts = np.isin(past.event_types, codes)
        left = np.zeros(0, np.uint64)
        if stored is not None:
            left = stored.seen_hashes[np.isin(stored.seen_types, codes)]
        indices = np.concatenate(
            [items[counts & (items > 0)], self._bundle.hash_index.indices(left)]
        )
        if query.candidates is None:
            # Only a list of candidates can hold unknown ids, so only then are hashes looked at.
            return _Seen(indices, frozenset())
        ids = (past.item_ids[place] for place in np.flatnonzero(counts).tolist())
        return _Seen(indices, frozenset(left.tolist()) | {item_hash(item_id) for item_id in ids})

    async def _rank(self, case: _Case, degraded: list[str]) -> Ranked:
        """Return the model's best k, nothing if it has nothing to go by or fails."""
        if not case.items.any() or not len(case.choice.known.indices):
            return []
        features = self._bundle.manifest.features
        time_ms = case.point.time_ms if features.uses_request_time else UNKNOWN_TIME_MS
        point = replace(case.point, time_ms=time_ms)
        window = build_window(case.past, case.items, self._bundle.type_indices)
        try:
            arrays = encode_window(window, point, features.window_len)
            async with asyncio.timeout(self._deadline_s):
                return await self._ranking.submit(RankJob(arrays, case.choice.known, case.k))
        except (ContractError, TimeoutError) as exc:
            self._log.error("model gave no ranking", error=str(exc) or type(exc).__name__)
            degraded.append(DEGRADED_MODEL)
            return []

    def _climb(self, case: _Case) -> Ranked:
        """Return the best k of the ladder: own repeats, popular now or at this hour, or ever."""
        hour = local_hour(case.point.time_ms, case.point.tz_offset_min)
        popularity = self._bundle.popularity
        live = Rung("popular", self._live.current)
        at_hour = Rung("popular", popularity.at_hour(hour))
        rungs = [
            Rung("repeat", repeats(case.items, WEIGHT_OF_CODE[case.past.event_types])),
            *([live, at_hour] if self._live.says_enough else [at_hour, live]),
            Rung("popular", popularity.overall),
        ]
        return climb(rungs, case.choice.known.indices, case.k, len(self._bundle.vocabulary))

    def _answer(self, picks: Ranked, case: _Case, degraded: Sequence[str]) -> Recommendation:
        vocabulary, titles = self._bundle.vocabulary, self._bundle.titles
        items = [
            RecommendedItem(
                vocabulary.id(pick.index), pick.score, rank, pick.source, titles[pick.index]
            )
            for rank, pick in enumerate(picks, start=1)
        ]
        room = case.k - len(items)
        items += [
            RecommendedItem(item_id, 0.0, rank, "new", None)
            for rank, item_id in enumerate(case.choice.unknown[:room], start=len(items) + 1)
        ]
        answer = Recommendation(
            recommendation_id=uuid.uuid4().hex,
            model_version=self._bundle.manifest.bundle_version,
            items=tuple(items),
            degraded=tuple(degraded),
            unknown_candidates=case.choice.known.unknown,
        )
        self._count(answer)
        return answer

    def _count(self, answer: Recommendation) -> None:
        source = answer.source or "none"
        self._metrics.recommendations.labels(source).inc()
        if source != "model":
            self._metrics.fallbacks.labels(source, _fallback_reason(answer)).inc()


def _fallback_reason(answer: Recommendation) -> str:
    if answer.degraded:
        return answer.degraded[-1]
    return {"new": "unknown-candidates", None: "all-excluded"}.get(answer.source, "no-history")


class RankingThread:
    """Ranks batches of jobs on one thread of its own, so that the event loop never waits."""

    def __init__(self, ranker: Ranker) -> None:
        self._ranker = ranker
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ranker")

    async def rank(self, jobs: list[RankJob]) -> list[Ranked]:
        """Return each job's best k by the model."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, rank_jobs, self._ranker, jobs)

    def close(self) -> None:
        """Let a running batch finish and end the thread."""
        self._executor.shutdown()


def rank_jobs(ranker: Ranker, jobs: Sequence[RankJob]) -> list[Ranked]:
    """Score jobs in one batch and cut each to its k."""
    requests = [
        ScoreRequest(job.arrays, None if job.candidates.is_catalogue else job.candidates.indices)
        for job in jobs
    ]
    ranked = []
    for job, scores in zip(jobs, ranker.score(requests), strict=True):
        indices = job.candidates.indices
        own = scores[indices] if job.candidates.is_catalogue else scores
        best, best_scores = top_k(indices, own, job.k)
        pairs = zip(best.tolist(), best_scores.tolist(), strict=True)
        ranked.append([Pick(index, score, "model") for index, score in pairs])
    return ranked
