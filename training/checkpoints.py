"""Checkpoints: all that a killed run needs to go on with the same losses.

The state, field by field: `config` (refused when it differs), `data_sha256`, `epoch` (finished),
`model` (the weights that are validated), `learner` (those that learn, where they differ),
`optimizer`, `history` (a row per epoch), `best_score`, `best_epoch`. Random numbers need no state:
each epoch's generators start from the seed and the epoch. Files are written aside and renamed.
"""

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from training.config import TrainingError

LAST_FILE = "last.pt"
BEST_FILE = "best.pt"


@dataclass(slots=True)
class TrainState:
    """The mutable progress of a run; see the module for the fields."""

    config: dict[str, Any]
    data_sha256: str
    epoch: int
    model: dict[str, Any]
    learner: dict[str, Any] | None
    optimizer: dict[str, Any]
    history: list[dict[str, float]]
    best_score: float
    best_epoch: int
    finished: bool = False


def save_state(path: Path, state: TrainState) -> None:
    """Write a state so that a reader sees the old file or the new one, never half of it."""
    aside = path.with_suffix(".tmp")
    torch.save({name: getattr(state, name) for name in TrainState.__slots__}, aside)
    aside.replace(path)


def load_state(path: Path) -> TrainState:
    """Read a state; raises TrainingError when the file is damaged or of another build."""
    try:
        document = torch.load(path, map_location="cpu", weights_only=True)
        return TrainState(**document)
    except (OSError, RuntimeError, TypeError, EOFError, pickle.UnpicklingError) as exc:
        raise TrainingError(f"{path}: not a checkpoint of this build: {exc}") from exc
