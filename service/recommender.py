"""One recommendation, top to bottom: history, window, candidates, model, fallback, answer."""

import asyncio
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from service.choosing import Choice, choose, seen_by
from service.contract.errors import ContractError
from service.contract.events import UserId
from service.contract.features import (
    UNKNOWN_TIME_MS,
    Int64s,
    Past,
    RequestPoint,
    encode_window,
)
from service.errors import ServiceError
from service.fallback import Rung, climb, local_hour, repeats
from service.filters import Asked
from service.logs import get_logger
from service.metrics import Metrics
from service.recommendation import (
    DEGRADED_ALL_SEEN,
    DEGRADED_MODEL,
    DEGRADED_REDIS,
    Recommendation,
    RecommendationQuery,
    RecommendedItem,
)
from service.serving_model import ModelSource, Ranked, RankJob, ServingModel
from service.store.history import History
from service.windows import WEIGHT_OF_CODE, build_window, merge_pasts, past_of_events

Clock = Callable[[], int]
EMPTY_PAST = past_of_events(())


class HistoryReader(Protocol):
    """Reads what a user did; raises StoreUnavailable."""

    async def read(self, user_id: UserId) -> History:
        """Return all that is stored of a user, an empty history of a user unknown."""
        ...


@dataclass(frozen=True, slots=True)
class _Case:
    """All that a ranking goes by; `items` are the past's item indices, 0 where unknown."""

    model: ServingModel
    past: Past
    items: Int64s
    point: RequestPoint
    choice: Choice
    k: int


class Recommender:
    """Answers recommendation requests from the model of the moment and users' live histories."""

    def __init__(
        self,
        *,
        models: ModelSource,
        history: HistoryReader,
        metrics: Metrics,
        clock: Clock,
        default_tz_offset_min: int,
        deadline_ms: int,
    ) -> None:
        self._models = models
        self._history = history
        self._metrics = metrics
        self._clock = clock
        self._default_tz_offset_min = default_tz_offset_min
        self._deadline_s = deadline_ms / 1000
        self._log = get_logger(__name__)

    async def recommend(self, query: RecommendationQuery) -> Recommendation:
        """Return the list for a request; it is empty only if nothing may be shown."""
        # One model from here to the answer: a switch meanwhile is for the next request.
        with self._models.lease() as model:
            return await self._recommend(model, query)

    async def _recommend(self, model: ServingModel, query: RecommendationQuery) -> Recommendation:
        degraded: list[str] = []
        stored = await self._read_history(query.user_id, degraded)
        case = self._case(model, query, stored)
        if case.choice.all_seen:
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

    def _case(
        self, model: ServingModel, query: RecommendationQuery, stored: History | None
    ) -> _Case:
        """Return all that the ranking goes by, in the indices of the model's bundle."""
        bundle = model.bundle
        kept: Past = EMPTY_PAST if stored is None else stored
        past = merge_pasts(kept, past_of_events(query.events))
        items = bundle.vocabulary.indices(past.item_ids)
        asked = self._asked(query, past)
        choice = choose(bundle, query, seen_by(bundle, query, past, items, stored), asked)
        return _Case(model, past, items, _request_point(model, query, asked), choice, query.k)

    def _asked(self, query: RecommendationQuery, past: Past) -> Asked:
        """Return when, with the local offset of the request, else of the last event."""
        offset = query.tz_offset_min
        if offset is None:
            # Histories keep an unknown offset as 0.
            last = int(past.tz_offsets_min[-1]) if len(past) else 0
            offset = last or self._default_tz_offset_min
        return Asked(self._clock() if query.now_ms is None else query.now_ms, offset)

    async def _rank(self, case: _Case, degraded: list[str]) -> Ranked:
        """Return the model's best k, nothing if it has nothing to go by or fails."""
        if not case.items.any() or not len(case.choice.known.indices):
            return []
        features = case.model.bundle.manifest.features
        time_ms = case.point.time_ms if features.uses_request_time else UNKNOWN_TIME_MS
        point = replace(case.point, time_ms=time_ms)
        window = build_window(case.past, case.items, case.model.bundle.type_indices)
        try:
            arrays = encode_window(window, point, features.window_len)
            async with asyncio.timeout(self._deadline_s):
                return await case.model.ranking.submit(RankJob(arrays, case.choice.known, case.k))
        except (ContractError, TimeoutError) as exc:
            self._log.error("model gave no ranking", error=str(exc) or type(exc).__name__)
            degraded.append(DEGRADED_MODEL)
            return []

    def _climb(self, case: _Case) -> Ranked:
        """Return the best k of the ladder: own repeats, popular now or at this hour, or ever."""
        hour = local_hour(case.point.time_ms, case.point.tz_offset_min)
        bundle, live = case.model.bundle, case.model.live
        now = Rung("popular", live.current)
        at_hour = Rung("popular", bundle.popularity.at_hour(hour))
        rungs = [
            Rung("repeat", repeats(case.items, WEIGHT_OF_CODE[case.past.event_types])),
            *([now, at_hour] if live.says_enough else [at_hour, now]),
            Rung("popular", bundle.popularity.overall),
        ]
        return climb(rungs, case.choice.known.indices, case.k, len(bundle.vocabulary))

    def _answer(self, picks: Ranked, case: _Case, degraded: Sequence[str]) -> Recommendation:
        vocabulary, titles = case.model.bundle.vocabulary, case.model.bundle.titles
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
            model_version=case.model.version,
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


def _request_point(model: ServingModel, query: RecommendationQuery, asked: Asked) -> RequestPoint:
    """Return when and where, as the bundle reads it."""
    # The hours that a bundle without offsets was trained on are UTC; local ones would be other
    # hours.
    knows = model.bundle.manifest.features.knows_offsets
    return RequestPoint(
        time_ms=asked.time_ms,
        tz_offset_min=asked.tz_offset_min if knows else 0,
        lat=np.nan if query.lat is None else query.lat,
        lon=np.nan if query.lon is None else query.lon,
    )


def _fallback_reason(answer: Recommendation) -> str:
    if answer.degraded:
        return answer.degraded[-1]
    return {"new": "unknown-candidates", None: "all-excluded"}.get(answer.source, "no-history")
