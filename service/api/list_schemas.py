"""What a request may want of its list: variety, rotation, exploration, onboarding, pages."""

import re
import secrets
from typing import Annotated

from pydantic import ConfigDict, Field

from service.api.event_schemas import IdText, Strict
from service.arrangement import Arrangement, Diversity, Exploration, Rotation
from service.contract.errors import InvalidField
from service.contract.items import MAX_TEXT_ATTRIBUTE_CHARS
from service.item_columns import ATTRIBUTES, CATEGORIES

MAX_GROUP = 500
MAX_HALF_LIFE_S = 31_536_000
MAX_SEED = 2**63 - 1
MAX_CHOSEN = 50
MAX_KEY_CHARS = 80
_CURSOR = re.compile(r"([0-9a-f]{32})\.([0-9]{1,6})")


class DiversityBody(Strict):
    """Variety: items unlike those before them, and few that share a value."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"strength": 0.3, "max_per_group": 2}]}
    )
    strength: float = Field(
        0.0, ge=0, le=1, description="Of maximal marginal relevance: 0 ignores likeness"
    )
    max_per_group: int | None = Field(
        None, ge=1, le=MAX_GROUP, description="Items that may share a value of `group_by`"
    )
    group_by: Annotated[str, Field(max_length=MAX_KEY_CHARS)] = Field(
        CATEGORIES, description="`categories`, or `attributes.` and a name"
    )

    def to_diversity(self) -> Diversity:
        """Return what is wanted; raises InvalidField for a key that groups nothing."""
        if self.group_by != CATEGORIES and not self.group_by.startswith(ATTRIBUTES):
            fix = f"must be `{CATEGORIES}`, or `{ATTRIBUTES}` and a name"
            raise InvalidField("diversity.group_by", self.group_by, fix)
        return Diversity(self.strength, self.max_per_group, self.group_by)


class RotationBody(Strict):
    """What was shown to the user lately goes down."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"strength": 0.5, "half_life_s": 86400}]}
    )
    strength: float = Field(
        0.5, ge=0, le=1, description="What an item shown just now loses of the scores' range"
    )
    half_life_s: float = Field(
        86_400, ge=1, le=MAX_HALF_LIFE_S, description="After how long half of that is lost"
    )

    def to_rotation(self) -> Rotation:
        """Return what is wanted."""
        return Rotation(self.strength, self.half_life_s)


class ExplorationBody(Strict):
    """Some places are drawn evenly from the pool; every item's propensity is said and logged."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"share": 0.1, "seed": 7}]})
    share: float = Field(0.1, ge=0, le=1, description="Of the places, drawn")
    seed: int | None = Field(
        None, ge=0, le=MAX_SEED, description="The same seed draws the same; absent: any"
    )

    def to_exploration(self) -> Exploration:
        """Return what is wanted, with a seed of our own if none was given."""
        seed = secrets.randbelow(MAX_SEED) if self.seed is None else self.seed
        return Exploration(self.share, seed)


class OnboardingBody(Strict):
    """What a new user says to like, before there is an event."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"items": ["50", "172"], "categories": ["Comedy"]}]}
    )
    items: Annotated[list[IdText], Field(max_length=MAX_CHOSEN, default_factory=list)]
    categories: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=MAX_TEXT_ATTRIBUTE_CHARS)]],
        Field(max_length=MAX_CHOSEN, default_factory=list),
    ]


def to_arrangement(
    diversity: DiversityBody | None,
    rotation: RotationBody | None,
    exploration: ExplorationBody | None,
) -> Arrangement:
    """Return what a request wants of its list; raises InvalidField."""
    return Arrangement(
        diversity=diversity.to_diversity() if diversity else None,
        rotation=rotation.to_rotation() if rotation else None,
        exploration=exploration.to_exploration() if exploration else None,
    )


def parse_cursor(text: str) -> tuple[str, int]:
    """Return the list's recommendation id and the offset of a cursor; raises InvalidField."""
    match = _CURSOR.fullmatch(text)
    if match is None:
        raise InvalidField("cursor", text, "must be a `next_cursor` of an answer, unchanged")
    return match[1], int(match[2])


def cursor_text(recommendation_id: str, offset: int) -> str:
    """Return the cursor of the page that begins at an offset."""
    return f"{recommendation_id}.{offset}"
