"""What a recommendation request asks, and what it is answered."""

from dataclasses import dataclass

from service.arrangement import PLAIN, Arrangement
from service.contract.events import EVENT_TYPES, Event, ItemId, UserId
from service.contract.exposures import Source
from service.filters import Filter

# The values of `exclude_seen` that are not lists of event types.
ALL_TYPES = EVENT_TYPES
NO_TYPES: tuple[str, ...] = ()

DEGRADED_REDIS = "redis"
DEGRADED_MODEL = "model"
DEGRADED_ALL_SEEN = "all-seen"


@dataclass(frozen=True, slots=True)
class RecommendationQuery:
    """What was asked. None stands for "not said", except that `user_id` None is anonymous.

    `exclude_seen` holds the event types that count as seen; () excludes nothing. `include` are
    items that get a place whatever they score; `categories` what a new user says to like. With
    `paginate` the list goes on behind a cursor.
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
    include: tuple[ItemId, ...] = ()
    categories: tuple[str, ...] = ()
    arrangement: Arrangement = PLAIN
    paginate: bool = False


@dataclass(frozen=True, slots=True)
class PageQuery:
    """The next k of a list, from `offset` on; `recommendation_id` is that of its first page."""

    recommendation_id: str
    offset: int
    k: int
    user_id: UserId | None = None


@dataclass(frozen=True, slots=True)
class RecommendedItem:
    """One item of an answer; `rank` orders it, scores compare only within source "model"."""

    item_id: str
    score: float
    rank: int
    source: Source
    title: str | None
    propensity: float = 1.0


@dataclass(frozen=True, slots=True)
class Recommendation:
    """The answer; `degraded` names what was missing, `source` is the first item's.

    `next_page` says where the list goes on, None if it ends here or was not to go on.
    """

    recommendation_id: str
    model_version: str
    items: tuple[RecommendedItem, ...]
    degraded: tuple[str, ...]
    unknown_candidates: tuple[str, ...]
    next_page: tuple[str, int] | None = None

    @property
    def source(self) -> Source | None:
        """Return where the first item came from, None of an empty answer."""
        return self.items[0].source if self.items else None
