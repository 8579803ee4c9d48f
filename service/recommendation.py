"""What a recommendation request asks, and what it is answered."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from service.arrangement import PLAIN, Arrangement
from service.blend_terms import PLAIN as PLAIN_BLEND
from service.blend_terms import Blend
from service.contract.events import EVENT_TYPES, Event, ItemId, UserId
from service.contract.exposures import Source
from service.filters import Filter
from service.text_match import TextQuery

# The values of `exclude_seen` that are not lists of event types.
ALL_TYPES = EVENT_TYPES
NO_TYPES: tuple[str, ...] = ()

DEGRADED_REDIS = "redis"
DEGRADED_MODEL = "model"
DEGRADED_TEXT = "text"
DEGRADED_EXPLANATION = "explanation"
DEGRADED_ALL_SEEN = "all-seen"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """Who asks, when and where. None stands for "not said"; `user_id` None is anonymous."""

    user_id: UserId | None = None
    events: tuple[Event, ...] = ()
    now_ms: int | None = None
    tz_offset_min: int | None = None
    lat: float | None = None
    lon: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RecommendationQuery(Asking):
    """What was asked for; None stands for "not said".

    `exclude_seen` holds the event types that count as seen; () excludes nothing. `include` are
    items that get a place whatever they score; `liked` and `categories` are what a new user says to
    like. `text` are words to match. With `paginate` the list goes on behind a cursor, with
    `explain` it says why, and with `attention` where the model looked as well.
    """

    k: int
    candidates: tuple[ItemId, ...] | None = None
    exclude: frozenset[str] = frozenset()
    exclude_seen: tuple[str, ...] | None = None
    filter: Filter | None = None
    include: tuple[ItemId, ...] = ()
    liked: tuple[ItemId, ...] = ()
    categories: tuple[str, ...] = ()
    text: TextQuery | None = None
    arrangement: Arrangement = PLAIN
    paginate: bool = False
    explain: bool = False
    attention: bool = False


@dataclass(frozen=True, slots=True)
class RankedCandidate:
    """One candidate of the caller's, with numbers that only the caller knows."""

    item_id: ItemId
    features: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class RankQuery(Asking):
    """The caller's candidates, each once, and the blend that orders them; the best `k` or all.

    With `explain` every item says what each term added.
    """

    candidates: tuple[RankedCandidate, ...]
    blend: Blend = PLAIN_BLEND
    k: int | None = None
    explain: bool = False


@dataclass(frozen=True, slots=True)
class PageQuery:
    """The next k of a list, from `offset` on; `recommendation_id` is that of its first page."""

    recommendation_id: str
    offset: int
    k: int
    user_id: UserId | None = None


# The type of what no user did: an item that stands for a category that a new user chose.
EXAMPLE = "example"


class PastEvent(NamedTuple):
    """An event that an explanation speaks of; the offset is in minutes, 0 where unknown."""

    item_id: str
    title: str | None
    event_type: str
    timestamp_ms: int
    tz_offset_min: int


@dataclass(frozen=True, slots=True)
class ItemExplanation:
    """Why the model scored an item so: shares that add up to the score, and what events brought.

    `events` are by place in the explanation's history, and `because` the places of the strongest.
    """

    shares: Mapping[str, float]
    events: tuple[float, ...]
    because: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a list's explanations speak of: the events that were examined, oldest first.

    `num_events` is how many the model read; `attention` is by layer, head, query and key among
    those of `history`, None if it was not wanted or cannot be told; `unknown` names what cannot.
    """

    history: tuple[PastEvent, ...]
    num_events: int
    items: Mapping[int, ItemExplanation]
    unknown: tuple[str, ...] = ()
    attention: list[list[list[list[float]]]] | None = None


class RecommendedItem(NamedTuple):
    """One item of an answer; `rank` orders it, scores compare only within source "model"."""

    item_id: str
    score: float
    rank: int
    source: Source
    title: str | None
    propensity: float = 1.0
    parts: Mapping[str, float] | None = None
    explanation: ItemExplanation | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Recommendation:
    """The answer; `degraded` names what was missing, `source` is the first item's.

    `next_page` says where the list goes on, None if it ends here or was not to go on; `explores`
    that some places were drawn, `explained` that reasons were wanted.
    """

    recommendation_id: str
    model_version: str
    items: tuple[RecommendedItem, ...]
    degraded: tuple[str, ...]
    unknown_candidates: tuple[str, ...]
    next_page: tuple[str, int] | None = None
    explores: bool = False
    explained: bool = False
    explanation: Explanation | None = None

    @property
    def source(self) -> Source | None:
        """Return where the first item came from, None of an empty answer."""
        return self.items[0].source if self.items else None
