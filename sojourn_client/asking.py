"""What callers may ask, as the service's API names it; docs/api.md says what each means.

Fields that are left out are not sent, so the service's defaults hold.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Required, TypedDict

from sojourn_client.events import Moment, Scalar


class Place(TypedDict, total=False):
    """Where a request is, in WGS 84 degrees; with a radius nothing further away is shown."""

    lat: Required[float]
    lon: Required[float]
    radius_km: float


class SessionEvent(TypedDict, total=False):
    """An event of whom the request is about; it is not stored."""

    item_id: Required[str]
    event_type: Required[str]
    timestamp: Required[Moment]
    event_id: str
    value: float
    duration_s: float
    lat: float
    lon: float
    recommendation_id: str
    context: Mapping[str, Scalar]


class Diversity(TypedDict, total=False):
    """Variety: items unlike those before them, and few that share a value of `group_by`."""

    strength: float
    max_per_group: int
    group_by: str


class Rotation(TypedDict, total=False):
    """What was shown to the user lately goes down."""

    strength: float
    half_life_s: float


class Exploration(TypedDict, total=False):
    """Some places are drawn evenly; every item then says its propensity."""

    share: float
    seed: int


class Onboarding(TypedDict, total=False):
    """What a new user says to like."""

    items: Sequence[str]
    categories: Sequence[str]


class Asking(TypedDict, total=False):
    """Who asks, when and where."""

    user_id: str
    events: Sequence[SessionEvent]
    now: Moment
    place: Place


class RecommendFields(Asking, total=False):
    """A page of a list, or the whole of it: all that is not said by its cursor already."""

    k: int
    candidates: Sequence[str]
    exclude: Sequence[str]
    exclude_seen: Literal["none", "all"] | Sequence[str]
    filter: Mapping[str, Any]
    include: Sequence[str]
    onboarding: Onboarding
    query: str
    query_weight: float
    diversity: Diversity
    rotation: Rotation
    exploration: Exploration
    explain: bool
    attention: bool
    paginate: bool
    cursor: str


class UserFields(TypedDict, total=False):
    """The query string of a stored user's recommendations."""

    k: int
    now: Moment
    lat: float
    lon: float
    exclude_seen: Literal["none", "all"] | Sequence[str]
    explain: bool


class Candidate(TypedDict, total=False):
    """A candidate to rank, with numbers that only the caller knows."""

    item_id: Required[str]
    features: Mapping[str, float]


class Term(TypedDict, total=False):
    """One number of every candidate: how it is scaled, and how much it counts."""

    feature: Required[str]
    weight: Required[float]
    scale: Literal["min-max", "rank", "log", "decay", "none"]
    half_life: float
    missing: float


class RankFields(Asking, total=False):
    """What to rank by; `blend` is terms, or the name of one in the service's settings."""

    blend: str | Sequence[Term]
    k: int
    explain: bool


class ItemFields(TypedDict, total=False):
    """What an item is. What is left out is as the bundle says; None is not known."""

    title: str | None
    text: str | None
    categories: Sequence[str] | None
    attributes: Mapping[str, Any] | None
    lat: float | None
    lon: float | None
    opening_hours: str | None
    available: bool
    released_at: Moment | None


class NamedItem(ItemFields, total=False):
    """The same with the item's id, for a batch."""

    item_id: Required[str]
