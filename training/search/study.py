"""The study: what Optuna keeps of a search between one start and the next."""

import fcntl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import TrialState

from training.config import TrainingError
from training.search.outcomes import PLACE, REASON, Outcome, outcome_of
from training.search.space import Axis, Choices, Values

Method = Literal["grid", "random", "tpe"]
STUDY_FILE = "study.db"
LOCK_FILE = "search.lock"
STUDY_NAME = "search"
# No trial is ended before so many whole ones exist, or before so many of its own epochs.
PRUNER_STARTUP_TRIALS = 5
PRUNER_WARMUP_EPOCHS = 3


def open_study(out: Path, identity: Mapping[str, Any]) -> optuna.Study:
    """Open the study of a folder, a new one if there is none; what was running has then failed.

    `identity` is what two starts of one search have in common, in JSON's types. Raises
    TrainingError when the folder has a search with another one.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        storage=f"sqlite:///{(out / STUDY_FILE).resolve()}",
        study_name=STUDY_NAME,
        direction="maximize",
        load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(
            n_startup_trials=PRUNER_STARTUP_TRIALS, n_warmup_steps=PRUNER_WARMUP_EPOCHS
        ),
    )
    for name, value in identity.items():
        if study.user_attrs.get(name, value) != value:
            raise TrainingError(f"{out}: was searched with another {name}; choose another --out")
        study.set_user_attr(name, value)
    _fail_unfinished(study)
    return study


def distribution(axis: Axis) -> BaseDistribution:
    """Return an axis in Optuna's terms."""
    if isinstance(axis, Choices):
        return CategoricalDistribution(axis.values)
    if isinstance(axis.low, int) and isinstance(axis.high, int):
        return IntDistribution(axis.low, axis.high, axis.log, int(axis.step or 1))
    return FloatDistribution(axis.low, axis.high, axis.log, axis.step)


def sampler(method: Method, seed: int, place: int) -> optuna.samplers.BaseSampler:
    """Return the sampler of a place; a fresh one each, since its state does not outlive a kill."""
    drawn = int(np.random.SeedSequence([seed, place]).generate_state(1)[0])
    if method == "tpe":
        return optuna.samplers.TPESampler(seed=drawn)
    return optuna.samplers.RandomSampler(seed=drawn)


def ended(study: optuna.Study) -> dict[int, Outcome]:
    """Return the outcomes of the places that need no other try."""
    return {
        trial.user_attrs[PLACE]: outcome_of(trial)
        for trial in study.trials
        if trial.state != TrialState.FAIL or REASON in trial.user_attrs
    }


def killed(study: optuna.Study) -> dict[int, Values]:
    """Return the values of the places whose trial was killed."""
    return {
        trial.user_attrs[PLACE]: trial.params
        for trial in study.trials
        if trial.state == TrialState.FAIL and PLACE in trial.user_attrs
    }


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock that the system releases when the process ends, however it ends."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise TrainingError(f"{path.parent}: another process searches here") from exc
        yield


def _fail_unfinished(study: optuna.Study) -> None:
    """Tell that what a killed search left running or waiting has failed."""
    for _ in study.get_trials(states=(TrialState.WAITING,)):
        study.ask()
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
