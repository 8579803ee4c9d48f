"""The body of POST /v1/rank."""

from collections.abc import Mapping
from typing import Annotated

from pydantic import ConfigDict, Discriminator, Field, Tag

from service.api.event_schemas import IdText, Strict, only
from service.api.schemas import MAX_CANDIDATES, AskingBody
from service.blend_terms import PLAIN, Blend, Size, Term
from service.contract.errors import InvalidField
from service.contract.events import ItemId, check_id
from service.recommendation import RankedCandidate, RankQuery

MAX_FEATURES = 64
MAX_TERMS = 32
DEFAULT_BLEND = "default"

# Named, so that what is wrong with a list is not told beside that a list is no name.
BlendValue = Annotated[
    Annotated[str, Field(min_length=1, max_length=64), Tag("name")]
    | Annotated[list[Term], Field(min_length=1, max_length=MAX_TERMS), Tag("terms")],
    Discriminator(lambda value: "name" if isinstance(value, str) else "terms"),
    only((str, list), "must be the name of a blend, or a list of terms"),
]


class CandidateBody(Strict):
    """One candidate, with numbers of the caller's for `features.` terms of the blend."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"item_id": "50", "features": {"margin": 0.3}}]}
    )
    item_id: IdText
    features: Annotated[
        dict[Annotated[str, Field(min_length=1, max_length=64)], Size],
        Field(max_length=MAX_FEATURES, default_factory=dict),
    ]


class RankRequest(AskingBody):
    """Order these candidates for a user; nothing is added, and nothing left out but behind `k`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "user_id": "anna",
                    "items": [
                        {"item_id": "50", "features": {"margin": 0.3}},
                        {"item_id": "brand-new", "features": {"margin": 0.9}},
                    ],
                    "blend": [
                        {"feature": "model", "weight": 1},
                        {"feature": "features.margin", "weight": 0.2},
                    ],
                    "explain": True,
                }
            ]
        }
    )
    items: Annotated[list[CandidateBody], Field(min_length=1, max_length=MAX_CANDIDATES)]
    blend: BlendValue | None = Field(
        None, description="Terms, or the name of a blend in the service's settings"
    )
    k: int | None = Field(None, ge=1, le=MAX_CANDIDATES, description="Absent: all of them")
    explain: bool = Field(False, description="Say what each term added")

    def to_query(self, latest_ms: int, blends: Mapping[str, Blend]) -> RankQuery:
        """Return what was asked; raises InvalidField."""
        return RankQuery(
            candidates=self._candidates(),
            blend=self._blend(blends),
            k=self.k,
            explain=self.explain,
            **self.asking(latest_ms),
        )

    def _candidates(self) -> tuple[RankedCandidate, ...]:
        """Return each candidate once, the first of equal ids."""
        found: dict[str, RankedCandidate] = {}
        for place, body in enumerate(self.items):
            item_id = check_id(f"items.{place}.item_id", body.item_id)
            found.setdefault(item_id, RankedCandidate(ItemId(item_id), body.features))
        return tuple(found.values())

    def _blend(self, blends: Mapping[str, Blend]) -> Blend:
        if isinstance(self.blend, list):
            return tuple(self.blend)
        if self.blend is None:
            return blends.get(DEFAULT_BLEND, PLAIN)
        if self.blend not in blends:
            names = ", ".join(sorted(blends)) or "none is set (SOJOURN_BLENDS)"
            raise InvalidField(
                "blend", self.blend, f"must be terms, or a name that is set: {names}"
            )
        return blends[self.blend]
