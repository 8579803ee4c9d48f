"""What a benchmark and its peers share: the events, the split, and the ranking of its cases.

The parent writes one `Cases` archive a split; a worker in another environment reads it. Both rank
with `training.metrics.target_ranks`, which needs NumPy alone.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.metrics import target_ranks

Int64s = NDArray[np.int64]
# Scores of some cases for all items, (cases, num_items + 1); column 0 is padding.
Score = Callable[[Int64s], NDArray[np.float32]]
RULES = ("removed", "kept")
BATCH = 256


@dataclass(frozen=True, slots=True)
class Cases:
    """Events grouped by user and ordered by time, and which of them train, validate and test.

    `users`, `items` (from 1) and `timestamps_ms` are (num_events,); `user_starts` is
    (num_users + 1,); `train` a mask over events; `stopping` (for early stopping), `validation`
    and `test` are target rows: a case's window is what its user did before the row.
    """

    users: Int64s
    items: Int64s
    timestamps_ms: Int64s
    user_starts: Int64s
    train: NDArray[np.bool_]
    stopping: Int64s
    validation: Int64s
    test: Int64s
    num_items: int

    def save(self, path: Path) -> None:
        """Write the archive."""
        np.savez(path, **{entry.name: getattr(self, entry.name) for entry in fields(self)})

    @classmethod
    def load(cls, path: Path) -> "Cases":
        """Read what `save` wrote."""
        with np.load(path) as archive:
            columns = {entry.name: archive[entry.name] for entry in fields(cls)}
        return cls(**columns | {"num_items": int(columns["num_items"])})

    def seen(self, rows: Int64s) -> tuple[Int64s, Int64s]:
        """Return (case, item) pairs of everything each case's user did before its target."""
        starts = self.user_starts[self.users[rows]]
        pairs = [
            (np.full(row - start, case), self.items[start:row])
            for case, (start, row) in enumerate(zip(starts, rows, strict=True))
        ]
        cases, items = zip(*pairs, strict=True)
        return np.concatenate(cases), np.concatenate(items)


def rank_cases(cases: Cases, rows: Int64s, score: Score) -> dict[str, Int64s]:
    """Return each case's target rank, (len(rows),), under both rules for seen items."""
    ranks: dict[str, list[Int64s]] = {rule: [] for rule in RULES}
    for at in range(0, len(rows), BATCH):
        chosen = rows[at : at + BATCH]
        targets = cases.items[chosen]
        scores = score(chosen)
        scores[:, 0] = -np.inf
        ranks["kept"].append(target_ranks(scores, targets))
        scores[cases.seen(chosen)] = -np.inf
        ranks["removed"].append(target_ranks(scores, targets))
    return {rule: np.concatenate(parts) for rule, parts in ranks.items()}
