"""The terms of blends, as settings and requests say them.

Without NumPy: the settings are read before the environment says how many threads it may start.
"""

from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

from pydantic import ConfigDict, Field

MODEL = "model"
DISTANCE_KM = "distance_km"
AGE_DAYS = "age_days"
POPULARITY = "popularity"
# What the service knows of an item by itself; every other name is an attribute or the caller's.
BUILT_IN = (MODEL, DISTANCE_KM, AGE_DAYS, POPULARITY)
PREFIXES = ("attributes.", "features.")
# Beyond this a sum of terms could lose the others, or leave the range of numbers.
MAX_SIZE = 1e12
Size = Annotated[float, Field(strict=True, ge=-MAX_SIZE, le=MAX_SIZE)]

Scale: TypeAlias = Literal["min-max", "rank", "log", "decay", "none"]


@dataclass(frozen=True, slots=True)
class Term:
    """One number of every candidate: how it is scaled, and how much it counts.

    `feature` is a built-in, `attributes.` and a name, or `features.` and a name of the caller's.
    `half_life` is in the feature's unit and belongs to the scale `decay`; `missing` is the scaled
    value of candidates that do not have the number.
    """

    # Terms are read from requests and from settings: both refuse what has no meaning.
    __pydantic_config__ = ConfigDict(
        extra="forbid",
        strict=False,
        allow_inf_nan=False,
        json_schema_extra={"examples": [{"feature": "features.margin", "weight": 0.2}]},
    )

    feature: Annotated[str, Field(min_length=1, max_length=80)]
    weight: Size
    scale: Scale = "min-max"
    half_life: Annotated[float, Field(strict=True, gt=0, le=MAX_SIZE)] | None = None
    missing: Size = 0.0

    def __post_init__(self) -> None:
        """Raise ValueError for a term that says something impossible."""
        if self.feature not in BUILT_IN and not self.feature.startswith(PREFIXES):
            known = ", ".join(BUILT_IN)
            raise ValueError(
                f"feature {self.feature!r} must be one of {known}, `attributes.` and a name, or "
                "`features.` and a name"
            )
        if (self.scale == "decay") != (self.half_life is not None):
            raise ValueError("`half_life` must go with the scale `decay`, and with no other")


Blend: TypeAlias = tuple[Term, ...]
# The model's order alone.
PLAIN: Blend = (Term(MODEL, 1.0, "none"),)
