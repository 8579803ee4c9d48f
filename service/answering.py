"""Answers: name them, cut them into pages, note what they showed, count them."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple, Protocol

from service.bundle_loader import LoadedBundle
from service.choosing import Choice
from service.contract.events import UserId
from service.contract.exposures import Exposure, Impression
from service.deadline import Deadline
from service.drift import Drift
from service.errors import CursorExpired, ServiceError
from service.filters import Asked
from service.listing import Listed
from service.logs import get_logger
from service.metrics import Metrics
from service.readings import Reading
from service.reasons import reason_of
from service.recommendation import (
    DEGRADED_REDIS,
    Asking,
    Explanation,
    PageQuery,
    RankQuery,
    Recommendation,
    RecommendationQuery,
    RecommendedItem,
)
from service.serving_model import ServingModel
from service.store.lists import ListedItem, RankedItems

# The longest list that is kept for its next pages.
MAX_LIST = 1_000
# Of a long answer this many impressions are noted: few look further, and Redis holds them all.
MAX_NOTED = 50
# The policy that shows what scores best.
BEST = "best"


class ListKeeper(Protocol):
    """Keeps ranked lists for their next pages; both raise StoreUnavailable."""

    async def save(self, ranked: RankedItems) -> None:
        """Keep a list for a while."""
        ...

    async def load(self, recommendation_id: str, user_id: UserId | None) -> RankedItems | None:
        """Return a user's list, None if there is none (any more)."""
        ...


class ExposureNotes(Protocol):
    """Takes note of what was shown, without making the caller wait."""

    def note(self, exposure: Exposure) -> None:
        """Note one answer."""
        ...


class Explained(NamedTuple):
    """What is known of why a list is as it is, None if nothing, and when it was asked for."""

    explanation: Explanation | None
    asked: Asked


class Answers:
    """Makes answers of lists; every answer is noted as an exposure and counted once."""

    def __init__(
        self,
        *,
        lists: ListKeeper,
        exposures: ExposureNotes,
        metrics: Metrics,
        clock: Callable[[], int],
        new_id: Callable[[UserId | None], str],
        drift_every: int = 0,
    ) -> None:
        self._lists = lists
        self._exposures = exposures
        self._metrics = metrics
        self._clock = clock
        self._new_id = new_id
        self._drift = Drift(metrics, every=drift_every)
        self._count_source = lru_cache(metrics.recommendations.labels)
        self._log = get_logger(__name__)

    def observe(
        self, reading: Reading, asked: Asked, model: ServingModel, listed: Sequence[Listed]
    ) -> None:
        """Note, of one list in so many, what it was made of."""
        self._drift.note(reading, asked, model.version, listed)

    async def answer(
        self,
        listed: Sequence[Listed],
        choice: Choice,
        model: ServingModel,
        query: RecommendationQuery,
        degraded: list[str],
        *,
        deadline: Deadline,
        explained: Explained | None = None,
    ) -> Recommendation:
        """Return the answer of a list of known items, the unknown ones behind them."""
        length = MAX_LIST if query.paginate else query.k
        items = _items(model, listed, (*choice.guests, *choice.unknown), length)
        recommendation_id = self._new_id(query.user_id)
        next_page = None
        if query.paginate and len(items) > query.k:
            kept = RankedItems(
                recommendation_id=recommendation_id,
                user_id=query.user_id,
                model_version=model.version,
                items=tuple(
                    ListedItem(one.item_id, one.score, one.source, one.propensity) for one in items
                ),
                policy=policy_of(query),
                explores=query.arrangement.exploration is not None,
                created_ms=self._clock(),
            )
            next_page = await self._keep(kept, query.k, degraded, deadline)
        shown = items[: query.k]
        if explained is not None:
            shown = _with_reasons(shown, listed, explained)
        answer = Recommendation(
            recommendation_id=recommendation_id,
            model_version=model.version,
            items=shown,
            degraded=tuple(degraded),
            unknown_candidates=choice.not_in_catalogue,
            next_page=next_page,
            explores=query.arrangement.exploration is not None,
            explained=explained is not None,
            explanation=None if explained is None else explained.explanation,
        )
        return self._finish(answer, query, policy_of(query))

    def reranked(
        self,
        items: tuple[RecommendedItem, ...],
        choice: Choice,
        model: ServingModel,
        query: RankQuery,
        degraded: Sequence[str],
    ) -> Recommendation:
        """Return the answer of the caller's own candidates in their new order."""
        answer = Recommendation(
            recommendation_id=self._new_id(query.user_id),
            model_version=model.version,
            items=items,
            degraded=tuple(degraded),
            unknown_candidates=choice.not_in_catalogue,
        )
        return self._finish(answer, query, "rank")

    async def page(self, query: PageQuery, model: ServingModel) -> Recommendation:
        """Return the next page of a list, as it was ranked for its first page.

        Raises CursorExpired if the list is gone or somebody else's, and StoreUnavailable.
        """
        kept = await self._lists.load(query.recommendation_id, query.user_id)
        if kept is None or query.offset >= len(kept.items):
            raise CursorExpired("the cursor's list is gone; ask for the first page again")
        end = query.offset + query.k
        answer = Recommendation(
            recommendation_id=self._new_id(query.user_id),
            model_version=kept.model_version,
            items=_page(model.bundle, kept.items[query.offset : end], query.offset),
            degraded=(),
            unknown_candidates=(),
            next_page=(query.recommendation_id, end) if end < len(kept.items) else None,
            explores=kept.explores,
        )
        return self._finish(answer, query, kept.policy)

    async def _keep(
        self, ranked: RankedItems, k: int, degraded: list[str], deadline: Deadline
    ) -> tuple[str, int] | None:
        """Keep a list for its next pages; without Redis there are none."""
        try:
            async with deadline.whole():
                await self._lists.save(ranked)
        except (ServiceError, TimeoutError) as exc:
            reason = str(exc) or type(exc).__name__
            self._log.warning("list not kept", error=reason, user_id=ranked.user_id)
            if DEGRADED_REDIS not in degraded:
                degraded.append(DEGRADED_REDIS)
            return None
        return ranked.recommendation_id, k

    def _finish(
        self, answer: Recommendation, query: Asking | PageQuery, policy: str
    ) -> Recommendation:
        self._exposures.note(
            Exposure(
                recommendation_id=answer.recommendation_id,
                user_id=query.user_id,
                timestamp_ms=self._clock(),
                model_version=answer.model_version,
                policy=policy,
                impressions=tuple(
                    Impression(one.item_id, one.rank, one.source, one.propensity)
                    for one in answer.items[:MAX_NOTED]
                ),
            )
        )
        self._count(answer)
        return answer

    def _count(self, answer: Recommendation) -> None:
        source = answer.source or "none"
        self._count_source(source).inc()
        # A new item that the model placed by its categories is no candidate that nobody knows.
        is_placed = source == "new" and answer.items[0].item_id not in answer.unknown_candidates
        if not is_placed and source not in ("model", "explore"):
            self._metrics.fallbacks.labels(source, _fallback_reason(answer)).inc()


