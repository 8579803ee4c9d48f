"""The exposure: what one answer showed to whom, and how probable it was to be shown."""

from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

from service.contract.events import UserId

# Where an item came from; "new" are candidates that the bundle does not know, "explore" those that
# exploration drew.
Source: TypeAlias = Literal["model", "repeat", "nearby", "popular", "similar", "new", "explore"]


class Impression(NamedTuple):
    """One item at one place of an answer.

    `position` is its rank, from 1; `propensity` the probability that the policy put it there, given
    the places before it, in (0, 1].
    """

    item_id: str
    position: int
    source: Source
    propensity: float


@dataclass(frozen=True, slots=True)
class Exposure:
    """The impressions of one answer; `user_id` is None of an anonymous one.

    `policy` names what made the list, so that logs of several can be told apart.
    """

    recommendation_id: str
    user_id: UserId | None
    timestamp_ms: int
    model_version: str
    policy: str
    impressions: tuple[Impression, ...]

    def impression_of(self, item_id: str) -> Impression | None:
        """Return where an item was shown, None if it was not."""
        return next((one for one in self.impressions if one.item_id == item_id), None)
