"""A search for settings: trials trained one after another, the hopeless ones ended early.

Optuna proposes values and keeps the study in DIR/study.db; the trial at place n is an ordinary
run in DIR/trials/n. Places count from 1 and are never reused: a trial that was killed is told to
have failed and its values are tried again at the same place, where its run goes on from its
checkpoint. What a place tries follows from the seed, the place and the trials before it, so a
search that was killed proposes what it would have proposed. Trials see validation cases only.
"""

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from training.checkpoints import LAST_FILE, load_state
from training.config import RunConfig, TrainingError, config_to_dict
from training.report import write_run_report
from training.runs import run_documents
from training.search.outcomes import (
    PLACE,
    REASON,
    SECONDS,
    Outcome,
    describe,
    outcome_of,
    trial_folder,
    values_of,
)
from training.search.space import Axis, Values, grid, overrides
from training.search.space_file import Settings
from training.search.study import (
    LOCK_FILE,
    Method,
    distribution,
    ended,
    killed,
    locked,
    open_study,
    sampler,
)
from training.train import TrainInputs, train
from training.validation import SCORE

DEFAULT_TRIALS = 20

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SearchPlan:
    """What a search tries; a search that is resumed must have the same, `num_trials` apart.

    `num_trials` None is the whole grid, or DEFAULT_TRIALS.
    """

    axes: tuple[Axis, ...]
    method: Method
    seed: int
    num_trials: int | None = None

    def proposals(self) -> list[Values | None]:
        """Return the values of each place from 1; None where the sampler decides."""
        if self.method != "grid":
            return [None] * (self.num_trials or DEFAULT_TRIALS)
        return list(grid(self.axes)[: self.num_trials])


class Search:
    """One search in one folder; raises TrainingError for a folder of another search."""

    def __init__(
        self, inputs: TrainInputs, plan: SearchPlan, settings: Settings, out: Path
    ) -> None:
        self._inputs, self._plan, self._settings, self._out = inputs, plan, settings, out
        self._proposals = plan.proposals()
        self._space = {axis.name: distribution(axis) for axis in plan.axes}

    def run(self) -> Iterator[list[Outcome]]:
        """Train what is not done yet; yield the outcomes so far, by place, after each trial.

        The first list is what an earlier start has left. Raises TrainingError when another
        process searches in the folder.
        """
        self._out.mkdir(parents=True, exist_ok=True)
        with locked(self._out / LOCK_FILE):
            study = open_study(self._out, self._identity())
            done, broken = ended(study), killed(study)
            yield _by_place(done)
            for place, proposal in enumerate(self._proposals, start=1):
                if place not in done:
                    trial = self._ask(study, place, broken.get(place, proposal))
                    done[place] = outcome_of(self._try(study, trial, place))
                    log.info("%s", describe(done[place]))
                    yield _by_place(done)

    def settings_of(self, outcome: Outcome) -> RunConfig:
        """Return the whole settings of a trial."""
        return self._settings(overrides(outcome.values))

    def _identity(self) -> dict[str, Any]:
        """Return what two starts of one search have in common, as JSON reads it back."""
        document = {
            "space": [asdict(axis) for axis in self._plan.axes],
            "method": self._plan.method,
            "seed": self._plan.seed,
            "settings": config_to_dict(self._settings([])),
            "data": self._inputs.info.data_sha256,
        }
        identity: dict[str, Any] = json.loads(json.dumps(document))
        return identity

    def _ask(self, study: optuna.Study, place: int, values: Values | None) -> Trial:
        if values is not None:
            study.enqueue_trial(dict(values))
        study.sampler = sampler(self._plan.method, self._plan.seed, place)
        trial = study.ask(self._space)
        trial.set_user_attr(PLACE, place)
        return trial

    def _try(self, study: optuna.Study, trial: Trial, place: int) -> FrozenTrial:
        """Train a trial and tell how it ended; what a person can mend ends this trial alone."""
        run = trial_folder(self._out, place)
        watch = _Watch(trial)
        try:
            watch.replay(run)
            config = self._settings(overrides(values_of(trial)))
            value = train(self._inputs, config, run, on_epoch=watch).best_score
            write_run_report(run, *run_documents(run))
        except optuna.TrialPruned:
            watch.keep_time()
            return study.tell(trial, state=TrialState.PRUNED)
        except TrainingError as exc:
            trial.set_user_attr(REASON, str(exc))
            return study.tell(trial, state=TrialState.FAIL)
        watch.keep_time()
        return study.tell(trial, value)


class _Watch:
    """Reports a trial's epochs, those before it was killed included, and ends it when told to."""

    def __init__(self, trial: Trial) -> None:
        self._trial, self._seconds = trial, 0.0

    def replay(self, run: Path) -> None:
        path = run / LAST_FILE
        for row in load_state(path).history if path.is_file() else []:
            self._report(row)

    def __call__(self, row: dict[str, float]) -> None:
        self._report(row)
        if self._trial.should_prune():
            raise optuna.TrialPruned

    def keep_time(self) -> None:
        self._trial.set_user_attr(SECONDS, self._seconds)

    def _report(self, row: dict[str, float]) -> None:
        self._trial.report(row[SCORE], int(row["epoch"]))
        self._seconds += row["seconds"]


def _by_place(outcomes: Mapping[int, Outcome]) -> list[Outcome]:
    return [outcomes[place] for place in sorted(outcomes)]
