"""Outcomes: how the trials of a search ended, and which was best."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from optuna.trial import FrozenTrial, Trial, TrialState

from training.search.space import Scalar, overrides, tidy
from training.validation import SCORE

TRIALS_DIR = "trials"
# Names of what a study keeps with its trials.
PLACE, REASON, SECONDS = "place", "reason", "seconds"
State = Literal["complete", "pruned", "failed"]
_STATES: Mapping[TrialState, State] = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the trial at a place ended; `scores` are the validation scores of its epochs, in order.

    `best_epoch` counts from 1, and is 0 when there is none; `reason` says why a trial failed.
    """

    place: int
    state: State
    values: dict[str, Scalar]
    scores: tuple[float, ...]
    seconds: float
    reason: str

    @property
    def score(self) -> float | None:
        """Return the score of the best epoch."""
        return max(self.scores, default=None)

    @property
    def best_epoch(self) -> int:
        """Return the first epoch that has the best score."""
        return self.scores.index(max(self.scores)) + 1 if self.scores else 0


def trial_folder(out: Path, place: int) -> Path:
    """Return the run folder of the trial at a place."""
    return out / TRIALS_DIR / f"{place:03d}"


def best_outcome(outcomes: Sequence[Outcome]) -> Outcome | None:
    """Return the whole trial with the best score, the first of equals; None without any."""
    whole = [outcome for outcome in outcomes if outcome.state == "complete"]
    return max(whole, key=lambda outcome: max(outcome.scores), default=None)


def describe(outcome: Outcome) -> str:
    """Return an outcome as one line of the log."""
    values = ", ".join(overrides(outcome.values))
    if outcome.state == "failed":
        return f"trial {outcome.place:03d} failed: {outcome.reason}"
    return (
        f"trial {outcome.place:03d} {outcome.state}  {SCORE} {outcome.score:.4f} at epoch "
        f"{outcome.best_epoch} of {len(outcome.scores)}  {values}"
    )


def values_of(trial: Trial | FrozenTrial) -> dict[str, Scalar]:
    """Return the values that a trial tries."""
    return {name: tidy(value) for name, value in trial.params.items()}


def outcome_of(trial: FrozenTrial) -> Outcome:
    """Return the outcome of a trial that has ended and has a place."""
    return Outcome(
        place=trial.user_attrs[PLACE],
        state=_STATES[trial.state],
        values=values_of(trial),
        scores=tuple(trial.intermediate_values[at] for at in sorted(trial.intermediate_values)),
        seconds=trial.user_attrs.get(SECONDS, 0.0),
        reason=trial.user_attrs.get(REASON, ""),
    )
