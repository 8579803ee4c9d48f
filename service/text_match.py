"""What a request says in words, blended with what its user did."""

from dataclasses import dataclass

import numpy as np

from service.contract.features import Float32s
from service.nearest import Bonus
from service.ranker import FOREVER_MS, Encoded


@dataclass(frozen=True, slots=True)
class TextQuery:
    """Words that items are to match, and how much of the score is for that, 0 to 1."""

    text: str
    weight: float


@dataclass(frozen=True, slots=True)
class TextMatch:
    """The direction of a text's vector, (dim,), of length 1 or 0, and how much it weighs."""

    direction: Float32s
    weight: float

    @classmethod
    def of(cls, vector: Float32s, weight: float) -> "TextMatch":
        """Return the match of a text's vector, (dim,)."""
        length = float(np.linalg.norm(vector))
        return cls(vector / np.float32(length) if length else vector, weight)

    @property
    def alone(self) -> Encoded | None:
        """Return what stands for the window of somebody who did nothing; None of no direction."""
        if not self.weight or not self.direction.any():
            return None
        return Encoded(np.zeros_like(self.direction), Bonus.nothing(), FOREVER_MS)

    def blended(self, encoded: Encoded) -> Encoded:
        """Return the query vector turned towards the text: (1 - w) q + w |q| t.

        The bonus of own items is taste too, and shrinks with it. Without any taste the text's
        direction is all, at length 1. The vectors that were given stay as they are.
        """
        query, bonus, until_ms = encoded
        length = np.linalg.norm(query)
        if not self.direction.any():
            return encoded
        if not length:
            return Encoded(self.direction, bonus, until_ms)
        taste = np.float32(1 - self.weight)
        turned = taste * query + np.float32(self.weight) * length * self.direction
        own = Bonus(bonus.items, taste * bonus.weights)
        return Encoded(np.asarray(turned, np.float32), own, until_ms)
