"""Explaining a list: the windows are asked in bounded batches on a thread, within the deadline."""

from collections.abc import Sequence
from functools import partial

import numpy as np

from service.bundle_loader import LoadedBundle
from service.cases import Case, encoder_point, known_past, window_of
from service.contract.errors import ContractError
from service.contract.events import EVENT_TYPES
from service.errors import ServiceError
from service.explanations import (
    Float64s,
    Found,
    ItemParts,
    contributions,
    questions_of,
    shares,
    shares_of_words,
)
from service.fallback import Pick
from service.logs import get_logger
from service.ranker import AtPoint, Encoded
from service.recommendation import (
    DEGRADED_EXPLANATION,
    EXAMPLE,
    Explanation,
    ItemExplanation,
    PastEvent,
    RecommendationQuery,
)

# Windows of one call of the encoder: some ten milliseconds, in which no other explanation goes on.
BATCH = 16
NUM_BECAUSE = 3
# Attention is quadratic: of longer windows it takes tens of megabytes.
MAX_ATTENTION = 256
# So many numbers are a megabyte of text, which takes the loop some milliseconds to write.
MAX_NUMBERS = 100_000
ATTENTION_DIGITS = 6
Attention = list[list[list[list[float]]]]


class Explainer:
    """Explains what the model listed by what it would have scored otherwise."""

    def __init__(self, max_events: int) -> None:
        self._max_events = max_events
        self._log = get_logger(__name__)

    async def explain(
        self, case: Case, picks: Sequence[Pick], query: RecommendationQuery, degraded: list[str]
    ) -> Explanation | None:
        """Return why the model's picks are listed, None if none are its own or it is too late."""
        own = [pick.index for pick in picks if pick.source == "model"]
        if not own:
            return None
        try:
            async with case.deadline.whole():
                return await self._explain(case, own, query)
        except (ContractError, ServiceError, TimeoutError) as exc:
            said = str(exc) or type(exc).__name__
            self._log.warning("list not explained", error=said)
            degraded.append(DEGRADED_EXPLANATION)
            return None

    async def _explain(
        self, case: Case, own: Sequence[int], query: RecommendationQuery
    ) -> Explanation:
        bundle = case.model.bundle
        items = _parts(bundle, own)
        asked = window_of(case, encoder_point(case))
        unknown = bundle.explaining.unknown
        if asked is None:
            if case.match is None:
                raise ContractError("the model listed items for neither events nor words")
            by_name = shares_of_words(items, case.match)
            return Explanation((), 0, _explained(own, by_name, np.zeros((len(own), 0))), unknown)
        spec = bundle.manifest.features
        questions = questions_of(
            asked, spec.window_len, self._max_events, knows_time=spec.uses_request_time
        )
        found = Found.of(questions, await self._encoded(case, questions.all))
        attention = None
        if query.attention:
            attention = await self._attention(case, asked, len(questions.without))
            unknown = unknown if attention is not None else (*unknown, "attention")
        return Explanation(
            history=_history(case, len(questions.without)),
            num_events=min(len(asked.window), spec.window_len),
            items=_explained(
                own, shares(found, items, case.match), contributions(found, items, case.match)
            ),
            unknown=unknown,
            attention=attention,
        )

    async def _encoded(self, case: Case, asked: Sequence[AtPoint]) -> list[Encoded]:
        encoded: list[Encoded] = []
        for start in range(0, len(asked), BATCH):
            work = partial(case.model.bundle.ranker.encode_at, asked[start : start + BATCH])
            encoded += await case.model.turns.do(work, case.deadline.ends_s)
        return encoded

    async def _attention(self, case: Case, asked: AtPoint, count: int) -> Attention | None:
        """Return the attention among the newest `count` events of a window."""
        graph = case.model.bundle.explaining.attention
        window_len = case.model.bundle.manifest.features.window_len
        if graph is None or min(len(asked.window), window_len) > MAX_ATTENTION:
            return None

        def look() -> Attention | None:
            found = graph.of(case.model.bundle.ranker.arrays_of([asked]))
            newest = found[:, :, -count:, -count:]
            if newest.size > MAX_NUMBERS:
                return None
            # As float64, whose shortest texts are the rounded ones.
            rounded = np.round(newest.astype(np.float64), ATTENTION_DIGITS)
            attention: Attention = rounded.tolist()
            return attention

        return await case.model.turns.do(look, case.deadline.ends_s)


def _parts(bundle: LoadedBundle, own: Sequence[int]) -> ItemParts:
    indices = np.array(own, np.int64)
    rows = bundle.ranker.vectors(indices)
    texts, places = bundle.explaining.parts_of(indices, rows.shape[1])
    return ItemParts(indices, rows, texts, places)


def _history(case: Case, count: int) -> tuple[PastEvent, ...]:
    """Return the newest `count` events that the encoder knows, oldest first."""
    past, items = known_past(case)
    titles = case.model.bundle.titles
    # What stands for a new user's categories comes first, and nobody did it.
    added = len(case.examples)
    places = np.flatnonzero(items > 0)
    return tuple(
        PastEvent(
            item_id=past.item_ids[place],
            title=titles[int(items[place])],
            event_type=_type_name(int(past.event_types[place])) if place >= added else EXAMPLE,
            timestamp_ms=int(past.timestamps_ms[place]),
            tz_offset_min=int(past.tz_offsets_min[place]),
        )
        for place in places[len(places) - count :].tolist()
    )


def _type_name(code: int) -> str:
    # A later version of the service may have stored types that this one has no name for.
    return EVENT_TYPES[code - 1] if 0 < code <= len(EVENT_TYPES) else "other"


def _explained(
    own: Sequence[int], by_name: dict[str, Float64s], events: Float64s
) -> dict[int, ItemExplanation]:
    explained = {}
    for at, index in enumerate(own):
        row = events[at]
        best = np.argsort(-row, kind="stable")[:NUM_BECAUSE]
        explained[index] = ItemExplanation(
            shares={name: float(values[at]) for name, values in by_name.items()},
            events=tuple(row.tolist()),
            because=tuple(place for place in best.tolist() if row[place] > 0),
        )
    return explained
