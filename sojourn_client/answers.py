"""The service's answers. A field that a newer service adds is left out, never an error."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from sojourn_client.errors import FieldProblem

Matrix: TypeAlias = tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class EventResult:
    """What became of one event: `accepted`, `duplicate`, or `rejected` with an error."""

    status: str
    event_id: str | None = None
    error: FieldProblem | None = None


@dataclass(frozen=True, slots=True)
class EventsStored:
    """What became of a batch, one result per event in their order."""

    accepted: int
    duplicates: int
    rejected: int
    results: tuple[EventResult, ...]

    @classmethod
    def joined(cls, answers: Iterable["EventsStored"]) -> "EventsStored":
        """Return the answers of several calls as that of one."""
        parts = list(answers)
        return cls(
            accepted=sum(part.accepted for part in parts),
            duplicates=sum(part.duplicates for part in parts),
            rejected=sum(part.rejected for part in parts),
            results=tuple(result for part in parts for result in part.results),
        )


@dataclass(frozen=True, slots=True)
class HistoryEvent:
    """An event of the history that an explanation looked at."""

    item_id: str
    event_type: str
    timestamp: Any
    title: str | None = None


@dataclass(frozen=True, slots=True)
class Because:
    """A past event that spoke for an item: its place in the history and what it gave the score."""

    position: int
    item_id: str
    event_type: str
    timestamp: Any
    contribution: float
    title: str | None = None


@dataclass(frozen=True, slots=True)
class ItemExplanation:
    """Why an item has its score.

    `shares` (base, history, time, place, repeat, text) add up to it; `events` has, for each event
    of the answer's history, the score minus the score without that event.
    """

    shares: Mapping[str, float] = field(default_factory=dict)
    events: tuple[float, ...] = ()
    because: tuple[Because, ...] = ()


@dataclass(frozen=True, slots=True)
class Explanation:
    """What the items' explanations refer to: the history, oldest first.

    `attention` is [layer][head][event][event], if it was asked for; `unknown` names what the
    service's model cannot tell.
    """

    method: str
    history: tuple[HistoryEvent, ...] = ()
    num_events: int = 0
    unknown: tuple[str, ...] = ()
    attention: tuple[tuple[Matrix, ...], ...] | None = None


@dataclass(frozen=True, slots=True)
class RecommendedItem:
    """One item of a list; scores compare within one answer and source `model` only."""

    item_id: str
    score: float
    rank: int
    source: str
    title: str | None = None
    propensity: float | None = None
    parts: Mapping[str, float] | None = None
    reason: str | None = None
    explanation: ItemExplanation | None = None


@dataclass(frozen=True, slots=True)
class Recommendations:
    """A list, best first, and what was missing while it was made.

    Send `recommendation_id` back with the events that it led to.
    """

    recommendation_id: str
    model_version: str
    items: tuple[RecommendedItem, ...]
    source: str | None = None
    degraded: tuple[str, ...] = ()
    unknown_candidates: tuple[str, ...] = ()
    next_cursor: str | None = None
    explanation: Explanation | None = None


@dataclass(frozen=True, slots=True)
class SimilarItems:
    """The items most like one, best first."""

    item_id: str
    items: tuple[RecommendedItem, ...]


@dataclass(frozen=True, slots=True)
class Item:
    """An item as it is served; `released_at` is milliseconds since 1970, UTC."""

    item_id: str
    is_trained: bool
    available: bool
    title: str | None = None
    text: str | None = None
    categories: tuple[str, ...] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)
    lat: float | None = None
    lon: float | None = None
    opening_hours: str | None = None
    released_at: int | None = None


@dataclass(frozen=True, slots=True)
class ItemResult:
    """What became of one item of a batch."""

    status: str
    item_id: str | None = None
    error: FieldProblem | None = None


@dataclass(frozen=True, slots=True)
class ItemsStored:
    """What became of a batch of items, in their order."""

    accepted: int
    rejected: int
    results: tuple[ItemResult, ...]


@dataclass(frozen=True, slots=True)
class HeldEvent:
    """An event as the service keeps it; of its id only a hash is left."""

    event_hash: str
    item_id: str
    event_type: str
    timestamp: str
    value: float | None = None
    duration_s: float | None = None
    lat: float | None = None
    lon: float | None = None


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """A user's events, newest first; `next_cursor` leads to older ones and is None at the end."""

    user_id: str
    events: tuple[HeldEvent, ...]
    next_cursor: str | None = None


@dataclass(frozen=True, slots=True)
class UserData:
    """Everything that is held of a user; `seen`, `stream` and `shown` as the service has them."""

    user_id: str
    num_events: int
    num_seen: int
    num_stream_entries: int
    events: tuple[HeldEvent, ...]
    seen: tuple[Mapping[str, Any], ...] = ()
    stream: tuple[Mapping[str, Any], ...] = ()
    shown: tuple[Mapping[str, Any], ...] = ()
    expires_at: str | None = None
    erased_at: str | None = None


@dataclass(frozen=True, slots=True)
class Erased:
    """What an erasure removed; a repeated one finds less, since the first has removed it."""

    events: int
    seen: int
    stream_entries: int
    erased_at: str


@dataclass(frozen=True, slots=True)
class Merged:
    """What was given to the other user, and what the erasure of the first removed."""

    events: int
    duplicates: int
    left_out: int
    seen: int
    erased: Erased


@dataclass(frozen=True, slots=True)
class Model:
    """One bundle of the folder; what its manifest says is None if that cannot be read."""

    version: str
    state: str
    reason: str | None = None
    name: str | None = None
    created_at: str | None = None
    schema_version: str | None = None
    num_items: int | None = None
    metrics: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class ServingProcess:
    """What a process serves; `behind` says that it cannot serve what it should."""

    process: str
    version: str
    behind: bool
    seen_at: str


@dataclass(frozen=True, slots=True)
class Models:
    """All models; `serving` is of the process that answered, `active` of all."""

    models: tuple[Model, ...]
    serving: str
    active: str
    processes: tuple[ServingProcess, ...] = ()
    previous: str | None = None
    changed_at: str | None = None
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Switched:
    """What all processes shall serve, and what a rollback goes back to."""

    active: str
    previous: str | None = None
    changed_at: str | None = None


@dataclass(frozen=True, slots=True)
class Health:
    """How the service is; not being ready is an answer too, with `reasons`."""

    status: str
    reasons: tuple[str, ...] = ()
    model_version: str | None = None
    model_problems: tuple[str, ...] = ()
    redis: str | None = None
    redis_breaker: str | None = None

    @property
    def is_ready(self) -> bool:
        """Whether traffic should be sent there."""
        return self.status == "ready"
