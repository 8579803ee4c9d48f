"""One recommendation, top to bottom: history, window, candidates, model, fallback, list, answer."""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Protocol

import numpy as np

from service.allowed import Allowed, Only
from service.answering import MAX_LIST, Answers, Explained
from service.cases import Case, as_recommendation, encoder_point, request_point, seen_of, window_of
from service.choosing import Deeds, choose, ids_seen_by
from service.contract.errors import ContractError, InvalidField
from service.contract.events import UserId
from service.contract.features import Int64s
from service.deadline import Deadline
from service.errors import ServiceError, StoreUnavailable
from service.explaining import Explainer
from service.fallback import Pick, Rung, climb, local_hour, nearby, repeats
from service.filters import Asked
from service.listing import Listed, list_picks, pool_size, with_included
from service.logs import get_logger
from service.onboarding import examples_of, likes_at
from service.ranker import AtPoint, Wanted
from service.readings import Reading
from service.recommendation import (
    DEGRADED_ALL_SEEN,
    DEGRADED_MODEL,
    DEGRADED_REDIS,
    DEGRADED_TEXT,
    PageQuery,
    RankQuery,
    Recommendation,
    RecommendationQuery,
)
from service.reranking import Basis, rerank
from service.serving_model import ModelSource, RankJob, ServingModel
from service.store.exposures import Shown
from service.store.history import PackedHistory
from service.text_match import TextMatch, TextQuery
from service.windows import WEIGHT_OF_CODE, merge_pasts, past_of_events

Clock = Callable[[], int]
MAX_ON_LOOP = 50_000
EMPTY_PAST = past_of_events(())
NO_ITEMS: Int64s = np.zeros(0, np.int64)
NOTHING_SHOWN = Shown.nothing()
# Of the time that remains, so much is for a call of Redis; the rest is for what follows.
REDIS_SHARE = 0.5
# The share of what is left that reading the words of a request may take: taste alone is an answer.
TEXT_SHARE = 0.5


class HistoryReader(Protocol):
    """Reads what a user did; raises StoreUnavailable."""

    async def read_packed(self, user_id: UserId) -> PackedHistory:
        """Return all that is stored of a user, an empty history of a user unknown."""
        ...


class ShowingReader(Protocol):
    """Reads what was shown to a user lately; raises StoreUnavailable."""

    async def shown(self, user_id: UserId) -> Shown:
        """Return the showings that are remembered, nothing of a user unknown."""
        ...