def policy_of(query: RecommendationQuery) -> str:
    """Return what made a list, for whoever reads propensities: arrangements, and words to match.

    Only exploration draws; without it every propensity is 1.
    """
    wanted = query.arrangement
    names = {
        "text": query.text is not None,
        "diversity": wanted.diversity is not None,
        "rotation": wanted.rotation is not None,
        "include": bool(query.include),
    }
    parts = [name for name, is_wanted in names.items() if is_wanted]
    if wanted.exploration is not None:
        parts.append(f"exploration={wanted.exploration.share:g}")
    return "+".join(parts) or BEST


def _items(
    model: ServingModel, listed: Sequence[Listed], unknown: Sequence[str], length: int
) -> tuple[RecommendedItem, ...]:
    """Return the items of a list with their ranks, unknown ids behind the known ones."""
    vocabulary, titles = model.bundle.vocabulary, model.bundle.titles
    items = [
        RecommendedItem(
            item_id=vocabulary.id(one.pick.index),
            score=one.pick.score,
            rank=rank,
            source=model.bundle.source_of(one.pick),
            title=titles[one.pick.index],
            propensity=one.propensity,
        )
        for rank, one in enumerate(listed, start=1)
    ]
    room = length - len(items)
    items += [
        RecommendedItem(item_id, 0.0, rank, "new", None)
        for rank, item_id in enumerate(unknown[:room], start=len(items) + 1)
    ]
    return tuple(items)


def _with_reasons(
    items: Sequence[RecommendedItem], listed: Sequence[Listed], explained: Explained
) -> tuple[RecommendedItem, ...]:
    """Return items with what is known of why; those behind the listed ones are unknown ids."""
    explanation, asked = explained
    explanations = {} if explanation is None else explanation.items
    history = () if explanation is None else explanation.history
    own = [explanations.get(one.pick.index) for one in listed]
    own += [None] * (len(items) - len(own))
    return tuple(
        item._replace(explanation=one, reason=reason_of(item.source, one, history, asked))
        for item, one in zip(items, own, strict=False)
    )


def _page(
    bundle: LoadedBundle, listed: Sequence[ListedItem], offset: int
) -> tuple[RecommendedItem, ...]:
    """Return a page's items with the ranks of the whole list, without what may not be shown now."""
    withheld = frozenset(bundle.withheld.tolist())
    items = []
    for rank, one in enumerate(listed, start=offset + 1):
        index = bundle.vocabulary.index(one.item_id)
        if index not in withheld:
            title = bundle.titles[index]
            items.append(
                RecommendedItem(one.item_id, one.score, rank, one.source, title, one.propensity)
            )
    return tuple(items)


def _fallback_reason(answer: Recommendation) -> str:
    if answer.degraded:
        return answer.degraded[-1]
    return {"new": "unknown-candidates", None: "all-excluded"}.get(answer.source, "no-history")