class Recommender:
    """Answers recommendation requests from the model of the moment and users' live histories."""

    def __init__(
        self,
        *,
        models: ModelSource,
        history: HistoryReader,
        showings: ShowingReader,
        answers: Answers,
        clock: Clock,
        default_tz_offset_min: int,
        deadline_ms: int,
        explain_events: int,
    ) -> None:
        self._models = models
        self._history = history
        self._showings = showings
        self._answers = answers
        self._clock = clock
        self._default_tz_offset_min = default_tz_offset_min
        self._deadline_s = deadline_ms / 1000
        self._explainer = Explainer(explain_events)
        self._log = get_logger(__name__)

    async def recommend(self, query: RecommendationQuery) -> Recommendation:
        """Return the list for a request; it is empty only if nothing may be shown."""
        # One model from here to the answer: a switch meanwhile is for the next request.
        with self._models.lease() as model:
            return await self._recommend(model, query)

    async def rank(self, query: RankQuery) -> Recommendation:
        """Return the caller's candidates in the order of the request's blend, all but behind k."""
        with self._models.lease() as model:
            degraded: list[str] = []
            deadline = self._deadline()
            stored = await self._read_history(model, query.user_id, degraded, deadline)
            case = self._case(model, as_recommendation(query), stored, deadline)
            known = case.choice.known
            picks = await self._picks(case, known, len(known), degraded)
            basis = Basis(picks, case.point, case.asked.time_ms)
            items = rerank(model.bundle, query, basis)
            return self._answers.reranked(items, case.choice, model, query, degraded)

    async def page(self, query: PageQuery) -> Recommendation:
        """Return the next page of a list; raises CursorExpired and StoreUnavailable."""
        with self._models.lease() as model:
            try:
                async with self._deadline().whole():
                    return await self._answers.page(query, model)
            except TimeoutError as exc:
                raise StoreUnavailable("Redis did not give the list in time") from exc

    def forget(self, user_ids: Iterable[str]) -> None:
        """Keep nothing of users in memory, as far as this process goes; others do in minutes."""
        with self._models.lease() as model:
            for user_id in user_ids:
                model.readings.forget(UserId(user_id))

    async def _recommend(self, model: ServingModel, query: RecommendationQuery) -> Recommendation:
        degraded: list[str] = []
        deadline = self._deadline()
        stored = await self._read_history(model, query.user_id, degraded, deadline)
        case = self._case(model, query, stored, deadline)
        if query.text is not None:
            match = await self._match(model, query.text, degraded, deadline)
            case = replace(case, match=match)
        if case.choice.all_seen:
            degraded.append(DEGRADED_ALL_SEEN)
        listed = await self._list(case, query, degraded)
        self._answers.observe(case.reading, case.asked, model, listed)
        explanation = None
        if query.explain:
            picks = [one.pick for one in listed[: query.k]]
            explanation = await self._explainer.explain(case, picks, query, degraded)
        return await self._answers.answer(
            listed,
            case.choice,
            model,
            query,
            degraded,
            deadline=deadline,
            explained=Explained(explanation, case.asked) if query.explain else None,
        )

    async def _match(
        self, model: ServingModel, text: TextQuery, degraded: list[str], deadline: Deadline
    ) -> TextMatch | None:
        """Return what words match, None if they could not be read; raises InvalidField."""
        try:
            async with deadline.part(TEXT_SHARE):
                return await model.match(text)
        except InvalidField:
            raise
        except (ContractError, TimeoutError) as exc:
            self._log.error("text of a request not read", error=_said(exc))
            degraded.append(DEGRADED_TEXT)
            return None

    def _deadline(self) -> Deadline:
        return Deadline.of_request(self._deadline_s)

    async def _list(
        self, case: Case, query: RecommendationQuery, degraded: list[str]
    ) -> list[Listed]:
        """Return the known items of the list, as the request wants them arranged."""
        room = max(0, case.k - len(case.choice.guests))
        wanted = query.arrangement
        shown = await self._shown(query, degraded, case.deadline)
        picks = await self._picks(case, case.choice.known, pool_size(case.k, wanted), degraded)
        arranged = partial(
            list_picks,
            case.model.bundle,
            picks,
            room,
            wanted,
            shown=shown,
            now_ms=case.asked.time_ms,
        )
        # Places times pool: a long list takes tens of milliseconds, in which others would wait.
        is_long = not wanted.wants_nothing and room * len(picks) > MAX_ON_LOOP
        listed = await asyncio.to_thread(arranged) if is_long else arranged()
        there = {one.pick.index for one in listed}
        if there.issuperset(case.choice.included.tolist()):
            return listed
        wanted_anyway = Only(case.choice.included)
        included = await self._picks(case, wanted_anyway, len(wanted_anyway), degraded)
        return with_included(listed, included, room)

    async def _picks(
        self, case: Case, allowed: Allowed, depth: int, degraded: list[str]
    ) -> list[Pick]:
        """Return the best of what is allowed: by the model, or else by the ladder."""
        ranked: list[Pick] = []
        if not case.choice.all_seen and DEGRADED_MODEL not in degraded:
            ranked = await self._rank(case, allowed, depth, degraded)
        return ranked or self._climb(case, allowed, depth)

    async def _shown(
        self, query: RecommendationQuery, degraded: list[str], deadline: Deadline
    ) -> Shown:
        """Return what was shown to the user lately, if the request wants to know."""
        if query.arrangement.rotation is None or query.user_id is None:
            return NOTHING_SHOWN
        try:
            async with deadline.part(REDIS_SHARE):
                return await self._showings.shown(query.user_id)
        except (ServiceError, TimeoutError) as exc:
            self._log.warning("showings not read", error=_said(exc), user_id=query.user_id)
            if DEGRADED_REDIS not in degraded:
                degraded.append(DEGRADED_REDIS)
            return NOTHING_SHOWN

    async def _read_history(
        self, model: ServingModel, user_id: UserId | None, degraded: list[str], deadline: Deadline
    ) -> Reading:
        """Return the reading of the stored history, an empty one while the store cannot say."""
        if user_id is None:
            return self._nothing(model)
        try:
            async with deadline.part(REDIS_SHARE):
                packed = await self._history.read_packed(user_id)
            return model.readings.of(user_id, packed)
        except (ServiceError, TimeoutError) as exc:
            self._log.warning("history not read", error=_said(exc), user_id=user_id)
            degraded.append(DEGRADED_REDIS)
            return self._nothing(model)

    @staticmethod
    def _nothing(model: ServingModel) -> Reading:
        """Return what is known of nobody."""
        return model.readings.of_deeds(Deeds(EMPTY_PAST, NO_ITEMS, None))

    def _case(
        self,
        model: ServingModel,
        query: RecommendationQuery,
        reading: Reading,
        deadline: Deadline,
    ) -> Case:
        """Return all that the ranking goes by, in the indices of the model's bundle."""
        bundle = model.bundle
        now_ms = self._clock() if query.now_ms is None else query.now_ms
        sent = (*query.events, *likes_at(query, now_ms))
        if sent:
            stored = reading.deeds
            past = merge_pasts(stored.past, past_of_events(sent))
            items = bundle.vocabulary.indices(past.item_ids)
            reading = model.readings.of_deeds(Deeds(past, items, stored.stored))
        asked = self._asked(query, reading, now_ms)
        seen = seen_of(bundle, query, reading)
        choice = choose(
            bundle, query, seen, lambda: ids_seen_by(bundle, query, reading.deeds), asked
        )
        return Case(
            model=model,
            user_id=query.user_id,
            reading=reading,
            examples=examples_of(bundle, query.categories),
            asked=asked,
            point=request_point(model, query, asked),
            choice=choice,
            k=MAX_LIST if query.paginate else query.k,
            deadline=deadline,
        )

    def _asked(self, query: RecommendationQuery, reading: Reading, now_ms: int) -> Asked:
        """Return when, with the local offset of the request, else of the last event."""
        offset = query.tz_offset_min
        if offset is None:
            # Histories keep an unknown offset as 0.
            offset = reading.last_offset_min or self._default_tz_offset_min
        return Asked(now_ms, offset)

    async def _rank(
        self, case: Case, allowed: Allowed, depth: int, degraded: list[str]
    ) -> list[Pick]:
        """Return the model's best, nothing if it has nothing to go by or fails."""
        model, reading, point = case.model, case.reading, encoder_point(case)
        # Examples are a part of the window that no stored history has.
        is_plain = not len(case.examples)
        known = reading.encoded_at(point) if is_plain else None
        asked = known or window_of(case, point)
        if asked is None and case.match is not None:
            asked = case.match.alone
        if asked is None or not len(allowed):
            return []
        try:
            async with case.deadline.whole():
                wanted = Wanted(allowed, depth)
                job = RankJob(asked, wanted, model.bundle.ranker, case.match)
                ranked = await model.ranking.submit(job)
        except (ContractError, TimeoutError) as exc:
            self._log.error("model gave no ranking", error=_said(exc))
            degraded.append(DEGRADED_MODEL)
            return []
        is_new = isinstance(asked, AtPoint)
        if is_new or known is not None:
            model.readings.count(was_known=not is_new)
        if is_plain and is_new and case.user_id is not None:
            model.readings.keep(case.user_id, reading, ranked.encoded, point)
        return ranked.picks

    def _climb(self, case: Case, allowed: Allowed, depth: int) -> list[Pick]:
        """Return the ladder's best: own repeats, nearby, popular now or at this hour, or ever."""
        hour = local_hour(case.point.time_ms, case.point.tz_offset_min)
        bundle, live = case.model.bundle, case.model.live
        deeds = case.reading.deeds
        now = Rung("popular", live.current)
        at_hour = Rung("popular", bundle.popularity.at_hour(hour))
        overall = bundle.popularity.overall
        rungs = [
            Rung("repeat", repeats(deeds.items, WEIGHT_OF_CODE[deeds.past.event_types])),
            Rung("nearby", nearby(bundle.columns, overall, case.point.lat, case.point.lon)),
            *([now, at_hour] if live.says_enough else [at_hour, now]),
            Rung("popular", overall),
        ]
        return climb(rungs, allowed, depth)


def _said(error: Exception) -> str:
    """Return what an error says; a timeout says nothing."""
    return str(error) or type(error).__name__
